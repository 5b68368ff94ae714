"""Local pages of ``sclmkb-eval serve``: what they share."""
