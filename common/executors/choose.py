"""From command line options to an executor."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sclmkb.common.artifacts.storage import ObjectPath
from sclmkb.common.console import log_context
from sclmkb.common.errors import UserError
from sclmkb.common.executors.base import Executor, catching, split_overrides
from sclmkb.common.executors.local import Local
from sclmkb.common.executors.ray import Ray, RaySettings
from sclmkb.common.executors.slurm import Slurm, refuse_new_run
from sclmkb.common.executors.slurm_script import SlurmSettings
from sclmkb.common.options import ExecutorName

_SECTIONS = ("ray", "slurm")
_WITH_VALUE, _FLAGS = ("--executor", "--ray-address"), ("--print", "--new-run")


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
    ray_address: str | None = None
    program: str = "sclmkb.generate.cli"

    def of_command(
        self, name: str, out: Path, preset: str | None, config: Path | None, overrides: Sequence[str] | None
    ) -> tuple[list[str], Executor]:
        """Return the ``--set`` items that are the stage's own, and the executor.

        Args:
            name: of the command.
            out: folder of the run.
            preset: preset whose section ``ray`` or ``slurm`` counts.
            config: YAML file whose section ``ray`` or ``slurm`` counts.
            overrides: ``--set`` items; those of ``ray.`` or ``slurm.`` count here.

        Raises:
            UserError: if options do not go together, a setting is wrong, or ``--new-run`` would set aside a run that
                has jobs in the queue; if Slurm has no folder for its logs.
        """
        own, asked_for = split_overrides(overrides, _SECTIONS)
        if (given := catching()) is not None:
            return own, given
        log_context.update(command=name, run=str(out))
        if self.new_run:
            refuse_new_run(name, out)
        if self.print_script and self.executor is not ExecutorName.SLURM:
            raise UserError("--print prints the script of another executor: add --executor slurm")
        address = cluster_address(self.executor, self.ray_address)
        if self.executor is ExecutorName.LOCAL:
            if self.join and self.new_run:
                raise UserError("--join only goes on with a run, --new-run starts one: leave one of them out")
            return own, Local(self.shards)
        if self.shards is not None or self.join:
            raise UserError(f"--shards and --join are for its tasks: leave them out with --executor {self.executor}")
        items = asked_for[self.executor]
        presets = self.program.rpartition(".")[0]
        if self.executor is ExecutorName.RAY:
            asked = RaySettings.resolve(presets=presets, section="ray", preset=preset, config=config, overrides=items)
            return own, Ray(
                settings=asked,
                program=self.program,
                arguments=task_arguments(sys.argv[1:]),
                address=address,
            )
        settings = SlurmSettings.resolve(
            presets=presets, section="slurm", preset=preset, config=config, overrides=items
        )
        if settings.logs is None and isinstance(out, ObjectPath):
            raise UserError(
                f"--executor slurm needs a folder for scripts and logs, and {out} is none: name one that all nodes see"
                " with --set slurm.logs=FOLDER"
            )
        command = [sys.executable, "-m", self.program, *task_arguments(sys.argv[1:])]  # a task finds no other one
        return own, Slurm(settings=settings, command=command, print_only=self.print_script)


def cluster_address(executor: ExecutorName, given: str | None) -> str | None:
    """Return the address of the Ray cluster to use; None: a Ray of its own, or none at all.

    Args:
        executor: as chosen.
        given: value of ``--ray-address``.

    Raises:
        UserError: if it is given for another executor.
    """
    if executor is ExecutorName.RAY:
        return given or os.environ.get("RAY_ADDRESS") or None
    if given is not None:
        raise UserError("--ray-address names a cluster of another executor: add --executor ray")
    return None


def task_arguments(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a task: what was typed, but only to join the run that is there.

    Args:
        arguments: as typed, without the program.

    Example:
        >>> task_arguments(["csi", "--executor", "slurm", "--new-run", "--seed", "1"])
        ['csi', '--seed', '1', '--join']
    """
    words, kept = iter(arguments), []
    for word in words:
        if word in _WITH_VALUE:
            next(words, None)
        elif word not in _FLAGS and word.partition("=")[0] not in _WITH_VALUE:
            kept.append(word)
    return [*kept, "--join"]
