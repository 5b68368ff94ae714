"""What the three commands share: errors to exit codes, interruption, progress and logging.

Exit codes: 0 done, 1 an unexpected failure, 2 something the user can mend, 75 stopped by SIGTERM or SIGUSR1, as a batch
system sends them (put the same command into the queue again), 130 interrupted with Ctrl-C. After 75 and 130 the same
command goes on where this one stopped.
"""

import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from sclmkb.common.errors import UserError

EXIT_USER_ERROR = 2
EXIT_REQUEUE = 75
EXIT_INTERRUPTED = 130
TERMINATING = (signal.SIGTERM, signal.SIGUSR1)
"""What batch systems send before they kill."""
SAME_REQUEST_S = 2.0
"""Signals so near to each other are one request: a batch system may tell a process and its parent, who passes it on."""

console = Console(stderr=True, highlight=False, soft_wrap=True)

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
    SLURM = "slurm"


ExecutorOption = Annotated[
    ExecutorName, typer.Option("--executor", help="Who makes the shards: this process, or a Slurm job array.")
]
PrintOption = Annotated[
    bool, typer.Option("--print", help="With --executor slurm: print the sbatch script instead of submitting it.")
]


def preset_folder(preset: str | None) -> Path:
    """Return where a preset's artifacts lie unless a path is given: ``artifacts/PRESET``."""
    return Path("artifacts") / (preset or "default")


class Interrupted(BaseException):
    """SIGINT (Ctrl-C) arrived; Typer would turn a KeyboardInterrupt into a bare "Aborted"."""


class Terminated(Interrupted):
    """SIGTERM or SIGUSR1 arrived: a batch system wants the machine back."""


class _Stop:
    """Whether signals to stop are put off just now, and whether one came."""

    put_off = False
    requested = False
    came = 0.0


@contextmanager
def stop_in_good_order() -> Iterator[Callable[[], None]]:
    """Put off SIGTERM and SIGUSR1 until the work is at a point where nothing would be lost.

    Yields:
        A function to call at such points; it raises :class:`Terminated` if a signal came. A later signal does not
        wait for it.
    """

    def check() -> None:
        if _Stop.requested:
            raise Terminated

    _Stop.put_off, _Stop.requested = True, False
    try:
        yield check
        check()
    finally:
        _Stop.put_off = _Stop.requested = False


def stop_requested() -> bool:
    """Return whether a signal to stop came while it was put off: what the function of stop_in_good_order raises on."""
    return _Stop.requested


def waiting_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what makes threads of GNU OpenMP sleep soon while they wait, unless the environment says how they wait.

    Their own busy loop takes 300,000 turns: beside another program that needs the cores, two threads then wait for
    each other most of the time.
    """
    chosen = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & environment.keys()
    return {} if chosen else {"GOMP_SPINCOUNT": "10000"}


def run_app(app: typer.Typer) -> None:
    """Run a Typer application and turn what goes wrong into one line and an exit code."""
    os.environ.update(waiting_environment(os.environ))  # read when torch is imported, which no command has done yet
    signal.signal(signal.SIGINT, _interrupt)
    for signum in TERMINATING:
        signal.signal(signum, _terminate)
    try:
        app()
    except UserError as error:
        _fail(str(error))
    except Terminated:
        console.print("stopped in good order; the same command goes on where this one stopped")
        sys.exit(EXIT_REQUEUE)
    except Interrupted:
        console.print("interrupted; the same command goes on where this one stopped")
        sys.exit(EXIT_INTERRUPTED)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            _fail(
                f"no space left on the device while writing {error.filename or 'an artifact'}: free some, then"
                " run the same command again; what was committed is kept"
            )
        if error.errno in (errno.EACCES, errno.EROFS):
            _fail(f"cannot write {error.filename}: {error.strerror}; choose another --out")
        raise


def _interrupt(signum: int, frame: object) -> None:
    _ignore_further_signals()
    raise Interrupted


def _terminate(signum: int, frame: object) -> None:
    if _Stop.put_off and _Stop.requested and time.monotonic() < _Stop.came + SAME_REQUEST_S:
        return
    if _Stop.put_off and not _Stop.requested:
        _Stop.requested, _Stop.came = True, time.monotonic()
        # Not with print: the signal may have come in the middle of one.
        os.write(2, b"asked to stop: finishing what is under way first; a second signal stops at once\n")
        return
    _ignore_further_signals()
    raise Terminated


def _ignore_further_signals() -> None:
    # One is enough to stop in good order: a second SIGTERM changes nothing, a second Ctrl-C kills.
    for signum in TERMINATING:
        signal.signal(signum, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _fail(message: str) -> None:
    console.quiet = False  # of several processes all but one are silent, but not about what is wrong
    console.print(f"[red]error:[/red] {_escape(' '.join(message.split()))}")
    sys.exit(EXIT_USER_ERROR)


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


def say(message: str) -> None:
    """Print a line to the terminal (standard error), markup off."""
    console.print(message, markup=False)


@contextmanager
def progress(description: str, total: int, done: int = 0) -> Iterator["Ticker"]:
    """Show a progress bar with counts, elapsed time and time left.

    On a terminal the bar is drawn in place; elsewhere (a batch log) one line is printed every tenth.

    Args:
        description: what is being done.
        total: how many units there are.
        done: how many were done before (a resumed run starts there).
    """
    columns: tuple[Any, ...] = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=total, completed=done, note="")
        yield Ticker(bar, task, description, total, done)


class Ticker:
    """Advances a progress bar; in a log, prints a line every tenth."""

    def __init__(self, bar: Progress, task: Any, description: str, total: int, done: int) -> None:
        self._bar, self._task, self._description = bar, task, description
        self._total, self._done = max(total, 1), done
        self._printed = 10 * done // self._total

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count ``count`` units as done, with a short note beside the bar."""
        self._done += count
        self._bar.update(self._task, advance=count, note=note)
        tenth = 10 * self._done // self._total
        if not console.is_terminal and tenth > self._printed:
            self._printed = tenth
            say(f"{self._description}: {self._done}/{self._total} {note}".rstrip())


def limit_threads(threads: int | None) -> None:
    """Set the number of CPU threads that torch and the libraries below it use.

    Args:
        threads: how many; ``None``: all cores, or this process's share if torchrun started several on this machine.
    """
    import torch

    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(threads or max(1, len(os.sched_getaffinity(0)) // beside))
