"""Options that commands share, and where artifacts lie unless one is given."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sclmkb.common.console import LOG_VARIABLE, LogFormat

PresetOption = Annotated[str | None, typer.Option("--preset", help="Named settings, e.g. demo or tiny.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="YAML file in the form of a preset.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one setting; repeatable.")
]
NewRunOption = Annotated[
    bool, typer.Option("--new-run", help="Set an existing run with other settings aside and start afresh.")
]

ShardsOption = Annotated[
    str | None,
    typer.Option(
        "--shards",
        help="Do only these shards, e.g. 0-3,7; others are left to other processes. none: only the last step.",
    ),
]
JoinOption = Annotated[
    bool, typer.Option("--join", help="Only go on with a run that is there, never start one: for tasks of a job array.")
]


class ExecutorName(StrEnum):
    """Who runs the shards of a plan."""

    LOCAL = "local"
    RAY = "ray"
    SLURM = "slurm"


ExecutorOption = Annotated[
    ExecutorName,
    typer.Option("--executor", help="Who makes the shards: this process, Ray actors, or a Slurm job array."),
]
RayAddressOption = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="HOST:PORT",
        help="With --executor ray: the cluster, as in RAY_ADDRESS. Neither: a Ray of its own on this machine.",
    ),
]
PrintOption = Annotated[
    bool, typer.Option("--print", help="With --executor slurm: print the sbatch script instead of submitting it.")
]


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
        help="Of what goes to standard error: lines for people, or one JSON object a line. Stands before the command.",
    ),
]


def preset_folder(preset: str | None) -> Path:
    """Return where a preset's artifacts lie unless a path is given: ``artifacts/PRESET``."""
    return Path("artifacts") / (preset or "default")
