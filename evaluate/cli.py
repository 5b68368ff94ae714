"""``sclmkb-eval``: measures trained systems and draws the results."""

from pathlib import Path
from typing import Annotated

import typer

from sclmkb.common.cli import ConfigOption, NewRunOption, PresetOption, SetOption, preset_folder, run_app, say

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def root() -> None:
    """Measure trained systems over SNR (run), predictors of CSI (csi), and write one HTML page of it all (report)."""


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
    folder = preset_folder(preset)
    inputs = RunInputs(
        checkpoints=checkpoints or folder / "jscc",
        corpus=corpus or folder / "corpus",
        csi=csi or folder / "csi",
        predicted=predicted or folder / "predicted",
    )
    done = run_sweep(settings, inputs, out or folder / "eval", new_run=new_run)
    say(f"eval: measurements in {done / 'results.parquet'}")


@app.command()
def csi(
    csi: Annotated[list[Path] | None, typer.Option(help="CSI artifact; repeatable.")] = None,
    checkpoints: Annotated[
        Path | None, typer.Option(help="Folder with the checkpoints of sclmkb-train cdg, at any depth.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the measurements.")] = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    new_run: NewRunOption = False,
) -> None:
    """Measure every CSI predictor, persistence and AR(8) on the test split of CSI artifacts: tables and figures.

    Paths left out are those of the preset's folder, artifacts/PRESET/... What was measured is not measured again.
    """
    from sclmkb.evaluate.csi import CsiEvalSettings, measure_csi
    from sclmkb.evaluate.csi_output import write_output

    settings = CsiEvalSettings.resolve(
        presets="sclmkb.evaluate", section="csi", preset=preset, config=config, overrides=overrides or ()
    )
    folder = preset_folder(preset)
    done = measure_csi(
        settings, csi or [folder / "csi"], checkpoints or folder, out or folder / "csi-eval", new_run=new_run
    )
    typer.echo(write_output(done))
    say(f"eval: measurements in {done / 'results.parquet'}, figures in {done / 'figures'}")


@app.command()
def report(
    evaluation: Annotated[Path | None, typer.Option("--eval", help="Folder of sclmkb-eval run.")] = None,
    corpus: Annotated[Path | None, typer.Option(help="Corpus artifact, for the pictures.")] = None,
    sdg: Annotated[Path | None, typer.Option(help="Generated captions; none there: no such section.")] = None,
    predicted: Annotated[Path | None, typer.Option(help="Predicted CSI; none there: no such section.")] = None,
    calibration: Annotated[Path | None, typer.Option(help="Folder of sclmkb-gen calibrate.")] = None,
    csi_evaluation: Annotated[Path | None, typer.Option("--csi-eval", help="Folder of sclmkb-eval csi.")] = None,
    out: Annotated[Path | None, typer.Option(help="The HTML file to write.")] = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Write one self-contained HTML page: figures, tables, examples, configurations.

    Paths left out are those of the preset's folder, artifacts/PRESET/..., as far as they are there: a page on generated
    captions alone needs --sdg and no evaluation.
    """
    from sclmkb.evaluate.report import ReportSettings, make_report

    settings = ReportSettings.resolve(
        presets="sclmkb.evaluate", section="report", preset=preset, config=config, overrides=overrides or ()
    )
    folder = preset_folder(preset)
    page = out or folder / "report.html"
    make_report(
        settings,
        evaluation=evaluation or _if_there(folder / "eval"),
        corpus=corpus or _if_there(folder / "corpus"),
        sdg=sdg or _if_there(folder / "sdg"),
        predicted=predicted or _if_there(folder / "predicted"),
        calibration=calibration or _if_there(folder / "calibration"),
        csi_evaluation=csi_evaluation or _if_there(folder / "csi-eval"),
        out=page,
    )
    say(f"report: wrote {page}")


def _if_there(folder: Path) -> Path | None:
    return folder if folder.exists() else None


def main() -> None:
    """Entry point of the console script."""
    run_app(app)
