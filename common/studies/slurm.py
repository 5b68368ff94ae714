"""Submits the cells of a study to Slurm, each as a job that waits for those that it needs.

::

    cell ─► job: sclmkb-eval study … --cell NAME ─► its folder, its record
    all  ─► job: sclmkb-eval study … --draw      ─► what the study draws in the end, if it does

No record of submissions is kept. Records of cells say what is done, ``squeue`` says what is under way, and the rest is
submitted. The name of a job says which cell of which folder it makes, its comment with which settings.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sclmkb.common.console import say
from sclmkb.common.errors import UserError
from sclmkb.common.executors.slurm import call_slurm, has_logs, job_name, logs_of, submit
from sclmkb.common.executors.slurm_script import Job, SlurmSettings, without_gpus
from sclmkb.common.options import split_overrides
from sclmkb.common.studies.cells import Cell, Study

_DRAWING = "draw"


@dataclass(frozen=True, kw_only=True)
class SlurmOptions:
    """What cells ask Slurm for: section ``slurm``, and over it that of a command, such as ``slurm-gen-sdg``.

    Attributes:
        presets: package that has the presets.
        preset: that may have these sections.
        config: YAML file that may have them.
        overrides: ``--set`` items of the section, without its name; they count for every cell.
    """

    presets: str
    preset: str | None = None
    config: Path | None = None
    overrides: Sequence[str] = ()

    def resolve(self, cell: Cell | None = None) -> SlurmSettings:
        """Return what a cell asks for, or everything that is no cell.

        Raises:
            UserError: if a setting is wrong.
        """
        layers: dict[str, Any] = {"presets": self.presets, "preset": self.preset, "config": self.config}
        if cell is None:
            return SlurmSettings.resolve(section="slurm", overrides=self.overrides, **layers)
        program, command, *_ = cell.command
        section = f"slurm-{program.removeprefix('sclmkb-')}-{command}"
        under = SlurmSettings.resolve(section="slurm", **layers)
        return SlurmSettings.resolve(section=section, overrides=self.overrides, defaults=under.model_dump(), **layers)


def split_options(
    presets: str, preset: str | None, config: Path | None, overrides: Sequence[str]
) -> tuple[list[str], SlurmOptions]:
    """Return the ``--set`` items that are the study's own, and what cells ask Slurm for."""
    own, said = split_overrides(overrides, ["slurm"])
    return own, SlurmOptions(presets=presets, preset=preset, config=config, overrides=said["slurm"])


def submit_study(
    study: Study, options: SlurmOptions, command: Sequence[str], *, draws: bool = False, print_only: bool = False
) -> None:
    """Submit the chosen cells that are neither done nor in the queue; print the number of the last job.

    Without a drawing, these are the numbers of all jobs that none waits for, as ``--dependency=afterok:`` takes them.

    Args:
        study: the cells.
        options: what jobs ask for.
        command: ``sclmkb-eval study`` with the options that make the same study; a job adds what it shall do.
        draws: submit a job that draws in the end.
        print_only: print a shell script that submits them instead.

    Raises:
        UserError: if there is no Slurm here, it refuses a job, or one in the queue was submitted with other settings.
    """
    done, chosen = study.done(), study.to_run()
    todo = [cell for cell in chosen.values() if cell.name not in done or cell.again]
    if not todo and (not draws or study.has_listing()):
        say(f"{study.name}: {study.out} is done, nothing to submit")
        return
    queued = _queue(study) if shutil.which("squeue") or not print_only else {}
    missing = [cell for cell in todo if cell.name not in queued]
    needed = {name for cell in todo for name in cell.needs}
    if not missing and (not draws or _DRAWING in queued):
        say(f"{study.name}: what is left of {study.out} is in the queue, nothing to submit")
        if not print_only:
            ends = [queued[cell.name] for cell in todo if cell.name not in needed]
            print(queued[_DRAWING] if draws else ":".join(ends))
        return
    keys, jobs = study.keys(), dict(queued)

    def hand_over(name: str, settings: SlurmSettings, words: Sequence[str], comment: str, dependency: str) -> str:
        """Submit a job, or print what submits it; return its number, or the variable that will hold it."""
        logs, count = logs_of(study.out.absolute(), settings), len(jobs) - len(queued)
        own = f"{job_name(study.name, study.out)}-{name}"
        job = Job(settings=settings, name=own, command=[*command, *words], logs=logs)
        script = job.single(f"cell {name}", comment)
        if print_only:
            return _print_submission(count + 1, script, dependency)
        try:
            return submit(logs, script, dependency)
        except UserError as error:
            raise UserError(f"{error}; {count} jobs were submitted, the same command submits the rest") from None

    for cell in missing:
        needs = _dependency("afterok", [jobs[name] for name in cell.needs if name in jobs])
        jobs[cell.name] = hand_over(cell.name, options.resolve(cell), ["--cell", cell.name], keys[cell.name], needs)
    ends = [jobs[cell.name] for cell in todo if cell.name not in needed]
    settings = without_gpus(options.resolve())
    if draws:
        ends = [hand_over(_DRAWING, settings, ["--draw"], _DRAWING, _dependency("afterany", ends))]
    at_work = len(todo) - len(missing)
    num_done = len([name for name in chosen if name in done])
    say(
        f"{study.name}: {num_done} of {len(chosen)} cells are done, {at_work} in the queue, {len(missing)}"
        f" {'printed: save this, then: bash FILE' if print_only else 'submitted'}"
    )
    if not print_only:
        last, logs = f"job {ends[0]} draws at the end; " if draws else "", logs_of(study.out.absolute(), settings)
        say(f"{study.name}: {last}logs are in {logs}, those of cells in {study.out / 'logs'}")
        print(":".join(ends))


def refuse_queued(study: Study) -> None:
    """Refuse to run here what jobs will run or are running.

    Raises:
        UserError: naming the jobs.
    """
    if has_logs(study.out) and shutil.which("squeue") and (queued := _queue(study, check=False)):
        raise UserError(f"jobs of {study.out} are in the queue: wait for them, or scancel {' '.join(queued.values())}")


def _print_submission(number: int, script: str, dependency: str) -> str:
    """Print what hands a script to sbatch as part of a shell script; return the variable that then holds the job."""
    if number == 1:
        print("#!/bin/bash\nset -e")
    name = f"job_{number}"
    print(f"{name}=$(sbatch --parsable \"{dependency}\" <<'SCRIPT'\n{script}SCRIPT\n)")
    print(f"{name}=${{{name}%%;*}}")
    return f"${name}"


def _dependency(kind: str, jobs: Sequence[str]) -> str:
    """Return the option; ``singleton``: two jobs of one name, submitted by two people at once, run one by one."""
    return "--dependency=" + ",".join([*([":".join([kind, *jobs])] if jobs else []), "singleton"])


def _queue(study: Study, check: bool = True) -> dict[str, str]:
    """Return the jobs in the queue or at work, by the name of the cell, and that of the drawing.

    Raises:
        UserError: if one was submitted with other settings, and ``check`` is set.
    """
    prefix, keys = f"{job_name(study.name, study.out)}-", {**study.keys(), _DRAWING: _DRAWING}
    names = ",".join(f"{prefix}{name}" for name in keys)
    found = {}
    for line in call_slurm(["squeue", "--noheader", f"--name={names}", "--format=%i %k %j"]).splitlines():
        job, key, name = line.split(maxsplit=2)
        cell = name.strip().removeprefix(prefix)
        if check and key != keys[cell]:
            raise UserError(f"job {job} makes {cell} with other settings: wait for it, or scancel {job}")
        found[cell] = job
    return found
