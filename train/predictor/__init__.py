"""Training of CSI predictors."""
