"""Submits the cells of a study to Slurm, each as a job that waits for those that it needs.

::

    cell ─► job: sclmkb-eval paper … --cell NAME ─► its folder, its record
    all  ─► job: sclmkb-eval paper … --draw      ─► figures, claims, report

Nothing is kept of what was submitted: records say what is done, ``squeue`` says what is under way, and the rest is
submitted. The name of a job says which cell of which folder it makes, its comment with which settings.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sclmkb.common.console import say
from sclmkb.common.errors import UserError
from sclmkb.common.executors.slurm import call_slurm, has_logs, job_name, logs_of, submit
from sclmkb.common.executors.slurm_script import SlurmSettings, job_script, without_gpus
from sclmkb.evaluate.studies.sc_lmkb.cells import Study
from sclmkb.evaluate.studies.sc_lmkb.options import Options
from sclmkb.evaluate.studies.sc_lmkb.runner import listing

_DRAWING = "draw"


def submit_study(study: Study, options: Options, command: Sequence[str], *, print_only: bool = False) -> None:
    """Submit the cells that are neither done nor in the queue, and print the number of the job that draws at the end.

    Args:
        study: the cells.
        options: what jobs ask for.
        command: ``sclmkb-eval paper`` with the options that make the same study; a job adds what it shall do.
        print_only: print a shell script that submits them instead.

    Raises:
        UserError: if there is no Slurm here, it refuses a job, or one in the queue was submitted with other settings.
    """
    done = study.done()
    todo = [cell for cell in study.cells.values() if cell.name not in done]
    if not todo and _is_drawn(study):
        say(f"paper: {study.out} is done, nothing to submit")
        return
    queued = _queue(study) if shutil.which("squeue") or not print_only else {}
    missing = [cell for cell in todo if cell.name not in queued]
    if not missing and _DRAWING in queued:
        say(f"paper: what is left of {study.out} is in the queue, nothing to submit")
        if not print_only:
            print(queued[_DRAWING])
        return
    hand_over = _Printer() if print_only else _Submitter()
    keys, jobs = study.keys(), dict(queued)
    for cell in missing:
        settings = options.of_cell(cell)
        logs = logs_of(study.out.absolute(), settings)
        script = _script(study, cell.name, settings, logs, [*command, "--cell", cell.name], keys[cell.name])
        needs = [jobs[name] for name in cell.needs if name not in done]
        jobs[cell.name] = hand_over(logs, script, _dependency("afterok", needs))
    needed = {name for cell in todo for name in cell.needs}
    ends = [jobs[cell.name] for cell in todo if cell.name not in needed]
    settings = without_gpus(options.of_all())
    logs = logs_of(study.out.absolute(), settings)
    script = _script(study, _DRAWING, settings, logs, [*command, "--draw"], _DRAWING)
    last = hand_over(logs, script, _dependency("afterany", ends))
    at_work = len(todo) - len(missing)
    say(
        f"paper: {len(done)} of {len(study.cells)} cells are done, {at_work} in the queue, {len(missing)}"
        f" {'printed: save this, then: bash FILE' if print_only else 'submitted'}"
    )
    if not print_only:
        say(f"paper: job {last} draws at the end; logs are in {logs}, those of cells in {study.out / 'logs'}")
        print(last)


def refuse_queued(study: Study) -> None:
    """Refuse to run here what jobs will run or are running.

    Raises:
        UserError: naming the jobs.
    """
    if has_logs(study.out) and shutil.which("squeue") and (queued := _queue(study, check=False)):
        raise UserError(f"jobs of {study.out} are in the queue: wait for them, or scancel {' '.join(queued.values())}")


@dataclass
class _Submitter:
    """Hands scripts to sbatch."""

    count: int = 0

    def __call__(self, logs: Path, script: str, dependency: str) -> str:
        try:
            job = submit(logs, script, dependency)
        except UserError as error:
            raise UserError(f"{error}; {self.count} jobs were submitted, the same command submits the rest") from None
        self.count += 1
        return job


@dataclass
class _Printer:
    """Prints a shell script that hands scripts to sbatch; stands for the number of a job by a variable."""

    names: list[str] = field(default_factory=list)

    def __call__(self, logs: Path, script: str, dependency: str) -> str:
        if not self.names:
            print("#!/bin/bash\nset -e")
        self.names.append(f"job_{len(self.names)}")
        print(f"{self.names[-1]}=$(sbatch --parsable \"{dependency}\" <<'SCRIPT'\n{script}SCRIPT\n)")
        print(f"{self.names[-1]}=${{{self.names[-1]}%%;*}}")
        return f"${self.names[-1]}"


def _script(study: Study, name: str, settings: SlurmSettings, logs: Path, command: Sequence[str], key: str) -> str:
    return job_script(
        settings,
        name=f"{job_name('paper', study.out)}-{name}",
        command=command,
        folder=Path.cwd(),
        logs=logs,
        task=f"cell {name}",
        comment=key,
    )


def _dependency(kind: str, jobs: Sequence[str]) -> str:
    """Return the option; ``singleton``: two jobs of one name, submitted by two people at once, run one by one."""
    return "--dependency=" + ",".join([*([":".join([kind, *jobs])] if jobs else []), "singleton"])


def _queue(study: Study, check: bool = True) -> dict[str, str]:
    """Return the jobs in the queue or at work, by the name of the cell, and that of the drawing.

    Raises:
        UserError: if one was submitted with other settings, and ``check`` is set.
    """
    prefix, keys = f"{job_name('paper', study.out)}-", {**study.keys(), _DRAWING: _DRAWING}
    names = ",".join(f"{prefix}{name}" for name in keys)
    found = {}
    for line in call_slurm(["squeue", "--noheader", f"--name={names}", "--format=%i %k %j"]).splitlines():
        job, key, name = line.split(maxsplit=2)
        cell = name.strip().removeprefix(prefix)
        if check and key != keys[cell]:
            raise UserError(f"job {job} makes {cell} with other settings: wait for it, or scancel {job}")
        found[cell] = job
    return found


def _is_drawn(study: Study) -> bool:
    """Return whether the last drawing knew all that is done."""
    path = study.out / "commands.sh"
    return path.exists() and path.read_text("utf-8") == f"{listing(study)}\n"
