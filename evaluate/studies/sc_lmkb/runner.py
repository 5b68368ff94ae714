"""Runs the cells of a study side by side on one machine; each is a process of its own, and resumes by itself."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import IO

from sclmkb.common.console import EXIT_REQUEUE, progress, say
from sclmkb.common.errors import UserError
from sclmkb.common.processes import stopping_with_parent
from sclmkb.evaluate.studies.sc_lmkb.cells import STAGES, Cell, Record, Study

_MODULES = {program: f"{stage}.cli" for program, stage in STAGES.items()}
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def listing(study: Study) -> str:
    """Return every command in order, as a shell script, with what stands already marked as a comment."""
    done = study.done()
    lines = [f"# {name}: left out, {why}" for name, why in study.missing.items()]
    for cell in study.cells.values():
        lines += [f"# {cell.name}{': done' if cell.name in done else ''}", cell.line()]
    return "\n".join(lines)


def run_cell(study: Study, name: str, jobs: int | None = None) -> str:
    """Run one cell alone, as :func:`run_study` does, unless its result stands; what it needs must stand.

    Returns:
        Its name, what failed and how to mend it; empty if nothing did.

    Raises:
        UserError: if there is no such cell, or what it needs is not there.
    """
    if name not in study.cells:
        raise UserError(f"there is no cell '{name}': --dry-run lists them")
    done = study.done()
    if lacking := [need for need in study.cells[name].needs if need not in done]:
        raise UserError(f"{name} needs {', '.join(lacking)}, not done with these settings: start the study again")
    failed, _ = _run(study, jobs, name)
    return f"{name}: {failed[name]}" if failed else ""


def run_study(study: Study, jobs: int | None = None) -> str:
    """Run the cells whose result does not stand yet, as many side by side as there are cores for.

    They start in the order of the study as soon as what they need is there; a cell that waits for cores lets no later
    one go before it. What fails keeps what needs it from running, and nothing else.

    Args:
        study: the cells.
        jobs: cores to keep busy; default: all.

    Returns:
        What failed, and how to mend it; empty if nothing did.
    """
    return failures_of(study, *_run(study, jobs))


def failures_of(study: Study, failed: Mapping[str, str], num_left: int) -> str:
    """Return what failed in one line; empty if nothing did.

    Args:
        study: the cells.
        failed: what went wrong and how to mend it, by name.
        num_left: how many were not run, because they need what failed.
    """
    if not failed:
        return ""
    name, problem = next(iter(failed.items()))
    left = f", and {num_left} cells that need what failed were not run" if num_left else ""
    return f"{len(failed)} of {len(study.cells)} cells failed{left}; first {name}: {problem}"


def _run(study: Study, jobs: int | None, only: str | None = None) -> tuple[dict[str, str], int]:
    """Run the cells, or one alone; return what failed, by name, and how many were not run."""
    jobs = jobs or len(os.sched_getaffinity(0))
    for name, why in study.missing.items():
        say(f"paper: {name} is left out: {why}")
    keys, done = study.keys(), set(study.done())
    todo = {name: cell for name, cell in study.cells.items() if name not in done and only in (None, name)}
    running = _Running(study)
    failed: dict[str, str] = {}
    try:
        with progress("paper: cells", len(study.cells), len(done)) as ticker:
            while todo or running.cells:
                for cell in _startable(todo, done, running.cores_free(jobs), jobs):
                    running.start(todo.pop(cell.name), _cores(cell, jobs))
                if not running.cells:
                    break  # what is left needs what failed
                cell, problem, record = running.wait()
                study.write_record(cell, replace(record, key="" if problem else keys[cell.name]))
                if problem:
                    how = f"(all of it in {study.log_path(cell)}): mend that and start the same command again"
                    failed[cell.name] = f"{problem} {how}"
                    say(f"paper: {cell.name} failed: {problem}")
                else:
                    done.add(cell.name)
                    ticker.advance()
                    say(f"paper: {len(done)}/{len(study.cells)} {cell.name}, {record.seconds:.0f} s")
    finally:
        running.stop()
    return failed, len(todo)


def _startable(todo: Mapping[str, Cell], done: set[str], free: int, jobs: int) -> list[Cell]:
    """Return the cells to start now, in the order of the study."""
    found = []
    for cell in todo.values():
        if not done.issuperset(cell.needs):
            continue
        if _cores(cell, jobs) > free:
            break
        free -= _cores(cell, jobs)
        found.append(cell)
    return found


def _cores(cell: Cell, jobs: int) -> int:
    return min(cell.cores or jobs, jobs)


@dataclass
class _Started:
    cell: Cell
    process: subprocess.Popen[bytes]
    cores: int
    begun: float
    log: IO[bytes]
    offset: int
    before: Record | None

    def record(self, peak_gb: float = 0.0) -> Record:
        """Return its record up to now, without a key; what earlier attempts took that did not end is added."""
        seconds = time.monotonic() - self.begun
        if self.before is not None and self.before.key == "":
            seconds, peak_gb = seconds + self.before.seconds, max(peak_gb, self.before.peak_gb)
        return Record(key="", seconds=round(seconds, 1), peak_gb=round(peak_gb, 2), command=self.cell.line())


@dataclass
class _Running:
    """Processes under way, by process id."""

    study: Study
    cells: dict[int, _Started] = field(default_factory=dict)

    def cores_free(self, jobs: int) -> int:
        return jobs - sum(started.cores for started in self.cells.values())

    def start(self, cell: Cell, cores: int) -> None:
        path = self.study.log_path(cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        log = path.open("ab")
        log.write(f"$ {cell.line()}\n".encode())
        log.flush()
        program, *arguments = cell.command
        # What stood there was made with other settings: it is set aside, never mixed. The same settings resume.
        arguments += ["--new-run"]
        process = subprocess.Popen(
            stopping_with_parent(["-m", _MODULES[program], *arguments]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={"TOKENIZERS_PARALLELISM": "false", **os.environ, "OMP_NUM_THREADS": str(cores)},
        )
        before = self.study.record(cell)
        self.cells[process.pid] = _Started(cell, process, cores, time.monotonic(), log, log.tell(), before)

    def wait(self) -> tuple[Cell, str, Record]:
        """Wait for one to end; return it, what went wrong (or nothing), and its record without a key."""
        while True:
            pid, status, usage = os.wait4(-1, 0)
            if pid in self.cells:
                break
        started = self.cells.pop(pid)
        started.process.returncode = code = os.waitstatus_to_exitcode(status)
        started.log.close()
        record = started.record(usage.ru_maxrss / 1e6)
        return started.cell, "" if code == 0 else self._problem(started, code), record

    def _problem(self, started: _Started, code: int) -> str:
        """Return the last line that a failed cell printed."""
        with self.study.log_path(started.cell).open("rb") as log:
            log.seek(started.offset)
            text = _COLOURS.sub("", log.read().decode("utf-8", "replace"))
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return f"exit code {code}: {lines[-1].removeprefix('error: ') if lines else 'it printed nothing'}"

    def stop(self) -> None:
        """Ask what still runs to stop in good order, and wait for it."""
        for started in self.cells.values():
            started.process.send_signal(signal.SIGTERM)
        for started in self.cells.values():
            code = started.process.wait()
            started.log.close()
            self.study.write_record(started.cell, started.record())
            if code not in (0, EXIT_REQUEUE, -signal.SIGTERM):
                say(f"paper: {started.cell.name} ended with exit code {code} when it was asked to stop")
