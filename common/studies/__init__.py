"""A study as data: a list of commands that a user could type, with what each needs and makes, and who runs them."""
