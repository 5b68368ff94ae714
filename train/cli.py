"""The command line of this stage."""

import typer

from sclmkb.common.cli import run_app

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def main() -> None:
    """Entry point of the console script."""
    run_app(app)
