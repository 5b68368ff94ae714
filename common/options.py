"""Options that commands share, and where artifacts lie unless one is given."""

import functools
import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from sclmkb.common.console import LOG_VARIABLE, LogFormat

PresetOption = Annotated[str | None, typer.Option("--preset", help="Named settings, e.g. demo or tiny.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="YAML file in the form of a preset.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one setting; repeatable.")
]
NewRunOption = Annotated[
    bool, typer.Option("--new-run", help="Move an existing run with other settings aside, and start a new one.")
]


class ExecutorName(StrEnum):
    """Who runs the shards of a plan."""

    LOCAL = "local"
    RAY = "ray"
    SLURM = "slurm"


EXECUTOR_SECTIONS = (ExecutorName.RAY.value, ExecutorName.SLURM.value)
"""Sections of a preset, of a YAML file and of ``--set`` items that belong to executors."""


def split_overrides(overrides: Sequence[str] | None, sections: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Return the ``--set`` items of a command that are its own, and those of each executor's section, by its name.

    Example:
        >>> split_overrides(["seed=1", "slurm.hours=2"], ["ray", "slurm"])
        (['seed=1'], {'ray': [], 'slurm': ['hours=2']})
    """
    items = list(overrides or ())
    own = [item for item in items if not item.startswith(tuple(f"{name}." for name in sections))]
    return own, {name: [i.removeprefix(f"{name}.") for i in items if i.startswith(f"{name}.")] for name in sections}


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options of every command that makes an artifact shard by shard; attributes are named after them."""

    preset: PresetOption = None
    config: ConfigOption = None
    overrides: SetOption = None
    new_run: NewRunOption = False
    shards: Annotated[
        str | None,
        typer.Option(
            help="Make only these shards, e.g. 0-3,7, and leave the rest to other processes. none: only the last step."
        ),
    ] = None
    join: Annotated[
        bool, typer.Option("--join", help="Only join an existing run, never start one: for tasks of a job array.")
    ] = False
    executor: Annotated[
        ExecutorName, typer.Option(help="Who makes the shards: this process, Ray actors, or a Slurm job array.")
    ] = ExecutorName.LOCAL
    print_script: Annotated[
        bool,
        typer.Option("--print", help="With --executor slurm: print the sbatch script instead of submitting it."),
    ] = False
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="With --executor ray: the cluster, as in RAY_ADDRESS. Default: a new Ray on this machine.",
        ),
    ] = None

    @property
    def layers(self) -> dict[str, Any]:
        """What :meth:`~sclmkb.common.config.Settings.resolve` builds a stage's own settings from."""
        own, _ = split_overrides(self.overrides, EXECUTOR_SECTIONS)
        return {"preset": self.preset, "config": self.config, "overrides": own}


def takes_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command of Typer take each of the :class:`RunOptions`, which it gets together as its parameter ``run``.

    Example:
        >>> @takes_run_options
        ... def toy(out: Path, *, run: RunOptions) -> None:
        ...     print(out, run.shards)
        >>> toy(out=Path("a"), shards="0-3")
        a 0-3
        >>> list(inspect.signature(toy).parameters)[:3]
        ['out', 'preset', 'config']
    """
    own, shared = inspect.signature(command), inspect.signature(RunOptions).parameters

    @functools.wraps(command)
    def flat(**given: Any) -> None:
        run = RunOptions(**{name: given.pop(name) for name in shared if name in given})
        command(**given, run=run)

    parameters = [parameter for name, parameter in own.parameters.items() if name != "run"]
    flat.__signature__ = own.replace(parameters=[*parameters, *shared.values()])  # type: ignore[attr-defined]
    return flat


def _choose_log_format(chosen: LogFormat) -> LogFormat:
    os.environ[LOG_VARIABLE] = chosen.value
    return chosen


LogFormatOption = Annotated[
    LogFormat,
    typer.Option(
        "--log-format",
        envvar=LOG_VARIABLE,
        callback=_choose_log_format,
        is_eager=True,
        help="Form of the log on standard error: lines for people, or one JSON object per line. Before the command.",
    ),
]


def preset_folder(preset: str | None) -> Path:
    """Return where a preset's artifacts lie unless a path is given: ``artifacts/PRESET``."""
    return Path("artifacts") / (preset or "default")
