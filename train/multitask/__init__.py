"""Training of the multi-task transceiver."""
