"""Commands that measure: ``run``, ``sscc``, ``csi``, and ``compare``."""

from pathlib import Path
from typing import Annotated

import typer

from sclmkb.common.console import say
from sclmkb.common.options import ConfigOption, NewRunOption, PresetOption, SetOption, preset_folder
from sclmkb.evaluate.commands.options import CorpusOption, CsiOption, PredictedOption, if_there


def run(
    checkpoints: Annotated[
        Path | None, typer.Option(help="Folder with the checkpoints of sclmkb-train jscc, at any depth.")
    ] = None,
    corpus: CorpusOption = None,
    csi: CsiOption = None,
    predicted: PredictedOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the measurements.")] = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    new_run: NewRunOption = False,
) -> None:
    """Measure mAP and Rank@1, 5, 10 of all checkpoints over SNR, receivers and wordings, on the test split.

    Paths that you leave out are those of the preset's folder, artifacts/PRESET/... Nothing is measured twice.
    Several processes share the work: torchrun --nproc-per-node N -m sclmkb.evaluate.cli run ...
    """
    from sclmkb.common.artifacts.artifact import UnfinishedError
    from sclmkb.evaluate.measure.retrieval import write_tables
    from sclmkb.evaluate.measure.run import run_sweep
    from sclmkb.evaluate.measure.settings import RunInputs, RunSettings

    settings = RunSettings.resolve(
        presets="sclmkb.evaluate", section="run", preset=preset, config=config, overrides=overrides or ()
    )
    folder = preset_folder(preset)
    inputs = RunInputs.below(folder, checkpoints=checkpoints, corpus=corpus, csi=csi, predicted=predicted)
    try:
        done = run_sweep(settings, inputs, out or folder / "eval", new_run=new_run)
    except UnfinishedError as left:
        say(f"eval: {left}")
        return
    typer.echo(write_tables(done, settings.table_snr_db))
    say(f"eval: measurements in {done / 'results.parquet'}, tables in {done / 'tables.md'}")


def sscc(
    checkpoints: Annotated[
        Path | None,
        typer.Option(help="Folder with checkpoints of sclmkb-train jscc, among them one with link.channel=none."),
    ] = None,
    corpus: CorpusOption = None,
    csi: CsiOption = None,
    predicted: PredictedOption = None,
    evaluation: Annotated[
        Path | None, typer.Option("--eval", help="Folder of sclmkb-eval run to compare with; its conditions are used.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the measurements.")] = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    new_run: NewRunOption = False,
) -> None:
    """Measure separate source and channel coding as run measures systems: Huffman, Reed-Solomon, QAM, or LDPC.

    Paths that you leave out are those of the preset's folder, artifacts/PRESET/... Nothing is measured twice.
    Several processes share the checkpoints: torchrun --nproc-per-node N -m sclmkb.evaluate.cli sscc ...
    """
    from sclmkb.common.artifacts.artifact import UnfinishedError
    from sclmkb.evaluate.measure.settings import RunInputs
    from sclmkb.evaluate.separate.run import conditions_of, run_sscc, write_sscc_tables
    from sclmkb.evaluate.separate.sscc import SsccSettings

    folder = preset_folder(preset)
    evaluation = evaluation or if_there(folder / "eval")
    settings = SsccSettings.resolve(
        presets="sclmkb.evaluate",
        section="sscc",
        preset=preset,
        config=config,
        overrides=overrides or (),
        defaults=conditions_of(evaluation) if evaluation else None,
    )
    inputs = RunInputs.below(folder, checkpoints=checkpoints, corpus=corpus, csi=csi, predicted=predicted)
    try:
        done = run_sscc(settings, inputs, out or folder / "sscc", compared=evaluation, new_run=new_run)
    except UnfinishedError as left:
        say(f"eval: {left}")
        return
    typer.echo(write_sscc_tables(done))
    say(f"eval: measurements in {done / 'results.parquet'}, tables in {done / 'tables.md'}")


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
    """Measure all CSI predictors, persistence and AR(8) on the test split of CSI artifacts: tables and figures.

    Paths that you leave out are those of the preset's folder, artifacts/PRESET/... Nothing is measured twice.
    """
    from sclmkb.evaluate.predictors.output import write_output
    from sclmkb.evaluate.predictors.run import CsiEvalSettings, measure_csi

    settings = CsiEvalSettings.resolve(
        presets="sclmkb.evaluate", section="csi", preset=preset, config=config, overrides=overrides or ()
    )
    folder = preset_folder(preset)
    done = measure_csi(
        settings, csi or [folder / "csi"], checkpoints or folder, out or folder / "csi-eval", new_run=new_run
    )
    typer.echo(write_output(done))
    say(f"eval: measurements in {done / 'results.parquet'}, figures in {done / 'figures'}")


def compare(
    first: Annotated[Path, typer.Argument(help="Folder of sclmkb-eval run or sscc.")],
    second: Annotated[Path, typer.Argument(help="Another one.")],
    snr: Annotated[float, typer.Option(help="SNR in dB, measured in both.")] = 15.0,
    out: Annotated[Path | None, typer.Option(help="Markdown file to write as well.")] = None,
) -> None:
    """Put two measurements side by side: how settings and inputs differ, and what the systems find."""
    from sclmkb.common.artifacts.files import write_bytes
    from sclmkb.evaluate.measure.compare import compare_runs

    text = compare_runs(first, second, snr)
    typer.echo(text)
    if out is not None:
        write_bytes(out, text.encode())
        say(f"eval: wrote {out}")
