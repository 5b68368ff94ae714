"""``sclmkb-gen``: makes the knowledge base offline."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sclmkb.common.artifacts.storage import FOLDER, LOCAL
from sclmkb.common.console import EXIT_USER_ERROR, Interrupted, LogFormat, run_app, say
from sclmkb.common.options import (
    ConfigOption,
    ExecutorName,
    ExecutorOption,
    JoinOption,
    LogFormatOption,
    NewRunOption,
    PresetOption,
    PrintOption,
    RayAddressOption,
    SetOption,
    ShardsOption,
    preset_folder,
)
from sclmkb.generate.commands.csi import csi, csi_feedback, import_csi, inspect

if TYPE_CHECKING:
    from sclmkb.generate.runs.status import Status

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def root(log_format: LogFormatOption = LogFormat.TEXT) -> None:
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


app.command()(csi)
app.command("import-csi")(import_csi)
app.command("csi-feedback")(csi_feedback)
app.command()(inspect)


@app.command()
def corpus(
    name: Annotated[
        str,
        typer.Argument(
            help="people-emoji; with --root cuhk-pedes, icfg-pedes, rstpreid, kit-ml, bandai-motion, clotho, esc10"
            " or table."
        ),
    ] = "people-emoji",
    root: Annotated[
        Path | None, typer.Option("--root", help="Where the data lie; for table also a file or a hub name.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the artifact.", **FOLDER)] = None,
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
    listed in the table problems. Often set: media=path, embed or none; for table also columns.caption=text,
    columns.identity=..., columns.split=..., columns.media=.... The file docs/corpora.md has every layout and setting.
    """
    from sclmkb.common.errors import UserError
    from sclmkb.generate.corpora.embedded import DATASET, CorpusSettings, write_people_emoji
    from sclmkb.generate.corpora.on_disk import describe, write_corpus
    from sclmkb.generate.corpora.readers.layouts import LAYOUTS

    folder = out or preset_folder(preset) / "corpus"
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
def preview(
    corpus_dir: Annotated[Path | None, typer.Option("--corpus", help="Folder of the corpus.", **FOLDER)] = None,
    count: Annotated[int, typer.Option("-n", "--prompts", min=0, help="Prompts to show.")] = 5,
    model: Annotated[
        str | None, typer.Option("--model", help="Language model: a folder or a hub name (owner/model).")
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", min=1e-9, help="Generated tokens a second, to tell how long it takes.")
    ] = None,
    prompt_price: Annotated[
        float | None, typer.Option("--prompt-price", min=0, help="Price of a million prompt tokens.")
    ] = None,
    answer_price: Annotated[
        float | None, typer.Option("--answer-price", min=0, help="Price of a million generated tokens.")
    ] = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Show prompts of a run of sdg as the model will read them, and its tokens, time and cost; no engine is loaded.

    Takes the settings of sdg, --preset, --config and --set alike.
    """
    from sclmkb.generate.captions.preview import describe, make_preview
    from sclmkb.generate.captions.sdg import SdgSettings

    settings = SdgSettings.resolve(
        presets="sclmkb.generate",
        section="sdg",
        preset=preset,
        config=config,
        overrides=overrides or (),
        options={"model": model},
    )
    corpus = corpus_dir or preset_folder(preset) / "corpus"
    for line in describe(make_preview(settings, corpus, count), rate, prompt_price, answer_price):
        typer.echo(line)


@app.command()
def sdg(
    corpus_dir: Annotated[Path | None, typer.Option("--corpus", help="Folder of the corpus.", **FOLDER)] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the artifact.", **FOLDER)] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Language model: a folder or a hub name (owner/model).")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed that everything random follows from.")] = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    new_run: NewRunOption = False,
    shards: ShardsOption = None,
    join: JoinOption = False,
    executor: ExecutorOption = ExecutorName.LOCAL,
    print_script: PrintOption = False,
    ray_address: RayAddressOption = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="In the end, ask once more for the samples that the engine failed.")
    ] = False,
    max_error_rate: Annotated[
        float | None,
        typer.Option("--max-error-rate", help="Stop when more than this part of the rows ends in an error."),
    ] = None,
) -> None:
    """Let a language model rewrite the training captions, and keep what the hallucination filter passes.

    Every sample is kept with its score; a row ends as ok, rejected or error. After Ctrl-C, and after SIGTERM or SIGUSR1
    (then what is under way is finished first, and the exit code is 75), the same command goes on where it stopped.
    Several processes may share a run, see --shards; --executor ray hands it out to actors on any number of nodes,
    --executor slurm submits what is left of it as a job array.

    Often set: num_samples and max_attempts (samples a round, rounds), filter.min_similarity, sampling.temperature,
    engine=template (a control without language model).
    """
    import os

    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # before torch is loaded
    from sclmkb.common.executors.choose import Choice
    from sclmkb.generate.captions.backend import make_backend
    from sclmkb.generate.captions.sdg import SdgSettings, plan_captions
    from sclmkb.generate.captions.summary import summarise

    home = preset_folder(preset)
    folders = corpus_dir or home / "corpus", out or home / "sdg"
    choice = Choice(
        executor=executor,
        shards=shards,
        join=join,
        print_script=print_script,
        new_run=new_run,
        ray_address=ray_address,
    )
    own, runner = choice.of_command("sdg", folders[1], preset, config, overrides)
    settings = SdgSettings.resolve(
        presets="sclmkb.generate",
        section="sdg",
        preset=preset,
        config=config,
        overrides=own,
        options={"model": model, "seed": seed, "max_error_rate": max_error_rate},
    )
    backend = make_backend(settings)
    work = plan_captions(settings, *folders, backend, new_run=new_run, join=join, retry_failed=retry_failed)
    artifact = runner.execute(work)
    if artifact is None:
        return
    for line in summarise(artifact):
        say(f"sdg: {line}")


@app.command()
def status(
    folder: Annotated[
        Path | None,
        typer.Argument(help="Folder that sclmkb-gen sdg, filter, csi or cdg writes, running or not.", **FOLDER),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, to standard output.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until the run is done, or Ctrl-C.")] = False,
    every: Annotated[float, typer.Option("--every", min=0.1, help="Seconds from one look to the next.")] = 5.0,
    metrics: Annotated[
        bool, typer.Option("--metrics", help="Also write metrics.prom into the folder, for Prometheus.")
    ] = False,
    preset: PresetOption = None,
) -> None:
    """Say how far a run is: rows, samples, speed, time left, who is at work, which shards to submit again.

    With --watch it is drawn again and again, in place on a terminal; with --json, each look is a line.
    """
    from sclmkb.generate.runs.metrics_file import write_metrics
    from sclmkb.generate.runs.status import read_status, show
    from sclmkb.generate.runs.status import watch as look_again

    root = folder or preset_folder(preset) / "sdg"

    def looks() -> Iterator["Status"]:
        for found in look_again(root, every) if watch else [read_status(root)]:
            if metrics:
                write_metrics(found, root)
            yield found

    with suppress(*([Interrupted] if watch else [])):  # Ctrl-C is how one stops watching
        show(looks(), as_json=as_json, watching=watch)


@app.command()
def verify(folder: Annotated[Path, typer.Argument(help="Folder of any artifact.", **FOLDER)]) -> None:
    """Check an artifact against its plan and manifests: hashes, counts, ids, schemas. Exit code 2 if it is wrong."""
    from sclmkb.generate.runs.verify import find_problems

    wrong = 0
    for problem in find_problems(folder):
        wrong += 1
        typer.echo(problem)
    if wrong:
        say(f"verify: {folder}: {wrong} found wrong")
        raise typer.Exit(EXIT_USER_ERROR)
    say(f"verify: {folder} is whole")


@app.command()
def merge(
    folders: Annotated[list[Path], typer.Argument(help="Folders with shards of runs of the same plan.", **LOCAL)],
    out: Annotated[Path, typer.Option("--out", help="Folder of the artifact to write.", **LOCAL)],
) -> None:
    """Put shards that were made in several folders with sdg --shards into one artifact."""
    from sclmkb.generate.captions.summary import summarise
    from sclmkb.generate.runs.merge import merge as merge_folders

    for line in summarise(merge_folders(folders, out)):
        say(f"merge: {line}")


@app.command("filter")
def refilter(
    sdg: Annotated[Path | None, typer.Option("--sdg", help="Folder of the generated captions.", **FOLDER)] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the artifact.", **FOLDER)] = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    new_run: NewRunOption = False,
    shards: ShardsOption = None,
    join: JoinOption = False,
    executor: ExecutorOption = ExecutorName.LOCAL,
    print_script: PrintOption = False,
    ray_address: RayAddressOption = None,
) -> None:
    """Filter the attempts of an sdg run again with other settings, without generating anything.

    What is not set stays as in the run. The result is what sdg would have kept of these attempts, in the same form.

    Often set: filter.min_similarity, filter.min_margin, filter.calibration=FILE (of calibrate), filter.encoder (also
    jscc:FOLDER, a trained checkpoint), filter.index=ivf or hnsw for millions of captions, filter.rules.attributes=FILE
    and filter.rules.word_list=FILE (own words).
    """
    from sclmkb.common.executors.choose import Choice
    from sclmkb.generate.captions.refilter import RefilterSettings, count_unfinished, plan_refilter
    from sclmkb.generate.captions.summary import summarise

    home = preset_folder(preset)
    source, folder = sdg or home / "sdg", out or home / "sdg-filtered"
    choice = Choice(
        executor=executor,
        shards=shards,
        join=join,
        print_script=print_script,
        new_run=new_run,
        ray_address=ray_address,
    )
    own, runner = choice.of_command("filter", folder, preset, config, overrides)
    settings = RefilterSettings.of_run(source, preset=preset, config=config, overrides=own)
    artifact = runner.execute(plan_refilter(settings, source, folder, new_run=new_run, join=join))
    if artifact is None:
        return
    for line in summarise(artifact):
        say(f"filter: {line}")
    if unfinished := count_unfinished(artifact):
        say(f"filter: {unfinished} rows have no caption left, and rounds that sdg would still run with these settings")


@app.command()
def calibrate(
    corpus_dir: Annotated[Path | None, typer.Option("--corpus", help="Folder of the corpus.", **FOLDER)] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the results.", **FOLDER)] = None,
    precision: Annotated[
        float | None, typer.Option("--precision", help="Wanted share of faithful captions among the accepted.")
    ] = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Find the thresholds of the hallucination filter on the training captions of a corpus; no other split is read.

    Faithful and corrupted texts are made of the captions, scored, and drawn as ROC and precision-recall. Then use them:
    sclmkb-gen sdg (or filter) --set filter.calibration=OUT/calibration.json

    Often set: precision, faithful_share (of what the language model writes), max_sources, filter.encoder.
    """
    from sclmkb.generate.filter.calibrate import CalibrateSettings, describe
    from sclmkb.generate.filter.calibrate import calibrate as run_calibration

    home = preset_folder(preset)
    settings = CalibrateSettings.resolve(
        presets="sclmkb.generate",
        section="calibrate",
        preset=preset,
        config=config,
        overrides=overrides or (),
        options={"precision": precision},
    )
    folder = out or home / "calibration"
    for line in describe(run_calibration(settings, corpus_dir or home / "corpus", folder)):
        typer.echo(line)
    say(f"calibrate: use it with --set filter.calibration={folder / 'calibration.json'}")


@app.command()
def cdg(
    csi: Annotated[Path | None, typer.Option("--csi", help="CSI artifact.", **FOLDER)] = None,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="Folder that sclmkb-train cdg wrote, with any predictor in it.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the artifact.", **FOLDER)] = None,
    predictor: Annotated[
        str | None, typer.Option("--predictor", help="checkpoint, or one that needs none: persistence or ar.")
    ] = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    new_run: NewRunOption = False,
    shards: ShardsOption = None,
    join: JoinOption = False,
    executor: ExecutorOption = ExecutorName.LOCAL,
    print_script: PrintOption = False,
    ray_address: RayAddressOption = None,
) -> None:
    """Predict the future CSI of every drop, with its NMSE beside persistence and AR(8)."""
    from sclmkb.common.executors.choose import Choice
    from sclmkb.generate.csi.predict import PredictSettings, plan_predicted

    folder = preset_folder(preset)
    target = out or folder / "predicted"
    choice = Choice(
        executor=executor,
        shards=shards,
        join=join,
        print_script=print_script,
        new_run=new_run,
        ray_address=ray_address,
    )
    own, runner = choice.of_command("cdg", target, preset, config, overrides)
    settings = PredictSettings.resolve(
        presets="sclmkb.generate",
        section="cdg",
        preset=preset,
        config=config,
        overrides=own,
        options={"predictor": predictor},
    )
    fitted = checkpoint or (folder / "cdg" if settings.predictor == "checkpoint" else None)
    artifact = runner.execute(
        plan_predicted(settings, csi or folder / "csi", fitted, target, new_run=new_run, join=join)
    )
    if artifact is None:
        return
    say(f"cdg: {artifact.root} holds {artifact.counts().get('ok', 0)} predicted drops")


