"""Channel simulators."""
