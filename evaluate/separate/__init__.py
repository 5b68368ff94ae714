"""Separate source and channel coding, classical and modern: the digital baselines."""
