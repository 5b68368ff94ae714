"""Measures trained systems and draws the results."""
