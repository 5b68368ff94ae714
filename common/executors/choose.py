"""From command line options to an executor."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sclmkb.common.cli import ExecutorName, log_context
from sclmkb.common.errors import UserError
from sclmkb.common.executors.base import Executor
from sclmkb.common.executors.local import Local
from sclmkb.common.executors.slurm import Slurm, refuse_new_run
from sclmkb.common.executors.slurm_script import SlurmSettings

_PREFIX = "slurm."
_WITH_VALUE, _FLAGS = ("--executor",), ("--print", "--new-run")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the command line says of who makes the shards; attributes are named after the options.

    Attributes:
        program: module of the command line; its package has the presets.
    """

    executor: ExecutorName
    shards: str | None
    join: bool
    print_script: bool
    new_run: bool
    program: str = "sclmkb.generate.cli"

    def of_command(
        self, name: str, out: Path, preset: str | None, config: Path | None, overrides: Sequence[str] | None
    ) -> tuple[list[str], Executor]:
        """Return the ``--set`` items that are the stage's own, and the executor.

        Args:
            name: of the command.
            out: folder of the run.
            preset: preset whose section ``slurm`` counts.
            config: YAML file whose section ``slurm`` counts.
            overrides: ``--set`` items; those of ``slurm.`` count here.

        Raises:
            UserError: if options do not go together, a setting is wrong, or ``--new-run`` would set aside a run that
                has jobs in the queue.
        """
        log_context.update(command=name, run=str(out))
        own = [item for item in overrides or () if not item.startswith(_PREFIX)]
        if self.new_run:
            refuse_new_run(name, out)
        if self.executor is ExecutorName.LOCAL:
            if self.print_script:
                raise UserError("--print prints the script of another executor: add --executor slurm")
            if self.join and self.new_run:
                raise UserError("--join only goes on with a run, --new-run starts one: leave one of them out")
            return own, Local(self.shards)
        if self.shards is not None or self.join:
            raise UserError("--shards and --join are for the tasks of an array: leave them out with --executor slurm")
        settings = SlurmSettings.resolve(
            presets=self.program.rpartition(".")[0],
            section="slurm",
            preset=preset,
            config=config,
            overrides=[item.removeprefix(_PREFIX) for item in overrides or () if item.startswith(_PREFIX)],
        )
        command = task_command(self.program, sys.argv[1:])
        return own, Slurm(settings=settings, command=command, print_only=self.print_script)


def task_command(program: str, arguments: Sequence[str]) -> list[str]:
    """Return the command line of a task: what was typed, but only to join the run that is there.

    Args:
        program: module to run, with the interpreter of this process: a task finds no other one.
        arguments: as typed, without the program.

    Example:
        >>> task_command("p", ["csi", "--executor", "slurm", "--new-run", "--seed", "1"])[1:]
        ['-m', 'p', 'csi', '--seed', '1', '--join']
    """
    words, kept = iter(arguments), []
    for word in words:
        if word in _WITH_VALUE:
            next(words, None)
        elif word not in _FLAGS and word.partition("=")[0] not in _WITH_VALUE:
            kept.append(word)
    return [sys.executable, "-m", program, *kept, "--join"]
