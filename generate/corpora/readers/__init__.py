"""Readers of corpora, one module per layout."""
