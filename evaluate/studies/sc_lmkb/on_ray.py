"""Runs the cells of a study on the nodes of a Ray cluster: each is ``sclmkb-eval paper … --cell NAME`` on one of them.

That command runs the cell and keeps its record, as a job of Slurm does; what is said here is only who may begin.
"""

from collections.abc import Sequence

from sclmkb.common.console import progress, say
from sclmkb.common.executors.ray import RaySettings
from sclmkb.common.executors.ray_commands import Command, run_commands
from sclmkb.evaluate.studies.sc_lmkb.cells import Cell, Study
from sclmkb.evaluate.studies.sc_lmkb.options import Options
from sclmkb.evaluate.studies.sc_lmkb.runner import failures_of


def run_on_ray(
    study: Study,
    options: Options[RaySettings],
    arguments: Sequence[str],
    *,
    address: str | None = None,
    jobs: int | None = None,
) -> str:
    """Run the cells whose result does not stand yet; Ray is not even imported if there are none.

    Args:
        study: the cells.
        options: what they ask for.
        arguments: of Python: ``sclmkb-eval paper`` with the options that make the same study.
        address: of the cluster; without it, Ray is started on this machine and ended.
        jobs: cores to keep busy by a cell that takes all, and by a Ray on this machine; default: all of a node.

    Returns:
        What failed, and how to mend it; empty if nothing did.

    Raises:
        UserError: if a setting is wrong, there is no Ray, or no node can run a cell.
    """
    for name, why in study.missing.items():
        say(f"paper: {name} is left out: {why}")
    done = study.done()
    commands = [
        _command(cell, options.of_cell(cell), arguments, jobs) for cell in study.cells.values() if cell.name not in done
    ]
    if not commands:
        return ""
    num_done = len(done)
    with progress("paper: cells", len(study.cells), num_done) as ticker:

        def ended(name: str, host: str, problem: str) -> None:
            nonlocal num_done
            if problem:
                say(f"paper: {name} failed: {problem}")
                return
            num_done += 1
            ticker.advance()
            record = study.record(study.cells[name])
            took = f", {record.seconds:.0f} s" if record else ""  # a node's record may be seen late
            say(f"paper: {num_done}/{len(study.cells)} {name}{took} on {host}")

        failed = run_commands("paper", commands, ended, address=address, cores=jobs)
    return failures_of(study, failed, len(study.cells) - num_done - len(failed))


def _command(cell: Cell, asked: RaySettings, arguments: Sequence[str], jobs: int | None) -> Command:
    cores = int(asked.cpus or 0) or jobs  # for a cell that takes all there are
    words = [*arguments, "--cell", cell.name, *(["--jobs", str(cores)] if cores else [])]
    return Command(
        name=cell.name, arguments=tuple(words), settings=asked, needs=cell.needs, cores=cell.cores or jobs or 0
    )
