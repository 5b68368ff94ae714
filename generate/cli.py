"""``sclmkb-gen``: makes the knowledge base offline."""

from pathlib import Path
from typing import Annotated

import typer

from sclmkb.common.cli import (
    EXIT_USER_ERROR,
    ConfigOption,
    NewRunOption,
    PresetOption,
    SetOption,
    run_app,
    say,
)

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


@app.command()
def csi(
    scenario: Annotated[
        str | None, typer.Option("--scenario", help="umi-los, umi-nlos, uma-los or uma-nlos (TR 38.901).")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the artifact.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed that everything random follows from.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", help="Processes; 0: one for each core.")] = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    new_run: NewRunOption = False,
) -> None:
    """Simulate 3GPP channel drops: noisy CSI history and clean future, apart for training, validation and test.

    Set a speed or a range with --set speed_kmh=30 or --set 'speed_kmh=[10, 100]' [km/h], likewise pilot_snr_db [dB],
    the number of drops with num_train, num_val and num_test, and carrier_hz, sample_period_s, num_history, num_future.
    """
    from sclmkb.generate.csi import CsiSettings, generate_csi

    options = {"scenario": scenario, "seed": seed, "workers": workers}
    settings = CsiSettings.resolve(
        presets="sclmkb.generate",
        section="csi",
        preset=preset,
        config=config,
        overrides=overrides or (),
        options=options,
    )
    artifact = generate_csi(settings, out or Path("artifacts") / (preset or "default") / "csi", new_run=new_run)
    say(f"csi: {artifact.root} holds {artifact.counts().get('ok', 0)} drops of {settings.scenario}")


@app.command()
def corpus(
    name: Annotated[str, typer.Argument(help="Which corpus: people-emoji.")] = "people-emoji",
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the artifact.")] = None,
    max_groups: Annotated[int | None, typer.Option("--max-groups", help="Use only so many base emoji.")] = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    new_run: NewRunOption = False,
) -> None:
    """Write pictures and captions with their splits; people emoji are fetched with npm and rendered once."""
    from sclmkb.common.errors import UserError
    from sclmkb.generate.corpus import DATASET, CorpusSettings, write_people_emoji

    if name != DATASET:
        raise UserError(f"unknown corpus '{name}': there is {DATASET}")
    settings = CorpusSettings.resolve(
        presets="sclmkb.generate",
        section="corpus",
        preset=preset,
        config=config,
        overrides=overrides or (),
        options={"max_groups": max_groups},
    )
    folder = out or Path("artifacts") / (preset or "default") / "corpus"
    artifact = write_people_emoji(settings, folder, new_run=new_run)
    for split in artifact.splits:
        pictures, texts = (artifact.table(t, split, ["identity"]) for t in ("items", "captions"))
        identities = len(set(pictures["identity"].to_pylist()))
        say(f"corpus: {split} holds {identities} identities, {len(pictures)} pictures, {len(texts)} captions")
    say(f"corpus: written to {artifact.root}, licences in {artifact.root / 'ATTRIBUTION.md'}")


@app.command()
def sdg(
    corpus_dir: Annotated[Path | None, typer.Option("--corpus", help="Folder of the corpus.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the artifact.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Language model: a folder or a hub name (owner/model).")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed that everything random follows from.")] = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    new_run: NewRunOption = False,
) -> None:
    """Let a language model rewrite the training captions, and keep what the hallucination filter passes.

    Every sample is kept with its score; a row ends as ok, rejected or error.
    Often set: num_samples and max_attempts (samples a round, rounds), filter.min_similarity, sampling.temperature,
    engine=template (a control without language model).
    """
    import os

    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # before torch is loaded
    from sclmkb.generate.backend import make_backend
    from sclmkb.generate.sdg import SdgSettings, generate_captions
    from sclmkb.generate.summary import summarise

    settings = SdgSettings.resolve(
        presets="sclmkb.generate",
        section="sdg",
        preset=preset,
        config=config,
        overrides=overrides or (),
        options={"model": model, "seed": seed},
    )
    home = Path("artifacts") / (preset or "default")
    folders = corpus_dir or home / "corpus", out or home / "sdg"
    artifact = generate_captions(settings, *folders, make_backend(settings), new_run=new_run)
    for line in summarise(artifact):
        say(f"sdg: {line}")


@app.command()
def cdg(
    csi: Annotated[Path | None, typer.Option("--csi", help="CSI artifact.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="Folder that sclmkb-train cdg wrote; for predictor cdg alone.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the artifact.")] = None,
    predictor: Annotated[
        str | None, typer.Option("--predictor", help="cdg, or a classical one: persistence, ar or lmmse.")
    ] = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    new_run: NewRunOption = False,
) -> None:
    """Predict the future CSI of every drop, with its NMSE beside persistence and AR(8)."""
    from sclmkb.generate.cdg import PredictSettings, generate_predicted

    folder = Path("artifacts") / (preset or "default")
    settings = PredictSettings.resolve(
        presets="sclmkb.generate",
        section="cdg",
        preset=preset,
        config=config,
        overrides=overrides or (),
        options={"predictor": predictor},
    )
    artifact = generate_predicted(
        settings,
        csi or folder / "csi",
        checkpoint or (folder / "cdg" if settings.predictor == "cdg" else None),
        out or folder / "predicted",
        new_run=new_run,
    )
    say(f"cdg: {artifact.root} holds {artifact.counts().get('ok', 0)} predicted drops")


def main() -> None:
    """Entry point of the console script."""
    run_app(app)
