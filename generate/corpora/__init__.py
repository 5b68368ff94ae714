"""Corpora: pictures, motion, sound and their captions as artifacts."""
