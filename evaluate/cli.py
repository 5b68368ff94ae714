"""``sclmkb-eval``: measures trained systems and draws the results."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sclmkb.common.console import LogFormat, run_app, say
from sclmkb.common.errors import UserError
from sclmkb.common.options import (
    ConfigOption,
    LogFormatOption,
    NewRunOption,
    PresetOption,
    SetOption,
    preset_folder,
)

CorpusOption = Annotated[Path | None, typer.Option(help="Corpus artifact.")]
CsiOption = Annotated[Path | None, typer.Option(help="CSI artifact.")]
PredictedOption = Annotated[Path | None, typer.Option(help="Predicted CSI, for systems that use it.")]


class _StudyExecutor(StrEnum):
    LOCAL = "local"
    SLURM = "slurm"


app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def root(log_format: LogFormatOption = LogFormat.TEXT) -> None:
    """Measure trained systems over SNR (run), predictors of CSI (csi), and write one HTML page of it all (report).

    The classical baseline, separate source and channel coding, is measured in the same way (sscc). Two measurements can
    be put side by side (compare).

    Send one sentence over the simulated link and see what it finds (search), or do so on a local page (serve).
    """


@app.command()
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
    """Measure mAP and Rank@1, 5, 10 of every checkpoint over SNR, receivers and wordings, on the test split.

    Paths left out are those of the preset's folder, artifacts/PRESET/... What was measured is not measured again.
    Several processes share the work: torchrun --nproc-per-node N -m sclmkb.evaluate.cli run ...
    """
    from sclmkb.common.artifacts.artifact import UnfinishedError
    from sclmkb.evaluate.measure.retrieval import write_tables
    from sclmkb.evaluate.measure.run import run_sweep
    from sclmkb.evaluate.measure.sweeps import RunInputs, RunSettings

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


@app.command()
def sscc(
    checkpoints: Annotated[
        Path | None,
        typer.Option(help="Folder with checkpoints of sclmkb-train jscc, among them one with link.channel=none."),
    ] = None,
    corpus: CorpusOption = None,
    csi: CsiOption = None,
    predicted: PredictedOption = None,
    evaluation: Annotated[
        Path | None,
        typer.Option("--eval", help="Folder of sclmkb-eval run to be compared with; its conditions are taken over."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the measurements.")] = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    new_run: NewRunOption = False,
) -> None:
    """Measure separate source and channel coding as run measures trained systems: Huffman, Reed-Solomon, QAM, or LDPC.

    Paths left out are those of the preset's folder, artifacts/PRESET/... What was measured is not measured again.
    Several processes share the checkpoints: torchrun --nproc-per-node N -m sclmkb.evaluate.cli sscc ...
    """
    from sclmkb.common.artifacts.artifact import UnfinishedError
    from sclmkb.evaluate.measure.sweeps import RunInputs
    from sclmkb.evaluate.separate.run import conditions_of, run_sscc, write_sscc_tables
    from sclmkb.evaluate.separate.sscc import SsccSettings

    folder = preset_folder(preset)
    evaluation = evaluation or _if_there(folder / "eval")
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


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="Folder of sclmkb-eval run or sscc.")],
    second: Annotated[Path, typer.Argument(help="Another one.")],
    snr: Annotated[float, typer.Option(help="SNR in dB; one that both were measured at.")] = 15.0,
    out: Annotated[Path | None, typer.Option(help="Markdown file to write as well.")] = None,
) -> None:
    """Put two measurements side by side: in what settings and inputs they differ, and what their systems find."""
    from sclmkb.common.artifacts.artifact import write_bytes
    from sclmkb.evaluate.measure.compare import compare_runs

    text = compare_runs(first, second, snr)
    typer.echo(text)
    if out is not None:
        write_bytes(out, text.encode())
        say(f"eval: wrote {out}")


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


@app.command()
def paper(
    data: Annotated[
        Path | None, typer.Option(help="Folder with the corpora that are not embedded; those it lacks are left out.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the study.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Cores to keep busy on a machine; default: all.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print every command, and run none.")] = False,
    draw: Annotated[bool, typer.Option("--draw", help="Draw what was measured, and run nothing.")] = False,
    cell: Annotated[
        str | None,
        typer.Option(help="Run this cell alone, whose needs are done, and draw nothing: for jobs on a cluster."),
    ] = None,
    executor: Annotated[
        _StudyExecutor, typer.Option(help="Who runs the cells: this machine, or Slurm, each as a job.")
    ] = _StudyExecutor.LOCAL,
    print_script: Annotated[
        bool, typer.Option("--print", help="With --executor slurm: print a script that submits, and submit nothing.")
    ] = False,
    preset: PresetOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Make, train and measure every system of the paper, draw Figures 6 to 12 and hold its claims against them.

    Everything is done by commands of this package, one process each, side by side; what was done is not done again,
    also after other settings changed: another SNR costs one column. --executor slurm runs them on any number of nodes.
    """
    from sclmkb.evaluate.studies.sc_lmkb.options import split_options
    from sclmkb.evaluate.studies.sc_lmkb.plan import make_study
    from sclmkb.evaluate.studies.sc_lmkb.runner import listing, run_cell, run_study
    from sclmkb.evaluate.studies.sc_lmkb.settings import PaperSettings
    from sclmkb.evaluate.studies.sc_lmkb.submission import refuse_queued, submit_study

    own, slurm = split_options(preset, config, overrides or ())
    settings = PaperSettings.resolve(
        presets="sclmkb.evaluate", section="paper", preset=preset, config=config, overrides=own
    )
    study = make_study(settings, out or preset_folder(preset) / "paper", data)
    if dry_run:
        typer.echo(listing(study))
        return
    if executor is not _StudyExecutor.LOCAL and (cell is not None or draw):
        raise UserError(f"--cell and --draw are for its jobs: leave them out with --executor {executor}")
    if print_script and executor is not _StudyExecutor.SLURM:
        raise UserError("--print prints the script of another executor: add --executor slurm")
    named = {"data": data, "out": out, "preset": preset, "config": config}
    words = [word for name, value in named.items() if value is not None for word in (f"--{name}", str(value))]
    words += [word for item in own for word in ("--set", item)]
    command = ["-m", "sclmkb.evaluate.cli", "paper", *words]
    if executor is _StudyExecutor.SLURM:
        limit = ["--jobs", str(jobs)] if jobs else []
        submit_study(study, slurm, [sys.executable, *command, *limit], print_only=print_script)
        return
    if cell is not None:
        if failures := run_cell(study, cell, jobs):
            raise UserError(failures)
        return
    failures = ""
    if not draw:
        refuse_queued(study)
        failures = run_study(study, jobs)
    from sclmkb.evaluate.studies.sc_lmkb.output import write_output

    typer.echo(write_output(settings, study))
    say(f"paper: figures in {study.out / 'figures'}, all of it in {study.out / 'report.html'}")
    if failures:
        raise UserError(failures)


