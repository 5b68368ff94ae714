"""Measurements of trained systems over the link, and what they say side by side."""
