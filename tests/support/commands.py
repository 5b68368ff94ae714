"""Runs the project's commands inside the test's own process: what they print, raise and write."""

import contextlib
import importlib
import io
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from accelerate.state import AcceleratorState

from sclmkb.common.studies.cells import PROGRAMS


@dataclass(frozen=True)
class Done:
    """What a command came to: its exit code, and what it wrote to standard output and standard error."""

    code: int
    out: str
    err: str


def run_command(command: str | list[str | Path]) -> Done:
    """Run a command as its program would; signals are handled as before afterwards."""
    name, *arguments = shlex.split(command) if isinstance(command, str) else [str(word) for word in command]
    main = importlib.import_module(PROGRAMS[name]).main
    out, err = io.StringIO(), io.StringIO()
    with mock.patch.object(sys, "argv", [name, *arguments]), _as_before(), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return Done(code, out.getvalue(), err.getvalue())


def must_run(command: str | list[str | Path]) -> Done:
    """Run a command and fail with what it said unless it ended well."""
    done = run_command(command)
    assert done.code == 0, f"{command}\n{done.err[-4000:]}"
    return done


def refusal(command: str | list[str | Path]) -> str:
    """Run a command that its user must mend, and return the line that says so."""
    done = run_command(command)
    assert done.code == 2, f"{command}\n{done.err[-4000:]}"
    assert "Traceback" not in done.err
    return done.err.strip().splitlines()[-1]


@contextlib.contextmanager
def _as_before() -> Iterator[None]:
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in signals.items():
            signal.signal(number, handler)
        AcceleratorState._reset_state(reset_partial_state=True)  # else it keeps its first precision
