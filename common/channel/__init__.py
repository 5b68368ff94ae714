"""MIMO channel mathematics: precoding, detection, CSI representation."""
