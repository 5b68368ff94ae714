"""CSI: simulated, imported, fed back in B bits, predicted, inspected."""
