"""The report: one self-contained page, a module per part of it."""
