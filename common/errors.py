"""The one exception that a command shows to its user as a single line."""


class UserError(Exception):
    """Something the user can mend.

    The message is one line that says what is wrong, where, and how to mend it. A command prints it without a
    traceback and exits with code 2.
    """


def first_line(error: BaseException) -> str:
    """Return the telling line of an error's message, or its type if it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith("Value error, ")]  # as pydantic writes it
    return (telling or lines or [type(error).__name__])[0].removeprefix("Value error, ")