@app.command()
def report(
    evaluation: Annotated[Path | None, typer.Option("--eval", help="Folder of sclmkb-eval run.")] = None,
    corpus: Annotated[Path | None, typer.Option(help="Corpus artifact, for the pictures.")] = None,
    sdg: Annotated[Path | None, typer.Option(help="Generated captions; none there: no such section.")] = None,
    predicted: Annotated[Path | None, typer.Option(help="Predicted CSI; none there: no such section.")] = None,
    csi: Annotated[Path | None, typer.Option(help="CSI artifact, for its cost and its hash.")] = None,
    calibration: Annotated[Path | None, typer.Option(help="Folder of sclmkb-gen calibrate.")] = None,
    csi_evaluation: Annotated[Path | None, typer.Option("--csi-eval", help="Folder of sclmkb-eval csi.")] = None,
    out: Annotated[Path | None, typer.Option(help="The HTML file to write.")] = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Write one self-contained HTML page: figures, tables, examples, costs, configurations, and how to repeat them.

    Paths left out are those of the preset's folder, artifacts/PRESET/..., as far as they are there: a page on generated
    captions alone needs --sdg and no evaluation.
    """
    from sclmkb.evaluate.report.page import ReportSettings, make_report

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
        csi=csi or _if_there(folder / "csi"),
        calibration=calibration or _if_there(folder / "calibration"),
        csi_evaluation=csi_evaluation or _if_there(folder / "csi-eval"),
        out=page,
    )
    say(f"report: wrote {page}")


@app.command()
def search(
    query: Annotated[str, typer.Argument(help="The sentence to send.")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="Checkpoint of sclmkb-train jscc, or a folder of which the main one is taken.")
    ] = None,
    corpus: CorpusOption = None,
    csi: CsiOption = None,
    predicted: PredictedOption = None,
    snr: Annotated[float, typer.Option(help="SNR in dB.")] = 10.0,
    receiver: Annotated[str, typer.Option(help="literal or dmrs.")] = "literal",
    seed: Annotated[int, typer.Option(help="What the channel drop of the test split and the noise follow from.")] = 0,
    top: Annotated[int, typer.Option(min=1, max=50, help="How many items to show.")] = 10,
    out: Annotated[
        Path | None, typer.Option(help="PNG file of what was found; default: search.png in that folder.")
    ] = None,
    preset: PresetOption = None,
) -> None:
    """Send one sentence over the simulated link and rank the items of the test split by what arrives.

    Paths left out are those of the preset's folder, artifacts/PRESET/..., or of the folder above the checkpoint.
    """
    from sclmkb.evaluate.measure.systems import home_of, main_checkpoint, open_checkpoints, open_loader
    from sclmkb.evaluate.search.figure import draw_found
    from sclmkb.evaluate.search.search import check_receiver, format_found
    from sclmkb.evaluate.search.search import search as search_gallery

    chosen = main_checkpoint(open_checkpoints([checkpoint or preset_folder(preset) / "jscc"]))
    receiver = check_receiver(receiver)
    loader = open_loader([chosen], preset=preset, corpus=corpus, csi=csi, predicted=predicted)
    system = loader.open(chosen)
    found = search_gallery(system, query, snr_db=snr, receiver=receiver, seed=seed, top=top)
    typer.echo(format_found(found))
    picture = out or home_of(chosen, preset) / "search.png"
    draw_found(found, system.items, picture)
    say(f"search: wrote {picture}")


@app.command()
def serve(
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(help="Checkpoint of sclmkb-train jscc, or a folder with several; repeatable."),
    ] = None,
    corpus: CorpusOption = None,
    csi: CsiOption = None,
    predicted: PredictedOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on; by default this machine alone can connect.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any that is free.")] = 8765,
    top: Annotated[int, typer.Option(min=1, max=50, help="How many items to show.")] = 10,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: all cores.")] = None,
    preset: PresetOption = None,
) -> None:
    """Search on a local page: type a sentence, choose the SNR, transmit, look.

    Paths left out are those of the preset's folder, artifacts/PRESET/..., or of the folder above the first checkpoint.
    """
    from sclmkb.common.console import limit_threads
    from sclmkb.evaluate.measure.systems import open_checkpoints, open_loader
    from sclmkb.evaluate.search.serve import Desk
    from sclmkb.evaluate.search.serve import serve as serve_page

    limit_threads(threads)
    chosen = open_checkpoints(checkpoint or [preset_folder(preset) / "jscc"])
    loader = open_loader(chosen, preset=preset, corpus=corpus, csi=csi, predicted=predicted)
    serve_page(Desk(loader, chosen, top), host, port)


def _if_there(folder: Path) -> Path | None:
    return folder if folder.exists() else None


def main() -> None:
    """Entry point of the console script."""
    run_app(app)


if __name__ == "__main__":
    main()
