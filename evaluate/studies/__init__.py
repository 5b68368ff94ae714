"""Studies: lists of commands that a user could type, and what is drawn from their results."""
