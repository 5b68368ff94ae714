"""What the three commands share: errors to exit codes, interruption, progress and logging.

Exit codes: 0 done, 1 an unexpected failure, 2 something the user can mend, 75 stopped by SIGTERM or SIGUSR1, as a
batch system sends them, 130 interrupted with Ctrl-C. After 75, put the same command into the queue again. After 75 and
130 the same command goes on where this one stopped.

What people read goes to standard error. With ``--log-format json`` or ``SCLMKB_LOG=json`` it is one JSON object per
line instead. It holds ``time`` [s since 1970], ``level`` and ``event``; ``message`` if there is one; ``command``,
``run`` and ``shard`` if they are known. Results (tables, ``--json``) go to standard output and stay as they are.
"""

import errno
import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
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

LOG_VARIABLE = "SCLMKB_LOG"
"""Environment variable that chooses the form of the log; child processes follow it too."""

console = Console(stderr=True, highlight=False, soft_wrap=True)
log_context: dict[str, str] = {}
"""What every line of a JSON log says beside its own: ``command`` and ``run``, once they are known."""


class LogFormat(StrEnum):
    """Form of what goes to standard error."""

    TEXT = "text"
    JSON = "json"


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
    log_context.clear()
    try:
        app()
    except UserError as error:
        _fail(str(error))
    except Terminated:
        _tell("stopped", "stopped in good order; the same command goes on where this one stopped", level="warning")
        sys.exit(EXIT_REQUEUE)
    except Interrupted:
        _tell("interrupted", "interrupted; the same command goes on where this one stopped", level="warning")
        sys.exit(EXIT_INTERRUPTED)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            _fail(
                f"no space left on the device while writing {error.filename or 'an artifact'}: free some, then"
                " run the same command again; what was committed is kept"
            )
        if error.errno in (errno.EACCES, errno.EROFS):
            _fail(f"cannot write {error.filename}: {error.strerror}; choose another --out")
        _defect(error)
    except Exception as error:
        _defect(error)


def _interrupt(signum: int, frame: object) -> None:
    _ignore_further_signals()
    raise Interrupted


def _terminate(signum: int, frame: object) -> None:
    if _Stop.put_off and _Stop.requested and time.monotonic() < _Stop.came + SAME_REQUEST_S:
        return
    if _Stop.put_off and not _Stop.requested:
        _Stop.requested, _Stop.came = True, time.monotonic()
        message = "asked to stop: finishing what is under way first; a second signal stops at once"
        line = _json_line("stopping", {"message": message}, "warning") if logs_json() else message
        os.write(2, f"{line}\n".encode())  # not with print: the signal may have come in the middle of one
        return
    _ignore_further_signals()
    raise Terminated


def _ignore_further_signals() -> None:
    # One is enough to stop in good order: a second SIGTERM changes nothing, a second Ctrl-C kills.
    for signum in TERMINATING:
        signal.signal(signum, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _fail(message: str) -> None:
    line = " ".join(message.split())
    if logs_json():
        log_event("error", level="error", message=line, exit_code=EXIT_USER_ERROR)
    else:
        console.quiet = False  # of several processes all but one are silent, but not about what is wrong
        console.print(f"[red]error:[/red] {escape(line)}")
    sys.exit(EXIT_USER_ERROR)


def _defect(error: Exception) -> None:
    """Raise an unexpected error; a JSON log gets it as one line."""
    if not logs_json():
        raise error
    message = f"{type(error).__name__}: {error}"
    log_event("defect", level="error", message=message, exit_code=1, traceback=traceback.format_exc())
    sys.exit(1)


def say(message: str) -> None:
    """Print a line to the terminal (standard error), markup off."""
    _tell("message", message)


class _SaidLines(logging.Handler):
    """Says what the modules below this one log: those that only return values or warn know no terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        _tell("message", record.getMessage(), level=record.levelname.lower())


logging.getLogger("sclmkb").addHandler(_SaidLines(logging.WARNING))


def _tell(event: str, message: str, **fields: Any) -> None:
    if logs_json():
        log_event(event, message=message, **fields)
    else:
        console.print(message, markup=False)


def logs_json() -> bool:
    """Return whether the log is one JSON object per line."""
    return os.environ.get(LOG_VARIABLE) == LogFormat.JSON


def log_event(event: str, *, level: str = "info", **fields: Any) -> None:
    """Write a line of a JSON log; nothing if the log is for people."""
    if logs_json() and not console.quiet:
        sys.stderr.write(f"{_json_line(event, fields, level)}\n")
        sys.stderr.flush()


def _json_line(event: str, fields: Mapping[str, Any], level: str) -> str:
    return json.dumps({"time": round(time.time(), 3), "level": level, "event": event, **log_context, **fields})


@contextmanager
def progress(description: str, total: int, done: int = 0) -> Iterator["Ticker"]:
    """Show a progress bar with counts, elapsed time and time left.

    On a terminal the bar is drawn in place; elsewhere (a batch log, a JSON log) one line is printed every tenth. A
    resumed run starts at what was ``done`` before.
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
    with Progress(*columns, console=console, disable=not _draws()) as bar:
        task = bar.add_task(description, total=total, completed=done, note="")
        yield Ticker(bar, task, description, total, done)


class Ticker:
    """Advances a progress bar; in a log, prints a line every tenth."""

    def __init__(self, bar: Progress, task: Any, description: str, total: int, done: int) -> None:
        self._bar, self._task, self._description = bar, task, description
        self._total, self._done = max(total, 1), done
        self._printed = 10 * done // self._total

    def beside(self, description: str, total: int) -> "Ticker":
        """Return one for something that goes on at the same time, which is shown below."""
        return Ticker(self._bar, self._bar.add_task(description, total=total, note=""), description, total, 0)

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count ``count`` units as done, with a short note beside the bar."""
        self._done += count
        self._bar.update(self._task, advance=count, note=note)
        tenth = 10 * self._done // self._total
        if not _draws() and tenth > self._printed:
            self._printed = tenth
            line = f"{self._description}: {self._done}/{self._total} {note}".rstrip()
            _tell("progress", line, done=self._done, total=self._total)


def _draws() -> bool:
    return console.is_terminal and not logs_json()


def limit_threads(threads: int | None) -> None:
    """Set the number of CPU threads that torch and the libraries below it use.

    ``None``: all cores, or this process's share if torchrun started several on this machine.
    """
    import torch

    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(threads or max(1, len(os.sched_getaffinity(0)) // beside))
