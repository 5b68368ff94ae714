"""Measurements of CSI predictors: samples, tables, figures, maps of a sector."""
