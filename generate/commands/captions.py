"""The commands of ``sclmkb-gen`` that generate captions and filter them."""

from pathlib import Path
from typing import Annotated

import typer

from sclmkb.common.artifacts.storage import FOLDER
from sclmkb.common.console import say
from sclmkb.common.options import ConfigOption, PresetOption, RunOptions, SetOption, preset_folder, takes_run_options

CorpusOption = Annotated[Path | None, typer.Option("--corpus", help="Folder of the corpus.", **FOLDER)]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="Language model: a folder or a hub name (owner/model).")
]


def preview(
    corpus_dir: CorpusOption = None,
    count: Annotated[int, typer.Option("-n", "--prompts", min=0, help="Prompts to show.")] = 5,
    model: ModelOption = None,
    rate: Annotated[
        float | None, typer.Option("--rate", min=1e-9, help="Generated tokens per second, to estimate the time.")
    ] = None,
    prompt_price: Annotated[
        float | None, typer.Option("--prompt-price", min=0, help="Price per million prompt tokens.")
    ] = None,
    answer_price: Annotated[
        float | None, typer.Option("--answer-price", min=0, help="Price per million generated tokens.")
    ] = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Show prompts of sdg as the model will read them, with tokens, time and cost of a run.

    No engine is loaded. The settings are those of sdg, from --preset, --config and --set.
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
    corpus_dir: CorpusOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the artifact.", **FOLDER)] = None,
    model: ModelOption = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of everything random.")] = None,
    retry: Annotated[
        Path | None,
        typer.Option(
            "--retry",
            help="Folder of an older run: take its results over, and ask again for the samples that failed.",
            **FOLDER,
        ),
    ] = None,
    max_error_rate: Annotated[
        float | None,
        typer.Option("--max-error-rate", help="Stop when more than this share of the rows ends in an error."),
    ] = None,
    *,
    run: RunOptions,
) -> None:
    """Let a language model rewrite the training captions, and keep the texts that pass the hallucination filter.

    Each sample is kept with its score, and a row ends as ok, rejected or error. A stopped command goes on when you
    run it again. On SIGTERM or SIGUSR1 it first commits the work under way, and exits with 75.

    Several processes may share a run (--shards). --executor ray hands the shards to actors on any number of nodes.
    --executor slurm submits the missing shards as a job array.

    --retry makes a new run from an older one. It takes over what has settled, and asks again for the samples that
    failed, with their seeds. Settings that you leave out are those of the older run.

    Often set: num_samples and max_attempts (samples per round, rounds), filter.min_similarity, sampling.temperature,
    engine=template (a control without language model).
    """
    import os

    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # before torch is loaded
    from sclmkb.common.artifacts.artifact import Artifact
    from sclmkb.common.executors.choose import choose_executor
    from sclmkb.generate.captions.backend import make_backend
    from sclmkb.generate.captions.sdg import SdgSettings, plan_captions
    from sclmkb.generate.captions.summary import summarise

    home = preset_folder(run.preset)
    folders = corpus_dir or home / "corpus", out or home / ("sdg" if retry is None else "sdg-retried")
    runner = choose_executor(run, "sdg", folders[1])
    settings = SdgSettings.resolve(
        presets="sclmkb.generate",
        section="sdg",
        **run.layers,
        options={"model": model, "seed": seed, "max_error_rate": max_error_rate},
        defaults=None if retry is None else Artifact.open(retry, "sdg", verify=False).plan.settings,
    )
    backend = make_backend(settings)
    work = plan_captions(settings, *folders, backend, new_run=run.new_run, join=run.join, retry=retry)
    if artifact := runner.execute(work):
        for line in summarise(artifact):
            say(f"sdg: {line}")


@takes_run_options
def refilter(
    sdg: Annotated[Path | None, typer.Option("--sdg", help="Folder of the generated captions.", **FOLDER)] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the artifact.", **FOLDER)] = None,
    *,
    run: RunOptions,
) -> None:
    """Filter the attempts of an sdg run again with other settings; nothing is generated.

    Settings that you leave out are those of the run. The result has the form of sdg, with the captions that sdg would
    have kept.

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
    corpus_dir: CorpusOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the results.", **FOLDER)] = None,
    precision: Annotated[
        float | None, typer.Option("--precision", help="Wanted share of faithful captions among the accepted.")
    ] = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Find thresholds of the hallucination filter on the training captions of a corpus; no other split is read.

    The command makes faithful and corrupted texts from the captions, scores them, and draws ROC and precision-recall.
    Use the thresholds with:
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
