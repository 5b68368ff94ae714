"""Predictors of future CSI, one file each."""
