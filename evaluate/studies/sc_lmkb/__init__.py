"""The comparison of the paper SC-LMKB: systems, figures, claims."""
