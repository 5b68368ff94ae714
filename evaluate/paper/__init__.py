"""``sclmkb-eval paper``: every system of the paper, measured by commands that a user could type, and its figures."""
