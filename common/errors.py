"""The one exception that a command shows to its user as a single line."""


class UserError(Exception):
    """Something the user can mend.

    The message is one line that says what is wrong, where, and how to mend it. A command prints it without a
    traceback and exits with code 2.
    """
