"""Figures: curves, panels, styles, and drawings of media."""
