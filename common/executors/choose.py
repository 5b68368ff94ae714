"""From command line options to an executor."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sclmkb.common.artifacts.storage import ObjectPath
from sclmkb.common.console import log_context
from sclmkb.common.errors import UserError
from sclmkb.common.executors.base import Executor, catching
from sclmkb.common.executors.local import Local
from sclmkb.common.executors.ray import Ray, RaySettings
from sclmkb.common.executors.slurm import Slurm, refuse_new_run
from sclmkb.common.executors.slurm_script import SlurmSettings
from sclmkb.common.options import EXECUTOR_SECTIONS, ExecutorName, RunOptions, split_overrides

_WITH_VALUE, _FLAGS = ("--executor", "--ray-address"), ("--print", "--new-run")


def choose_executor(run: RunOptions, name: str, out: Path, program: str = "sclmkb.generate.cli") -> Executor:
    """Return who makes the shards of a run of the command ``name``.

    Sections ``ray`` and ``slurm`` of preset, YAML file and ``--set`` items count here. The package of the program's
    module has the presets.

    Raises:
        UserError: if options do not go together, a setting is wrong, or ``--new-run`` would set aside a run that has
            jobs in the queue; if Slurm has no folder for its logs.
    """
    if (given := catching()) is not None:
        return given
    log_context.update(command=name, run=str(out))
    if run.new_run:
        refuse_new_run(name, out)
    if run.print_script and run.executor is not ExecutorName.SLURM:
        raise UserError("--print prints the script of another executor: add --executor slurm")
    if run.ray_address is not None and run.executor is not ExecutorName.RAY:
        raise UserError("--ray-address names a cluster of another executor: add --executor ray")
    if run.executor is ExecutorName.LOCAL:
        if run.join and run.new_run:
            raise UserError("--join only goes on with a run, --new-run starts one: leave one of them out")
        return Local(run.shards)
    if run.shards is not None or run.join:
        raise UserError(f"--shards and --join are for its tasks: leave them out with --executor {run.executor}")
    arguments = task_arguments(sys.argv[1:])
    section: dict[str, Any] = {
        "presets": program.rpartition(".")[0],
        "section": run.executor.value,
        "preset": run.preset,
        "config": run.config,
        "overrides": split_overrides(run.overrides, EXECUTOR_SECTIONS)[1][run.executor],
    }
    if run.executor is ExecutorName.RAY:
        address = run.ray_address or os.environ.get("RAY_ADDRESS") or None
        return Ray(settings=RaySettings.resolve(**section), program=program, arguments=arguments, address=address)
    settings = SlurmSettings.resolve(**section)
    if settings.logs is None and isinstance(out, ObjectPath):
        raise UserError(
            f"--executor slurm needs a folder for scripts and logs, and {out} is none: name one that all nodes see"
            " with --set slurm.logs=FOLDER"
        )
    command = [sys.executable, "-m", program, *arguments]  # a task finds no other one
    return Slurm(settings=settings, command=command, print_only=run.print_script)


def task_arguments(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a task: what was typed after the program, but only to join the run that is there.

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
