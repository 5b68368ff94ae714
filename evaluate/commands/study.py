"""Commands that run many others: ``paper``."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sclmkb.common.console import say
from sclmkb.common.errors import UserError
from sclmkb.common.options import ConfigOption, PresetOption, SetOption, preset_folder


class _StudyExecutor(StrEnum):
    LOCAL = "local"
    SLURM = "slurm"


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
