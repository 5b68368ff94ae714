"""``sclmkb-eval``: measures trained systems and draws the results."""

from pathlib import Path
from typing import Annotated

import typer

from sclmkb.common.cli import ConfigOption, PresetOption, SetOption, run_app, say

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def root() -> None:
    """Measure trained systems over SNR (run) and write the result as one HTML page (report)."""


@app.command()
def report(
    evaluation: Annotated[Path, typer.Option("--eval", help="Folder of sclmkb-eval run.")],
    corpus: Annotated[Path, typer.Option(help="Corpus artifact, for the pictures.")],
    sdg: Annotated[Path | None, typer.Option(help="Generated captions; left out: no such section.")] = None,
    predicted: Annotated[Path | None, typer.Option(help="Predicted CSI; left out: no such section.")] = None,
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("artifacts/report.html"),
    preset: PresetOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Write one self-contained HTML page: figures, tables, examples, configurations."""
    from sclmkb.evaluate.report import ReportSettings, make_report

    settings = ReportSettings.resolve(
        presets="sclmkb.evaluate", section="report", preset=preset, config=config, overrides=overrides or ()
    )
    make_report(settings, evaluation=evaluation, corpus=corpus, sdg=sdg, predicted=predicted, out=out)
    say(f"wrote {out}")


def main() -> None:
    """Entry point of the console script."""
    run_app(app)
