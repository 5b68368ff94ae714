"""``sclmkb-gen``: makes the knowledge base offline. The commands stand in :mod:`sclmkb.generate.commands`."""

import typer

from sclmkb.common.console import EXIT_USER_ERROR, LogFormat, run_app
from sclmkb.common.options import LogFormatOption
from sclmkb.generate.commands import captions, corpora, csi, runs

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def root(log_format: LogFormatOption = LogFormat.TEXT) -> None:
    """Make the knowledge base offline: captions (sdg) and channel state information (csi, cdg)."""


@app.command()
def doctor() -> None:
    """Print what is installed, what will be used, and how to install what is missing."""
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


for command in (
    corpora.corpus,
    captions.preview,
    captions.sdg,
    captions.refilter,
    captions.calibrate,
    corpora.export,
    csi.csi,
    csi.import_csi,
    csi.csi_feedback,
    csi.inspect,
    csi.cdg,
    runs.status,
    runs.verify,
    runs.merge,
):
    app.command({"refilter": "filter"}.get(command.__name__))(command)


def main() -> None:
    """Entry point of the console script."""
    run_app(app)


if __name__ == "__main__":
    main()
