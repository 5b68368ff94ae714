"""The batch scripts that :mod:`sclmkb.common.executors.slurm` submits or prints.

What a script does for its command, and why::

    slurmctld ── USR1 some minutes before the time limit ──► batch shell ──► srun ──► command stops in good order: 75
                 ──► scontrol requeue: the same task again, with a log of its own
              ── TERM to everything: scancelled, preempted, or the time is up ──► command stops: 75
                 ──► the task is no longer RUNNING and left to Slurm, which requeues what it preempted: what was
                     cancelled must not come back
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from sclmkb.common.artifacts.storage import parse_local
from sclmkb.common.config import Settings
from sclmkb.common.console import EXIT_REQUEUE
from sclmkb.common.errors import UserError
from sclmkb.common.executors.stage import NO_SHARDS

COMMENT = "shards_per_task="
"""What the comment of a job array says before the number: later submissions need it, to know what is in the queue."""


def _text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _local(value: object) -> object:
    try:
        return parse_local(value).expanduser() if isinstance(value, str) else value
    except UserError as error:
        raise ValueError(str(error)) from None


class SlurmSettings(Settings):
    """What tasks ask of Slurm: section ``slurm`` of a preset or YAML file, or ``--set slurm.NAME=VALUE``.

    None of it can change what is made.
    """

    partition: str | None = Field(default=None, description="partition to run in; default: the cluster's default")
    hours: float | None = Field(
        default=None, gt=0, description="time limit per attempt of a task [h]; default: the cluster's default"
    )
    gpus: Annotated[str | None, BeforeValidator(_text)] = Field(
        default=None,
        description="GPUs per task, as NUMBER or TYPE:NUMBER; default: none. The last job of a run never gets a GPU",
    )
    cpus: int | None = Field(default=None, ge=1, description="CPU cores per task; default: the cluster's default")
    memory_gb: float | None = Field(
        default=None, gt=0, description="memory per task [GiB]; default: the cluster's default"
    )
    sbatch: tuple[str, ...] = Field(
        default=(), description="more options of sbatch, one per entry, e.g. `--account=vision` or `--gres=gpu:a100:1`"
    )
    setup: tuple[str, ...] = Field(
        default=(), description="shell lines to run before the command, e.g. `module load cuda`"
    )
    shards_per_task: int = Field(
        default=1,
        ge=1,
        description="neighbouring shards per task; the task does them in turn and starts the engine once",
    )
    max_running: int | None = Field(
        default=None, ge=1, description="tasks at work at the same time; default: as many as there is room for"
    )
    notice_s: int = Field(
        default=600,
        ge=1,
        le=65535,
        description="seconds before its time limit at which a task is told to stop [s]; choose more than a wave or a "
        "shard takes",
    )
    max_requeues: int = Field(default=100, ge=0, description="how often a task goes back into the queue by itself")
    logs: Annotated[Path | None, BeforeValidator(_local)] = Field(
        default=None,
        description="folder of scripts and logs that all nodes can see; default: `logs/slurm` in the folder of the run",
    )

    @model_validator(mode="after")
    def _notice_within_the_limit(self) -> Self:
        if self.hours is not None and self.notice_s >= 3600 * self.hours:
            raise ValueError(f"notice_s = {self.notice_s} leaves no time of hours = {self.hours:g}: set a shorter one")
        if wrong := [option for option in self.sbatch if not option.startswith("-") or "\n" in option]:
            raise ValueError(f"sbatch takes options such as --account=vision, one each, not '{wrong[0]}'")
        return self


def array_script(
    settings: SlurmSettings,
    *,
    name: str,
    command: Sequence[str],
    folder: Path,
    logs: Path,
    tasks: str,
    num_shards: int,
) -> str:
    """Return the script of a job array; each task does the shards of its own number.

    Args:
        settings: what to ask for.
        name: of the job.
        command: that takes ``--shards``.
        folder: to run it in.
        logs: folder of the logs; must be there before a task starts.
        tasks: numbers of the tasks, such as ``0-3,7``.
        num_shards: how many the plan has.
    """
    if settings.max_running is not None:
        tasks += f"%{settings.max_running}"
    per_task = settings.shards_per_task
    shards = ['shards="$SLURM_ARRAY_TASK_ID"']
    if per_task > 1:
        shards = [
            f"first=$((SLURM_ARRAY_TASK_ID * {per_task}))",
            f"last=$((first + {per_task} > {num_shards} ? {num_shards - 1} : first + {per_task - 1}))",
            'shards="$first-$last"',
        ]
    options = [f"--array={tasks}", f"--comment={COMMENT}{per_task}", *_resources(settings)]
    what = "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
    line = f'{shlex.join(command)} --shards "$shards"'
    return _script(settings, name, options, line, folder, logs, "%A_%a", what, [*shards, 'task="shards $shards"'])


def job_script(
    settings: SlurmSettings,
    *,
    name: str,
    command: Sequence[str],
    folder: Path,
    logs: Path,
    task: str,
    comment: str | None = None,
) -> str:
    """Return the script of a single job, which is cancelled if what it depends on fails.

    Args:
        settings: what to ask for.
        name: of the job.
        command: to run.
        folder: to run it in.
        logs: folder of the logs; must be there before the job starts.
        task: what it does, in words, for its log.
        comment: what squeue says of it.
    """
    options = [*_resources(settings), "--kill-on-invalid-dep=yes"]
    options += [f"--comment={comment}"] if comment else []
    said = [f"task={shlex.quote(task)}"]
    return _script(settings, name, options, shlex.join(command), folder, logs, "%j", "${SLURM_JOB_ID}", said)


def finish_script(settings: SlurmSettings, *, name: str, command: Sequence[str], folder: Path, logs: Path) -> str:
    """Return the script of the job that does the last step; arguments as for :func:`array_script`."""
    last = [*command, "--shards", NO_SHARDS]
    return job_script(without_gpus(settings), name=name, command=last, folder=folder, logs=logs, task="the last step")


def without_gpus(settings: SlurmSettings) -> SlurmSettings:
    """Return the settings of a job that computes little."""
    return settings.model_copy(update={"gpus": None})


def _resources(settings: SlurmSettings) -> list[str]:
    options = ["--nodes=1", "--ntasks=1"]
    if settings.partition is not None:
        options.append(f"--partition={settings.partition}")
    if settings.hours is not None:
        options.append(f"--time={max(1, round(60 * settings.hours))}")
    if settings.cpus is not None:
        options.append(f"--cpus-per-task={settings.cpus}")
    if settings.memory_gb is not None:
        options.append(f"--mem={max(1, round(1024 * settings.memory_gb))}M")
    if settings.gpus is not None:
        options.append(f"--gpus={settings.gpus}")
    return options


def _script(
    settings: SlurmSettings,
    name: str,
    options: Sequence[str],
    line: str,
    folder: Path,
    logs: Path,
    pattern: str,
    what: str,
    task: Sequence[str],
) -> str:
    escaped = str(logs).replace("%", "%%")
    options = [
        f"--job-name={name}",
        *options,
        f"--chdir={folder}",
        f"--output={escaped}/{pattern}.slurm.log",
        "--open-mode=append",
        "--requeue",
        f"--signal=B:USR1@{settings.notice_s}",
        *settings.sbatch,
    ]
    return "\n".join(
        [
            "#!/bin/bash",
            *(f"#SBATCH {_quoted(option)}" for option in options),
            "",
            "# One log an attempt. What Slurm itself says of the job is in the file beside it.",
            f'exec >>{shlex.quote(str(logs))}/"{what}.attempt-${{SLURM_RESTART_COUNT:-0}}.log" 2>&1',
            *task,
            'echo "$(date -Is) $(hostname): $task, attempt ${SLURM_RESTART_COUNT:-0}"',
            *settings.setup,
            "",
            "signalled=",
            "trap 'signalled=1; kill -USR1 \"$child\"' USR1",
            "trap 'signalled=1' TERM",
            'srun --ntasks=1 ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} \\',
            f"  {line} &",
            "child=$!",
            "while  # a signal ends the wait, not the command",
            '  signalled=; wait "$child"; code=$?',
            '  [ -n "$signalled" ] && [ "$code" -gt 128 ]',
            "do :; done",
            "",
            'echo "$(date -Is) $task: exit code $code"',
            # 138 and 143: USR1 or TERM came before the command was ready for it; nothing was begun.
            f'if [[ " {EXIT_REQUEUE} 138 143 " == *" $code "* ]]; then',
            # Never by SLURM_JOB_ID: one task of an array has the number of the whole array.
            f'  if [ "$(squeue --noheader --jobs="{what}" --format=%T)" != RUNNING ]; then',
            '    echo "Slurm ends this task; it requeues what it preempted, nothing else comes back by itself"',
            f'  elif [ "${{SLURM_RESTART_COUNT:-0}}" -lt {settings.max_requeues} ]; then',
            '    echo "back into the queue"',
            f'    scontrol requeue "{what}"',
            "  else",
            f'    echo "not requeued: that was attempt {settings.max_requeues} already, see slurm.max_requeues"',
            "  fi",
            'elif [ "$code" -ne 0 ]; then',
            '  echo "not done: $task. Mend what is said above, then submit again, as you did before:"',
            '  echo "only what is missing is submitted"',
            "fi",
            'exit "$code"',
            "",
        ]
    )


def _quoted(option: str) -> str:
    """Return an option as a line of sbatch takes it: double quotes around what has spaces."""
    return f'"{option}"' if any(c.isspace() for c in option) else option
