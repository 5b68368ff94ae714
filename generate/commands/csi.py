"""The commands of ``sclmkb-gen`` that make CSI, predict it and look at it."""

from pathlib import Path
from typing import Annotated

import typer

from sclmkb.common.artifacts.storage import FOLDER, LOCAL
from sclmkb.common.console import say
from sclmkb.common.options import PresetOption, RunOptions, preset_folder, takes_run_options


@takes_run_options
def csi(
    scenario: Annotated[
        list[str] | None,
        typer.Option("--scenario", help="umi-los, umi-nlos, uma-los, uma-nlos, or cdl-a to cdl-e; repeatable."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the artifact.", **FOLDER)] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of everything random.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", help="Processes; 0: one per core.")] = None,
    *,
    run: RunOptions,
) -> None:
    """Simulate 3GPP channel drops: noisy CSI histories and clean futures for training, validation and test.

    Set a speed or a range with --set speed_kmh=30 or --set 'speed_kmh=[10, 100]' [km/h], likewise pilot_snr_db [dB],
    the number of drops with num_train, num_val and num_test, and carrier_hz, sample_period_s, num_history, num_future.

    Also often set: bs_rows, bs_columns, ut_rows, ut_columns (arrays), num_subcarriers and subcarrier_spacing_hz
    (wideband), delay_spread_ns (CDL), pilot_pattern=comb, users=100 (a map of one sector). See docs/csi.md.
    """
    from sclmkb.common.executors.choose import choose_executor
    from sclmkb.generate.csi.drops import plan_csi
    from sclmkb.generate.csi.settings import CsiSettings

    target = out or preset_folder(run.preset) / "csi"
    runner = choose_executor(run, "csi", target)
    options = {"scenario": scenario or None, "seed": seed, "workers": workers}
    settings = CsiSettings.resolve(presets="sclmkb.generate", section="csi", **run.layers, options=options)
    if artifact := runner.execute(plan_csi(settings, target, new_run=run.new_run, join=run.join)):
        say(f"csi: {artifact.root} holds {artifact.counts().get('ok', 0)} drops of {', '.join(settings.scenario)}")


@takes_run_options
def import_csi(
    layout: Annotated[str, typer.Argument(help="quadriga, llm4cp or numpy.")],
    root: Annotated[Path, typer.Option("--root", help="File to read; for llm4cp also the folder of its .mat files.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the artifact.", **FOLDER)] = None,
    *,
    run: RunOptions,
) -> None:
    """Cut CSI that another program made into noisy histories and clean futures, in the form that csi writes.

    Windows of one user never fall into two splits. Set what the file does not say: speed_kmh, carrier_hz,
    sample_period_s, num_rx, num_tx. Often set: num_history, num_future, stride, num_subcarriers (1: narrowband),
    pilot_snr_db, test_pilot_snr_db, val_share, test_share. See docs/csi.md for all layouts.
    """
    from sclmkb.common.executors.choose import choose_executor
    from sclmkb.generate.csi.importing import ImportSettings, plan_import

    target = out or preset_folder(run.preset) / "csi"
    runner = choose_executor(run, "import-csi", target)
    settings = ImportSettings.resolve(presets="sclmkb.generate", section="import-csi", **run.layers)
    if artifact := runner.execute(plan_import(settings, layout, root, target, new_run=run.new_run, join=run.join)):
        say(f"import-csi: {artifact.root} holds {artifact.counts()['ok']} windows of {layout}")


@takes_run_options
def csi_feedback(
    csi: Annotated[Path | None, typer.Option("--csi", help="CSI artifact.", **FOLDER)] = None,
    bits: Annotated[int | None, typer.Option("--bits", help="Bits per report of one whole channel matrix.")] = None,
    fit: Annotated[
        Path | None,
        typer.Option("--fit", help="CSI artifact whose training drops the code book is fitted to.", **FOLDER),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the artifact.", **FOLDER)] = None,
    *,
    run: RunOptions,
) -> None:
    """Send each sample of all CSI histories through feedback of B bits; the future stays clean.

    Feedback is a Karhunen-Loeve transform, reverse water-filling and Lloyd-Max quantisers, fitted to training drops.
    """
    from sclmkb.common.executors.choose import choose_executor
    from sclmkb.generate.csi.feedback import FeedbackSettings, plan_feedback

    folder = preset_folder(run.preset)
    options = {"feedback_bits": bits}
    settings = FeedbackSettings.resolve(
        presets="sclmkb.generate", section="csi-feedback", **run.layers, options=options
    )
    target = out or folder / f"csi-{settings.feedback_bits}bit"
    runner = choose_executor(run, "csi-feedback", target)
    source = csi or folder / "csi"
    work = plan_feedback(settings, source, target, fit=fit, new_run=run.new_run, join=run.join)
    if artifact := runner.execute(work):
        count, bits = artifact.counts()["ok"], settings.feedback_bits
        say(f"csi-feedback: {artifact.root} holds {count} drops, {bits} bits per sample")


@takes_run_options
def cdg(
    csi: Annotated[Path | None, typer.Option("--csi", help="CSI artifact.", **FOLDER)] = None,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="Folder of a predictor that sclmkb-train cdg wrote.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the artifact.", **FOLDER)] = None,
    predictor: Annotated[
        str | None, typer.Option("--predictor", help="checkpoint; or persistence or ar, which need no checkpoint.")
    ] = None,
    *,
    run: RunOptions,
) -> None:
    """Predict the future CSI of each drop, with its NMSE beside persistence and AR(8)."""
    from sclmkb.common.executors.choose import choose_executor
    from sclmkb.generate.csi.predict import PredictSettings, plan_predicted

    folder = preset_folder(run.preset)
    target = out or folder / "predicted"
    runner = choose_executor(run, "cdg", target)
    options = {"predictor": predictor}
    settings = PredictSettings.resolve(presets="sclmkb.generate", section="cdg", **run.layers, options=options)
    fitted = checkpoint or (folder / "cdg" if settings.predictor == "checkpoint" else None)
    work = plan_predicted(settings, csi or folder / "csi", fitted, target, new_run=run.new_run, join=run.join)
    if artifact := runner.execute(work):
        say(f"cdg: {artifact.root} holds {artifact.counts().get('ok', 0)} predicted drops")


def inspect(
    folder: Annotated[Path | None, typer.Argument(help="Folder of a CSI artifact.", **FOLDER)] = None,
    shard: Annotated[str | None, typer.Option("--shard", help="Shard to show; default: the first.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="PNG file; default: beside the shards.", **LOCAL)] = None,
    preset: PresetOption = None,
) -> None:
    """Draw a shard of CSI and print its facts: power, delay and Doppler spectra, singular values, capacity."""
    from rich.console import Console
    from rich.table import Table

    from sclmkb.generate.csi.inspect_figure import draw_inspection
    from sclmkb.generate.csi.inspecting import inspect_shard

    root = folder or preset_folder(preset) / "csi"
    found = inspect_shard(root, shard)
    table = Table(show_header=False, box=None)
    for name, value in {"shard": found.shard, **found.facts}.items():
        table.add_row(name, value)
    Console(highlight=False).print(table)
    path = out or root / f"{found.shard}.png"
    draw_inspection(found, path)
    say(f"inspect: {path}")
