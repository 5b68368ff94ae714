"""The commands of ``sclmkb-eval``: options in, one call of the package that does the work."""
