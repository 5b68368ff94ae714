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
from dataclasses import dataclass, replace
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


def without_gpus(settings: SlurmSettings) -> SlurmSettings:
    """Return the settings of a job that computes little."""
    return settings.model_copy(update={"gpus": None})


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a job runs, in the current folder.

    Attributes:
        settings: what to ask for.
        name: that squeue shows.
        command: to run.
        logs: folder of the logs; must be there before the job starts.
    """

    settings: SlurmSettings
    name: str
    command: Sequence[str]
    logs: Path

    def array(self, tasks: str, num_shards: int) -> str:
        """Return the script of a job array; each of the tasks, such as ``0-3,7``, does the shards of its own number."""
        if self.settings.max_running is not None:
            tasks += f"%{self.settings.max_running}"
        per_task = self.settings.shards_per_task
        shards = ['shards="$SLURM_ARRAY_TASK_ID"']
        if per_task > 1:
            shards = [
                f"first=$((SLURM_ARRAY_TASK_ID * {per_task}))",
                f"last=$((first + {per_task} > {num_shards} ? {num_shards - 1} : first + {per_task - 1}))",
                'shards="$first-$last"',
            ]
        options = [f"--array={tasks}", f"--comment={COMMENT}{per_task}"]
        number = "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
        return self._script(options, "%A_%a", number, [*shards, 'task="shards $shards"'], ' --shards "$shards"')

    def single(self, task: str, comment: str | None = None) -> str:
        """Return the script of a single job, which is cancelled if what it depends on fails.

        Its log says the task, squeue the comment.
        """
        options = ["--kill-on-invalid-dep=yes", *([f"--comment={comment}"] if comment else [])]
        return self._script(options, "%j", "${SLURM_JOB_ID}", [f"task={shlex.quote(task)}"])

    def last_step(self) -> str:
        """Return the script of the job that does the last step of the command."""
        command = [*self.command, "--shards", NO_SHARDS]
        settings, name = without_gpus(self.settings), f"{self.name}-finish"
        return replace(self, settings=settings, name=name, command=command).single("the last step")

    def _script(self, options: Sequence[str], pattern: str, number: str, task: Sequence[str], words: str = "") -> str:
        """Return a script.

        Args:
            options: of this kind of job.
            pattern: the number of the job or task in the name of a log, as sbatch fills it in.
            number: the same, as the shell does.
            task: lines that say in the variable ``task`` what it does.
            words: to add to the command.
        """
        settings, logs = self.settings, str(self.logs)
        asked = {
            "partition": settings.partition,
            "time": settings.hours and max(1, round(60 * settings.hours)),
            "cpus-per-task": settings.cpus,
            "mem": settings.memory_gb and f"{max(1, round(1024 * settings.memory_gb))}M",
            "gpus": settings.gpus,
        }
        options = [
            f"--job-name={self.name}",
            *options,
            "--nodes=1",
            "--ntasks=1",
            *(f"--{name}={value}" for name, value in asked.items() if value is not None),
            f"--chdir={Path.cwd()}",
            f"--output={logs.replace('%', '%%')}/{pattern}.slurm.log",
            "--open-mode=append",
            "--requeue",
            f"--signal=B:USR1@{settings.notice_s}",
            *settings.sbatch,
        ]
        lines = [
            "#!/bin/bash",
            *(f"#SBATCH {_quoted(option)}" for option in options),
            "",
            "# One log an attempt. What Slurm itself says of the job is in the file beside it.",
            f'exec >>{shlex.quote(logs)}/"{number}.attempt-${{SLURM_RESTART_COUNT:-0}}.log" 2>&1',
            *task,
            'echo "$(date -Is) $(hostname): $task, attempt ${SLURM_RESTART_COUNT:-0}"',
            *settings.setup,
            "",
            "signalled=",
            "trap 'signalled=1; kill -USR1 \"$child\"' USR1",
            "trap 'signalled=1' TERM",
            'srun --ntasks=1 ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} \\',
            f"  {shlex.join(self.command)}{words} &",
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
            f'  if [ "$(squeue --noheader --jobs="{number}" --format=%T)" != RUNNING ]; then',
            '    echo "Slurm ends this task; it requeues what it preempted, nothing else comes back by itself"',
            f'  elif [ "${{SLURM_RESTART_COUNT:-0}}" -lt {settings.max_requeues} ]; then',
            '    echo "back into the queue"',
            f'    scontrol requeue "{number}"',
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
        return "\n".join(lines)


def _quoted(option: str) -> str:
    """Return an option as a line of sbatch takes it: double quotes around what has spaces."""
    return f'"{option}"' if any(c.isspace() for c in option) else option
