"""Submits the shards of a plan that are left as a Slurm job array, or prints the script.

No record of submissions is kept. The manifests say what is done, ``squeue`` says what is under way, and the rest is
submitted. So a second submission submits only what is missing, or nothing.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sclmkb.common.artifacts.files import write_bytes
from sclmkb.common.artifacts.plan import format_ranges
from sclmkb.common.artifacts.storage import ObjectPath
from sclmkb.common.config import fingerprint
from sclmkb.common.console import say
from sclmkb.common.errors import UserError
from sclmkb.common.executors.slurm_script import COMMENT, Job, SlurmSettings
from sclmkb.common.executors.stage import Work

_LOGS = Path("logs", "slurm")
# What Slurm says of the job that this may be running in; a new one must not take it over.
_OF_THE_JOB_AROUND = ("SLURM_ARRAY_", "SLURM_RESTART_COUNT", "SLURM_CPUS_PER_TASK", "SLURM_MEM_", "SLURM_GPUS")


@dataclass(frozen=True)
class _Queued:
    """An array task, or the job for the last step, that is pending or running, and the numbers of its shards."""

    job: str
    shards: range | None


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """Submits a job array over the shards that are left, and a job behind it for the last step.

    Attributes:
        settings: what to ask for.
        command: command line of a task, but for ``--shards``.
        print_only: print the script of the array instead; its last task to end does the last step as well.
    """

    settings: SlurmSettings
    command: Sequence[str]
    print_only: bool = False

    def execute(self, work: Work) -> None:
        """Submit what is neither done nor in the queue, and print the number of the job that finishes the run.

        Raises:
            UserError: if there is no Slurm here, or it refuses the job.
        """
        root, left = work.run.root.absolute(), work.left()
        if not left and (root / "README.md").exists():
            say(f"{work.name}: {root} is done, nothing to submit")
            return
        queued = _queue(job_name(work.name, root)) if shutil.which("squeue") or not self.print_only else []
        at_work = {number for entry in queued for number in entry.shards or ()}
        tasks = sorted({number // self.settings.shards_per_task for number in left if number not in at_work})
        arrays = sorted({entry.job for entry in queued if entry.shards is not None})
        finishing = [entry.job for entry in queued if entry.shards is None]
        if not tasks and (finishing or (arrays and self.print_only)):
            say(f"{work.name}: what is left of {root} is in the queue, nothing to submit")
            if not self.print_only:
                print(finishing[-1])
            return
        job = Job(
            settings=self.settings,
            name=job_name(work.name, root),
            command=self.command,
            logs=logs_of(root, self.settings),
        )
        num_shards = len(work.run.plan.shards)
        array = job.array(format_ranges(tasks or [0]), num_shards)  # whatever task comes last does the last step
        are_left = f"{work.name}: {len(left)} of {num_shards} shards are left"
        if self.print_only:
            print(array, end="")
            say(f"{are_left}; save this, then: sbatch FILE")
            return
        wanted = [f"afterany:{number}" for number in arrays]
        if tasks:
            number = submit(job.logs, array)
            wanted.append(f"afterok:{number}")
            say(f"{are_left}, submitted as job {number}")
        last = submit(job.logs, job.last_step(), *([f"--dependency={','.join(wanted)}"] if wanted else []))
        say(f"{work.name}: job {last} finishes the run; logs are in {job.logs}")
        print(last)


def submit(logs: Path, script: str, *options: str) -> str:
    """Hand a script to sbatch, keep it in the folder of the logs, and return the number of the job.

    Raises:
        UserError: if there is no Slurm here, or it refuses the job.
    """
    job = call_slurm(["sbatch", "--parsable", *options], script).strip().partition(";")[0]
    write_bytes(logs / f"{job}.sh", script.encode())
    return job


def refuse_new_run(name: str, root: Path) -> None:
    """Refuse to set a run of a command aside whose tasks are in the queue: they would write into the new one.

    Raises:
        UserError: naming the jobs.
    """
    if not has_logs(root) or not shutil.which("squeue"):
        return
    if queued := _queue(job_name(name, root)):
        jobs = " ".join(sorted({entry.job for entry in queued}))
        raise UserError(f"jobs of the run in {root} are in the queue: scancel {jobs} before --new-run sets it aside")


def job_name(name: str, root: Path) -> str:
    """Return a name that no other run has, the same for every path to the run. Jobs of a run are found by it."""
    return f"sclmkb-{name}-{fingerprint(str(root.resolve()))[:8]}"


def has_logs(root: Path) -> bool:
    """Return whether anything of a run in a folder was ever submitted."""
    return (root / _LOGS).exists()


def logs_of(root: Path, settings: SlurmSettings) -> Path:
    """Return the folder of the logs of a run's jobs, which is there from now on.

    Raises:
        UserError: if there can be none where the settings say.
    """
    own = root / _LOGS
    if settings.logs is None or not isinstance(root, ObjectPath):
        own.mkdir(parents=True, exist_ok=True)  # even where it stays empty, see has_logs
    if settings.logs is None:
        return own
    folder = settings.logs.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)  # a job whose output has no folder fails without a word
    except OSError as error:
        raise UserError(f"slurm.logs: {folder} cannot be made ({error.strerror}): name another folder") from None
    return folder


def _queue(name: str) -> list[_Queued]:
    """Return the tasks of a run that are in the queue or at work, one entry each, and its finishing jobs."""
    listed = call_slurm(["squeue", "--noheader", "--array", f"--name={name},{name}-finish", "--format=%F %K %k"])
    found = []
    for line in listed.splitlines():
        job, task, comment = f"{line} -".split(maxsplit=2)
        first = int(task) if task.isdecimal() else None
        number = comment.removeprefix(COMMENT).partition(" ")[0]
        per_task = int(number) if number.isdecimal() else 1
        found.append(_Queued(job, None if first is None else range(first * per_task, (first + 1) * per_task)))
    return found


def call_slurm(command: Sequence[str], given: str | None = None) -> str:
    """Run a program of Slurm and return what it prints.

    Raises:
        UserError: if it is not there, or fails.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith(_OF_THE_JOB_AROUND)}
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, env=environment)
    except FileNotFoundError:
        raise UserError(
            f"there is no {command[0]} here: run this where jobs are submitted, or take the script of --print there"
        ) from None
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        many = "; if there are more tasks than this cluster allows: --set slurm.shards_per_task=N"
        raise UserError(f"{command[0]} refuses: {said}{many if 'array' in said else ''}")
    return done.stdout
