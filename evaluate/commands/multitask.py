"""The command that measures the multi-task transceiver: ``mtsc``."""

from pathlib import Path
from typing import Annotated

import typer

from sclmkb.common.console import say
from sclmkb.common.options import ConfigOption, NewRunOption, PresetOption, SetOption, preset_folder
from sclmkb.evaluate.commands.options import CsiOption, PredictedOption


def mtsc(
    checkpoints: Annotated[
        Path | None, typer.Option(help="Folder with the checkpoints of sclmkb-train mtsc, at any depth.")
    ] = None,
    corpus: Annotated[list[Path] | None, typer.Option(help="Corpus artifact, or a folder of them; repeatable.")] = None,
    csi: CsiOption = None,
    predicted: PredictedOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the measurements.")] = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    new_run: NewRunOption = False,
) -> None:
    """Measure every task of all multi-task transceivers over SNR, with their own and with shuffled inputs.

    Paths that you leave out are those of the preset's folder, artifacts/PRESET/... Nothing is measured twice.
    Several processes share the work: torchrun --nproc-per-node N -m sclmkb.evaluate.cli mtsc ...
    """
    from sclmkb.common.artifacts.artifact import UnfinishedError
    from sclmkb.evaluate.multitask.output import write_output
    from sclmkb.evaluate.multitask.run import MtscEvalSettings, measure_mtsc

    settings = MtscEvalSettings.resolve(
        presets="sclmkb.evaluate", section="mtsc", preset=preset, config=config, overrides=overrides or ()
    )
    folder = preset_folder(preset)
    corpora = corpus or [folder / "corpora"]
    try:
        done = measure_mtsc(
            settings,
            checkpoints or folder / "mtsc",
            corpora,
            out or folder / "mtsc-eval",
            csi=csi,
            predicted=predicted,
            new_run=new_run,
        )
    except UnfinishedError as left:
        say(f"eval: {left}")
        return
    typer.echo(write_output(done))
    say(f"eval: measurements in {done / 'items.parquet'}, figures in {done / 'figures'}")