@app.command()
def export(
    sdg: Annotated[Path | None, typer.Option("--sdg", help="Folder of the generated captions.", **FOLDER)] = None,
    corpus_dir: Annotated[Path | None, typer.Option("--corpus", help="Folder of their corpus.", **FOLDER)] = None,
    form: Annotated[str, typer.Option("--format", help="jsonl, cuhk-pedes, icfg-pedes or rstpreid.")] = "jsonl",
    out: Annotated[Path | None, typer.Option("--out", help="File to write, by default under export/.", **LOCAL)] = None,
    images: Annotated[
        bool, typer.Option("--images", help="Also write embedded pictures to imgs/ beside the file.")
    ] = False,
    preset: PresetOption = None,
) -> None:
    """Write a corpus with its accepted generated captions to one file that other trainers read.

    Generated captions join the training split alone. The PEDES formats are the official annotation files with longer
    lists of captions; jsonl has one line a caption, read again with: corpus table --root FILE.
    """
    from sclmkb.generate.corpora.export import export as write
    from sclmkb.generate.corpora.export import file_name

    home = preset_folder(preset)
    target = out or home / "export" / file_name(form)
    done = write(corpus_dir or home / "corpus", sdg or home / "sdg", target, form, images=images)
    say(f"export: {done.path} holds {done.items} items, {done.captions} captions and {done.generated} generated ones")
    if done.renumbered:
        say("export: persons got new numbers, training ones first and without gaps")


def main() -> None:
    """Entry point of the console script."""
    run_app(app)


if __name__ == "__main__":
    main()
