"""The commands of ``sclmkb-gen`` that generate captions and filter them."""

from pathlib import Path
from typing import Annotated

import typer

from sclmkb.common.artifacts.storage import FOLDER
from sclmkb.common.console import say
from sclmkb.common.options import (
    ConfigOption,
    PresetOption,
    RunOptions,
    SetOption,
    preset_folder,
    takes_run_options,
)


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
    from sclmkb.generate.captions.preview import make_preview, preview_lines
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
    for line in preview_lines(make_preview(settings, corpus, count), rate, prompt_price, answer_price):
        typer.echo(line)


@takes_run_options
def sdg(
    corpus_dir: Annotated[Path | None, typer.Option("--corpus", help="Folder of the corpus.", **FOLDER)] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the artifact.", **FOLDER)] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Language model: a folder or a hub name (owner/model).")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed that everything random follows from.")] = None,
    retry: Annotated[
        Path | None,
        typer.Option(
            "--retry",
            help="Artifact of a run with the same settings: take it over and ask once more for what failed in it.",
            **FOLDER,
        ),
    ] = None,
    max_error_rate: Annotated[
        float | None,
        typer.Option("--max-error-rate", help="Stop when more than this part of the rows ends in an error."),
    ] = None,
    *,
    run: RunOptions,
) -> None:
    """Let a language model rewrite the training captions, and keep what the hallucination filter passes.

    Every sample is kept with its score; a row ends as ok, rejected or error. After Ctrl-C, and after SIGTERM or SIGUSR1
    (then what is under way is finished first, and the exit code is 75), the same command goes on where it stopped.
    Several processes may share a run, see --shards; --executor ray hands it out to actors on any number of nodes,
    --executor slurm submits what is left of it as a job array.

    --retry makes a run of an older one: what has settled is taken over, samples that failed are asked for again, with
    their seeds. Settings that are not given are those of the older run.

    Often set: num_samples and max_attempts (samples a round, rounds), filter.min_similarity, sampling.temperature,
    engine=template (a control without language model).
    """
    import os

    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # before torch is loaded
    from sclmkb.common.executors.choose import choose_executor
    from sclmkb.generate.captions.backend import make_backend
    from sclmkb.generate.captions.sdg import SdgSettings, plan_captions, settings_of_run
    from sclmkb.generate.captions.summary import summarise

    home = preset_folder(run.preset)
    folders = corpus_dir or home / "corpus", out or home / ("sdg" if retry is None else "sdg-retried")
    runner = choose_executor(run, "sdg", folders[1])
    settings = SdgSettings.resolve(
        presets="sclmkb.generate",
        section="sdg",
        **run.layers,
        options={"model": model, "seed": seed, "max_error_rate": max_error_rate},
        defaults=None if retry is None else settings_of_run(retry),
    )
    backend = make_backend(settings)
    work = plan_captions(settings, *folders, backend, new_run=run.new_run, join=run.join, retry=retry)
    artifact = runner.execute(work)
    if artifact is None:
        return
    for line in summarise(artifact):
        say(f"sdg: {line}")


@takes_run_options
def refilter(
    sdg: Annotated[Path | None, typer.Option("--sdg", help="Folder of the generated captions.", **FOLDER)] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the artifact.", **FOLDER)] = None,
    *,
    run: RunOptions,
) -> None:
    """Filter the attempts of an sdg run again with other settings, without generating anything.

    What is not set stays as in the run. The result is what sdg would have kept of these attempts, in the same form.

    Often set: filter.min_similarity, filter.min_margin, filter.calibration=FILE (of calibrate), filter.encoder (also
    jscc:FOLDER, a trained checkpoint), filter.index=ivf or hnsw for millions of captions, filter.rules.attributes=FILE
    and filter.rules.word_list=FILE (own words).
    """
    from sclmkb.common.executors.choose import choose_executor
    from sclmkb.generate.captions.refilter import RefilterSettings, count_unfinished, plan_refilter
    from sclmkb.generate.captions.summary import summarise

    home = preset_folder(run.preset)
    source, folder = sdg or home / "sdg", out or home / "sdg-filtered"
    runner = choose_executor(run, "filter", folder)
    settings = RefilterSettings.of_run(source, **run.layers)
    artifact = runner.execute(plan_refilter(settings, source, folder, new_run=run.new_run, join=run.join))
    if artifact is None:
        return
    for line in summarise(artifact):
        say(f"filter: {line}")
    if unfinished := count_unfinished(artifact):
        say(f"filter: {unfinished} rows have no caption left, and rounds that sdg would still run with these settings")


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
    from sclmkb.generate.filter.calibrate import CalibrateSettings, calibration_lines
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
    for line in calibration_lines(run_calibration(settings, corpus_dir or home / "corpus", folder)):
        typer.echo(line)
    say(f"calibrate: use it with --set filter.calibration={folder / 'calibration.json'}")
