"""The MIMO link of the system model: precoding, channels, detection, and the CSI that each end uses."""
