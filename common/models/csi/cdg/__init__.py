"""CDG: channel data generation around a frozen language model, eqs. (17)-(21)."""
