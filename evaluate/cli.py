"""``sclmkb-eval``: measures trained systems and draws the results."""

from pathlib import Path
from typing import Annotated

import typer

from sclmkb.common.cli import ConfigOption, NewRunOption, PresetOption, SetOption, run_app, say

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def root() -> None:
    """Measure trained systems over SNR (run) and write the result as one HTML page (report)."""


@app.command()
def run(
    checkpoints: Annotated[
        Path | None, typer.Option(help="Folder with the checkpoints of sclmkb-train jscc, at any depth.")
    ] = None,
    corpus: Annotated[Path | None, typer.Option(help="Corpus artifact.")] = None,
    csi: Annotated[Path | None, typer.Option(help="CSI artifact.")] = None,
    predicted: Annotated[Path | None, typer.Option(help="Predicted CSI, for systems that use it.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the measurements.")] = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    new_run: NewRunOption = False,
) -> None:
    """Measure mAP and Rank@1, 5, 10 of every checkpoint over SNR, receivers and wordings, on the test split.

    Paths left out are those of the preset's folder, artifacts/PRESET/... What was measured is not measured again.
    """
    from sclmkb.evaluate.run import run_sweep
    from sclmkb.evaluate.sweeps import RunInputs, RunSettings

    settings = RunSettings.resolve(
        presets="sclmkb.evaluate", section="run", preset=preset, config=config, overrides=overrides or ()
    )
    folder = Path("artifacts") / (preset or "default")
    inputs = RunInputs(
        checkpoints=checkpoints or folder / "jscc",
        corpus=corpus or folder / "corpus",
        csi=csi or folder / "csi",
        predicted=predicted or folder / "predicted",
    )
    done = run_sweep(settings, inputs, out or folder / "eval", new_run=new_run)
    say(f"eval: measurements in {done / 'results.parquet'}")


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
