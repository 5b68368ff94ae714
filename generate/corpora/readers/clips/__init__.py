"""Readers of sounds and videos with captions."""
