"""The study of the second paper's first part, MTSC: systems, figures, claims, one page."""
