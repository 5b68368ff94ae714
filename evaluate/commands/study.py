"""Commands that run many others: ``study``, and ``paper`` as a name for ``study paper``."""

import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sclmkb.common.console import say
from sclmkb.common.errors import UserError
from sclmkb.common.options import ConfigOption, PresetOption, SetOption


class _Executor(StrEnum):
    LOCAL = "local"
    SLURM = "slurm"


DataOption = Annotated[Path | None, typer.Option(help="Folder with more corpora; missing ones are left out.")]
OutOption = Annotated[Path | None, typer.Option(help="Folder of the study.")]
JobsOption = Annotated[
    int | None,
    typer.Option(min=1, help="Cores to keep busy on a machine; default: all, with two trainings except for paper."),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print all commands, and run none.")]
DrawOption = Annotated[bool, typer.Option("--draw", help="Draw the measured results, and run nothing.")]
CellOption = Annotated[
    str | None,
    typer.Option(help="Run only this cell, once its needs are done, and draw nothing: for jobs on a cluster."),
]
ExecutorOption = Annotated[
    _Executor, typer.Option(help="Who runs the commands: this machine, or Slurm, each as a job.")
]
PrintOption = Annotated[
    bool, typer.Option("--print", help="With --executor slurm: print the script that submits, and submit nothing.")
]


def study(
    name: Annotated[str, typer.Argument(help="demo, csi, retrieval, paper or mtsc.")],
    data: DataOption = None,
    out: OutOption = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="PART", help="Run only this part; repeatable. What it needs must exist.")
    ] = None,
    jobs: JobsOption = None,
    dry_run: DryRunOption = False,
    draw: DrawOption = False,
    cell: CellOption = None,
    executor: ExecutorOption = _Executor.LOCAL,
    print_script: PrintOption = False,
    preset: PresetOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Run a study: many commands side by side, one process each. Finished commands are not run again.

    demo makes the knowledge base, trains the link and draws the result. csi measures all predictors of CSI. retrieval
    measures all systems beside their controls, after the demo. paper repeats the whole paper SC-LMKB. mtsc trains and
    measures one large model for many tasks.

    --dry-run prints the commands. An interrupted study goes on when you run it again. --executor slurm runs it on any
    number of nodes.
    """
    from sclmkb.common.studies.runner import clock, run_cell, run_study
    from sclmkb.common.studies.slurm import refuse_queued, split_options, submit_study
    from sclmkb.evaluate.studies.base import Where, open_study

    begun, kind = time.monotonic(), open_study(name)
    preset = preset or kind.preset
    own, slurm = split_options("sclmkb.evaluate", preset, config, overrides or ())
    settings = kind.settings.resolve(
        presets="sclmkb.evaluate", section=kind.section, preset=preset, config=config, overrides=own
    )
    where = Where(out=out or kind.folder(preset), data=data, preset=preset)
    planned = kind.plan(settings, where).only(only or [])
    if dry_run:
        typer.echo(planned.listing())
        return
    if executor is _Executor.SLURM and (cell is not None or draw):
        raise UserError("--cell and --draw are for its jobs: leave them out with --executor slurm")
    if print_script and executor is not _Executor.SLURM:
        raise UserError("--print prints the script of another executor: add --executor slurm")
    if draw and kind.draw is None:
        raise UserError(f"study {name} draws nothing but by its commands: leave --draw out")
    if executor is _Executor.SLURM:
        named = {"data": data, "out": out, "preset": preset, "config": config, "jobs": jobs}
        words = [word for key, value in named.items() if value is not None for word in (f"--{key}", str(value))]
        words += [
            word for key, items in (("only", only), ("set", own)) for i in items or () for word in (f"--{key}", i)
        ]
        command = [sys.executable, "-m", "sclmkb.evaluate.cli", "study", name, *words]
        submit_study(planned, slurm, command, draws=kind.draw is not None, print_only=print_script)
        return
    if cell is not None:
        if failures := run_cell(planned, cell, jobs):
            raise UserError(failures)
        return
    failures = ""
    if not draw:
        refuse_queued(planned)
        failures = run_study(planned, jobs)
    if kind.draw is not None:
        typer.echo(kind.draw(settings, planned))
        say(kind.ending.format(out=planned.out))
    if failures:
        raise UserError(failures)
    if kind.draw is None:
        ending = "" if only else kind.ending.format(out=planned.out)
        say(f"\nDone in {clock(time.monotonic() - begun)} (m:ss). {ending}")


def paper(
    data: DataOption = None,
    out: OutOption = None,
    jobs: JobsOption = None,
    dry_run: DryRunOption = False,
    draw: DrawOption = False,
    cell: CellOption = None,
    executor: ExecutorOption = _Executor.LOCAL,
    print_script: PrintOption = False,
    preset: PresetOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Train and measure all systems of the paper, draw Figures 6 to 12, and compare its claims with the results.

    The study runs commands side by side, one process each. Finished commands are not run again, also after a change of
    settings: another SNR costs one column. --executor slurm runs them on any number of nodes.
    """
    study(
        "paper", data, out, None, jobs, dry_run, draw, cell, executor, print_script, preset, config, overrides
    )  # fmt: skip
