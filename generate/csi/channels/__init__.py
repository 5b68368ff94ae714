"""Channel simulators, one module each."""
