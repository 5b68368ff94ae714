"""The command ``report``."""

from pathlib import Path
from typing import Annotated

import typer

from sclmkb.common.console import say
from sclmkb.common.options import ConfigOption, PresetOption, SetOption, preset_folder
from sclmkb.evaluate.commands.options import if_there


def report(
    evaluation: Annotated[Path | None, typer.Option("--eval", help="Folder of sclmkb-eval run.")] = None,
    corpus: Annotated[Path | None, typer.Option(help="Corpus artifact, for the pictures.")] = None,
    sdg: Annotated[
        Path | None, typer.Option(help="Generated captions; without them their section is left out.")
    ] = None,
    predicted: Annotated[Path | None, typer.Option(help="Predicted CSI; without it its section is left out.")] = None,
    csi: Annotated[Path | None, typer.Option(help="CSI artifact, for its cost and its hash.")] = None,
    calibration: Annotated[Path | None, typer.Option(help="Folder of sclmkb-gen calibrate.")] = None,
    csi_evaluation: Annotated[Path | None, typer.Option("--csi-eval", help="Folder of sclmkb-eval csi.")] = None,
    out: Annotated[Path | None, typer.Option(help="The HTML file to write.")] = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Write one self-contained HTML page: figures, tables, examples, costs, configurations, and how to repeat them.

    Paths that you leave out are those of the preset's folder, artifacts/PRESET/..., if they exist. A page on generated
    captions alone needs --sdg and no evaluation. The main figure is also written beside the page, as an SVG file.
    """
    from sclmkb.evaluate.report.page import ReportSettings, make_report

    settings = ReportSettings.resolve(
        presets="sclmkb.evaluate", section="report", preset=preset, config=config, overrides=overrides or ()
    )
    folder = preset_folder(preset)
    page = out or folder / "report.html"
    make_report(
        settings,
        evaluation=evaluation or if_there(folder / "eval"),
        corpus=corpus or if_there(folder / "corpus"),
        sdg=sdg or if_there(folder / "sdg"),
        predicted=predicted or if_there(folder / "predicted"),
        csi=csi or if_there(folder / "csi"),
        calibration=calibration or if_there(folder / "calibration"),
        csi_evaluation=csi_evaluation or if_there(folder / "csi-eval"),
        out=page,
    )
    say(f"report: wrote {page}")
