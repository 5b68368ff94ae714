"""Readers of pictures with questions, captions or labels."""
