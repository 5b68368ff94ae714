"""Runs on disk, going on or not: status, verification, merging, metrics."""
