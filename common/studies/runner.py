"""Runs the cells of a study side by side on one machine; each is a process of its own, and resumes by itself."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from sclmkb.common.console import EXIT_INTERRUPTED, EXIT_REQUEUE, Ticker, progress, say
from sclmkb.common.errors import UserError
from sclmkb.common.processes import stopping_with_parent
from sclmkb.common.studies.cells import Cell, Record, Study

_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def run_cell(study: Study, name: str, jobs: int | None = None) -> str:
    """Run one cell alone, as :func:`run_study` does, unless its result stands; what it needs must stand.

    Returns:
        Its name, what failed and how to mend it; empty if nothing did.

    Raises:
        UserError: if there is no such cell, or what it needs is not there.
    """
    if name not in study.cells:
        raise UserError(f"there is no cell '{name}': --dry-run lists them")
    done, chosen = study.done(), study.to_run()
    needs = [need for need in study.cells[name].needs if need in chosen and not study.cells[need].optional]
    if lacking := [need for need in needs if need not in done]:
        raise UserError(f"{name} needs {', '.join(lacking)}, not done with these settings: start the study again")
    failed, _ = _run(replace(study, shown=False), jobs, name)
    return f"{name}: {failed[name]}" if failed else ""


def run_study(study: Study, jobs: int | None = None) -> str:
    """Run the cells whose result does not stand yet, as many side by side as there are cores for.

    They start in the order of the study as soon as what they need is there. A cell that waits for cores lets no later
    cell go before it. If a cell fails, only the cells that need it do not run; without an optional one they do, and are
    looked at again in the next run.

    Args:
        study: the cells.
        jobs: cores to keep busy; default: all, by as many cells side by side as the study says.

    Returns:
        What failed, and how to mend it; empty if nothing did.
    """
    failed, num_left = _run(study, jobs)
    if not failed:
        return ""
    name, problem = next(iter(failed.items()))
    left = f", and {num_left} cells that need what failed were not run" if num_left else ""
    return f"{len(failed)} of {len(study.to_run())} cells failed{left}; first {name}: {problem}"


def _run(study: Study, jobs: int | None, only: str | None = None) -> tuple[dict[str, str], int]:
    """Run the cells, or one alone; return what failed, by name, and how many were not run."""
    cores = jobs or len(os.sched_getaffinity(0))
    width = jobs or study.side_by_side or cores
    for name, why in study.missing.items():
        say(f"{study.name}: {name} is left out: {why}")
    keys, done, chosen = study.keys(), study.done(), study.to_run()
    todo = {n: cell for n, cell in chosen.items() if (n not in done or cell.again) and only in (None, n)}
    there = {name for name in study.cells if name not in todo and (name in done or name not in chosen)}
    running = _Running(study)
    failed: dict[str, str] = {}
    lost = {n for n, cell in chosen.items() if cell.optional and n not in done and n not in todo}
    there |= lost
    begun = {n: cell for n, cell in chosen.items() if n in there}
    bar = nullcontext() if study.shown else progress(f"{study.name}: cells", len(chosen), len(begun))
    with bar as ticker:
        report = _Report(study, len(chosen), begun, ticker)
        try:
            while todo or running.cells:
                for cell in startable(todo, there, width - running.width(), width):
                    in_log = not study.shown or running.is_showing()
                    report.begins(cell, f" &   # output in {study.log_path(cell)}" if in_log else "")
                    running.start(todo.pop(cell.name), _cores(cell, width), _cores(cell, cores), in_log=in_log)
                if not running.cells:
                    break  # what is left needs what failed
                cell, problem, record = running.wait()
                if (problem and cell.optional) or not lost.isdisjoint(cell.needs):
                    lost.add(cell.name)
                if problem or cell.name not in done:
                    stands = not problem and cell.name not in lost
                    study.write_record(cell, replace(record, key=keys[cell.name] if stands else ""))
                if problem and cell.optional:
                    there.add(cell.name)
                    say(f"{study.name}: goes without {cell.name}, which failed: {problem}")
                elif problem:
                    failed[cell.name] = f"{problem}: mend that and start the same command again"
                    say(f"{study.name}: {cell.name} failed: {problem}")
                else:
                    there.add(cell.name)
                    report.ends(cell, record)
        finally:
            running.stop()
    return failed, len(todo)


def startable(todo: Mapping[str, Cell], there: set[str], free: int, width: int) -> list[Cell]:
    """Return the cells to start now, in the order of the study; ``free`` of ``width`` cores are free."""
    found = []
    for cell in todo.values():
        if not there.issuperset(cell.needs):
            continue
        if _cores(cell, width) > free:
            break
        free -= _cores(cell, width)
        found.append(cell)
    return found


def _cores(cell: Cell, limit: int) -> int:
    return min(cell.cores or limit, limit)


class _Report:
    """Tells people what begins and ends: each command if the study is shown, else a bar and a line for each cell."""

    def __init__(self, study: Study, total: int, done: Mapping[str, Cell], ticker: Ticker | None) -> None:
        self._study, self._ticker, self._num_done, self._total = study, ticker, len(done), total
        self._begun, self._titled = time.monotonic(), set[str]()
        for cell in done.values():
            self.begins(cell, "   # done")

    def begins(self, cell: Cell, note: str = "") -> None:
        """Print the command, and a title with the time before the first one of a part."""
        if self._ticker is not None:
            return
        if cell.part not in self._titled:
            self._titled.add(cell.part)
            number = list(self._study.parts).index(cell.part) + 1
            at = clock(time.monotonic() - self._begun)
            say(f"\n[{number}/{len(self._study.parts)}, {at}] {self._study.parts[cell.part]}")
        say(f"$ {cell.line()}{note}")

    def ends(self, cell: Cell, record: Record) -> None:
        """Advance the bar, and say how long the cell took."""
        if self._ticker is not None:
            self._num_done += 1
            self._ticker.advance()
            say(f"{self._study.name}: {self._num_done}/{self._total} {cell.name}, {record.seconds:.0f} s")


def clock(seconds: float) -> str:
    """Return a duration in minutes and seconds.

    Example:
        >>> clock(71.2)
        '1:11'
    """
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


@dataclass
class _Started:
    cell: Cell
    process: subprocess.Popen[bytes]
    cores: int
    begun: float
    log: IO[bytes] | None
    offset: int
    before: Record | None

    def record(self, peak_gb: float = 0.0) -> Record:
        """Return its record up to now, without a key; what earlier attempts took that did not end is added."""
        seconds = time.monotonic() - self.begun
        if self.before is not None and self.before.key == "":
            seconds, peak_gb = seconds + self.before.seconds, max(peak_gb, self.before.peak_gb)
        return Record(key="", seconds=round(seconds, 1), peak_gb=round(peak_gb, 2), command=self.cell.line())

    def end(self, code: int) -> None:
        self.process.returncode = code
        if self.log is not None:
            self.log.close()


@dataclass
class _Running:
    """Processes under way, by process id."""

    study: Study
    cells: dict[int, _Started] = field(default_factory=dict)

    def width(self) -> int:
        return sum(started.cores for started in self.cells.values())

    def is_showing(self) -> bool:
        """Return whether one of them has the terminal."""
        return any(started.log is None for started in self.cells.values())

    def start(self, cell: Cell, cores: int, threads: int, in_log: bool) -> None:
        log = None
        if in_log:
            path = self.study.log_path(cell)
            path.parent.mkdir(parents=True, exist_ok=True)
            log = path.open("ab")
            log.write(f"$ {cell.line()}\n".encode())
            log.flush()
        program, *arguments = cell.command
        # What stood there was made with other settings: it is set aside, never mixed. The same settings resume.
        arguments += ["--new-run"] if cell.new_run else []
        module = self.study.programs.get(program)
        cell.out.parent.mkdir(parents=True, exist_ok=True)
        process = subprocess.Popen(
            stopping_with_parent(["-m", module, *arguments]) if module else cell.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=None if log is None else subprocess.STDOUT,
            env=self._environment(threads),
        )
        before, offset = self.study.record(cell), log.tell() if log else 0
        self.cells[process.pid] = _Started(cell, process, cores, time.monotonic(), log, offset, before)

    def _environment(self, threads: int) -> dict[str, str]:
        """Return the variables of a cell; programs that were installed beside this Python are found."""
        given = {"TOKENIZERS_PARALLELISM": "false", **self.study.environment, **os.environ}
        path = f"{Path(sys.executable).parent}:{given.get('PATH', os.defpath)}"
        return {**given, "PATH": path, "OMP_NUM_THREADS": str(threads)}

    def wait(self) -> tuple[Cell, str, Record]:
        """Wait for one to end; return it, what went wrong (or nothing), and its record without a key."""
        while True:
            pid, status, usage = os.wait4(-1, 0)
            if pid in self.cells:
                break
        started = self.cells.pop(pid)
        code = os.waitstatus_to_exitcode(status)
        started.end(code)
        record = started.record(usage.ru_maxrss / 1e6)
        return started.cell, "" if code == 0 else self._problem(started, code), record

    def _problem(self, started: _Started, code: int) -> str:
        """Return the last line that a failed cell printed, and where all of it is."""
        if started.log is None:
            return f"exit code {code}, what it printed stands above"
        path = self.study.log_path(started.cell)
        with path.open("rb") as log:
            log.seek(started.offset)
            text = _COLOURS.sub("", log.read().decode("utf-8", "replace"))
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        last = lines[-1].removeprefix("error: ") if lines else "it printed nothing"
        return f"exit code {code}: {last} (all of it in {path})"

    def stop(self) -> None:
        """Ask what still runs to stop in good order, and wait for it."""
        for started in self.cells.values():
            started.process.send_signal(signal.SIGTERM)
        for started in self.cells.values():
            code = started.process.wait()
            started.end(code)
            self.study.write_record(started.cell, started.record())
            if code not in (0, EXIT_REQUEUE, EXIT_INTERRUPTED, -signal.SIGTERM):
                say(f"{self.study.name}: {started.cell.name} ended with exit code {code} when it was asked to stop")
