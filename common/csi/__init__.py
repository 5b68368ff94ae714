"""CSI tensors and artifacts: noise, feedback, beams, sets in memory, predicted CSI."""
