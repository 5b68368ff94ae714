"""Training of the semantic transceiver."""
