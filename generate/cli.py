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
    name: Annotated[
        str,
        typer.Argument(help="people-emoji, or cuhk-pedes, icfg-pedes, rstpreid, kit-ml, clotho or table with --root."),
    ] = "people-emoji",
    root: Annotated[
        Path | None, typer.Option("--root", help="Where the data lie; for table also a file or a hub name.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the artifact.")] = None,
    max_groups: Annotated[
        int | None, typer.Option("--max-groups", help="Use only so many base emoji (people-emoji).")
    ] = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    new_run: NewRunOption = False,
) -> None:
    """Write captions with their splits, and pictures, motion or sound: one's own data, or people emoji by default.

    People emoji are fetched with npm and rendered. The other layouts are read from --root; what cannot be read is
    listed in the table problems. Often set: media=path, embed or none, splits='[train, test]', and for table
    columns.caption=text, columns.identity=..., columns.split=..., columns.media=....
    """
    from sclmkb.common.corpora.layouts import LAYOUTS
    from sclmkb.common.errors import UserError
    from sclmkb.generate.corpus import DATASET, CorpusSettings, write_people_emoji
    from sclmkb.generate.corpus_files import describe, write_corpus

    folder = out or Path("artifacts") / (preset or "default") / "corpus"
    if name in LAYOUTS:
        if root is None or max_groups is not None:
            raise UserError(f"corpus {name} needs --root, where the data lie, and takes no --max-groups")
        layout = LAYOUTS[name]
        settings = layout.settings_type.resolve(
            presets="sclmkb.generate", section=name, preset=preset, config=config, overrides=overrides or ()
        )
        lines = describe(write_corpus(layout(root, settings), folder, new_run=new_run))
    elif name == DATASET:
        if root is not None:
            raise UserError(f"corpus {DATASET} is fetched and takes no --root")
        emoji = CorpusSettings.resolve(
            presets="sclmkb.generate",
            section="corpus",
            preset=preset,
            config=config,
            overrides=overrides or (),
            options={"max_groups": max_groups},
        )
        lines = describe(write_people_emoji(emoji, folder, new_run=new_run))
    else:
        raise UserError(f"unknown corpus '{name}': there are {', '.join((DATASET, *LAYOUTS))}")
    for line in lines:
        say(f"corpus: {line}")


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


@app.command()
def export(
    sdg: Annotated[Path | None, typer.Option("--sdg", help="Folder of the generated captions.")] = None,
    corpus_dir: Annotated[Path | None, typer.Option("--corpus", help="Folder of their corpus.")] = None,
    form: Annotated[str, typer.Option("--format", help="jsonl, cuhk-pedes, icfg-pedes or rstpreid.")] = "jsonl",
    out: Annotated[Path | None, typer.Option("--out", help="File to write, by default export.jsonl or .json.")] = None,
    images: Annotated[
        bool, typer.Option("--images", help="Also write embedded pictures to imgs/ beside the file.")
    ] = False,
    preset: PresetOption = None,
) -> None:
    """Write a corpus with its accepted generated captions to one file that other trainers read.

    Generated captions join the training split alone. The PEDES formats are the official annotation files with longer
    lists of captions; jsonl has one line a caption, read again with: corpus table --root FILE.
    """
    from sclmkb.generate.export import export as write

    home = Path("artifacts") / (preset or "default")
    target = out or home / ("export.jsonl" if form == "jsonl" else "export.json")
    done = write(corpus_dir or home / "corpus", sdg or home / "sdg", target, form, images=images)
    say(f"export: {done.path} holds {done.items} items, {done.captions} captions and {done.generated} generated ones")
    if done.renumbered:
        say("export: persons got new numbers, training ones first and without gaps")


def main() -> None:
    """Entry point of the console script."""
    run_app(app)
