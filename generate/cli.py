"""``sclmkb-gen``: makes the knowledge base offline."""

import typer

from sclmkb.common.cli import EXIT_USER_ERROR, run_app

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def root() -> None:
    """Make the knowledge base offline: captions (sdg) and channel state information (csi, cdg)."""


@app.command()
def doctor() -> None:
    """Print what is installed, what will be used, and what is missing with the mend."""
    from rich.console import Console
    from rich.table import Table

    from sclmkb.generate.doctor import engine_in_use, run_checks

    checks = run_checks()
    table = Table("", "what", "found", "needed for", "mend", box=None, header_style="bold")
    for check in checks:
        table.add_row("no" if check.mend else "ok", check.name, check.found or "missing", check.needed_for, check.mend)
    console = Console(highlight=False)
    console.print(table)
    console.print(f"Engine in use: {engine_in_use()}")
    if any(check.mend for check in checks):
        raise typer.Exit(EXIT_USER_ERROR)


def main() -> None:
    """Entry point of the console script."""
    run_app(app)
