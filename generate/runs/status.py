"""``sclmkb-gen status``: how far a run of ``sclmkb-gen`` is, also while it goes on.

Reads the plan, the manifests, what chunks say of themselves and the ends of the logs, each once; no data. Several
threads do, since each file of a shared file system takes its time.
"""

import io
import json
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from sclmkb.common.artifacts.chunks import ShardCommittedError
from sclmkb.common.artifacts.files import list_folder, modified, read_json
from sclmkb.common.artifacts.plan import Shard, format_ranges, parse_ranges
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.artifacts.schemas import ROW_STATES
from sclmkb.common.artifacts.storage import ObjectPath
from sclmkb.generate.captions.summary import percent

SILENCE_S = 1800.0
"""A process of another machine counts as dead when its log has been silent for this long [s]."""
RECENT_CHUNKS = 20
_TAIL_BYTES = 16384  # of a log: more than the lines of RECENT_CHUNKS take
_THREADS = 8
_FIGURES = ("samples", "kept", "failed", "tokens", "seconds")

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process that is at work on the run."""

    host: str
    pid: int
    shards: str
    silent_s: float
    """Time since its log was last written to [s]."""
    tokens_per_s: float
    samples_per_s: float


@dataclass(frozen=True, kw_only=True)
class Status:
    """How far a run is.

    Attributes:
        kind: of the artifact: ``corpus``, ``sdg`` (which ``filter`` makes too), ``csi`` or ``predicted``.
        rows: planned rows.
        states: finished rows by state.
        samples: generated samples, of them ``kept`` by the filter so far and ``failed`` in the engine.
        tokens: generated tokens.
        seconds: work in all, added up over processes [s].
        last_commit: when a shard was committed last [s since 1970], by the clock of who did it; nothing before.
        shards: planned shards, of them ``shards_done`` committed.
        processes: who is at work.
        tokens_per_s: of all processes at work, or of the run so far if none is.
        samples_per_s: the same.
        left_s: estimate of the time left [s]; nothing before the first chunk.
        resubmit: shards that are not committed and that no process works on, as ``--shards`` takes them.
        has_card: whether the run was closed with its dataset card.
    """

    folder: str
    kind: str
    rows: int
    states: dict[str, int]
    samples: int
    kept: int
    failed: int
    tokens: int
    seconds: float
    last_commit: float | None
    shards: int
    shards_done: int
    processes: list[Process]
    tokens_per_s: float
    samples_per_s: float
    left_s: float | None
    resubmit: str
    has_card: bool

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do, not even the dataset card."""
        return self.shards_done == self.shards and self.has_card


def read_status(root: Path) -> Status:
    """Read how far the run in a folder is.

    Raises:
        UserError: if there is none.
    """
    run = Run.look(root, _kind(root))
    shards = run.plan.shards
    sums = _in_threads(lambda shard: _read_shard(run, shard), shards)
    pending = [i for i, part in enumerate(sums) if part["finished"] is None]
    total = {key: sum(part[key] for part in sums) for key in _FIGURES}
    known = dict.fromkeys((*ROW_STATES, *(state for part in sums for state in part["rows"])))
    states = {state: sum(part["rows"].get(state, 0) for part in sums) for state in known}
    last = max((part["finished"] for part in sums if part["finished"]), default=None)
    processes = _processes(root)
    claimed = {number for p in processes for number in parse_ranges(p.shards, len(sums))}
    num_rows, finished = sum(len(shard.row_ids) for shard in shards), sum(states.values())
    seconds = total["seconds"]
    speeds = [sum(getattr(p, name) for p in processes) for name in ("tokens_per_s", "samples_per_s")]
    if not any(speeds) and seconds:
        speeds = [total["tokens"] / seconds, total["samples"] / seconds]
    left = (num_rows - finished) * seconds / finished / max(len(processes), 1) if finished else None
    return Status(
        folder=str(root),
        kind=run.plan.kind,
        rows=num_rows,
        states=states,
        samples=total["samples"],
        kept=total["kept"],
        failed=total["failed"],
        tokens=total["tokens"],
        seconds=round(seconds, 3),
        last_commit=None if last is None else datetime.fromisoformat(last).timestamp(),
        shards=len(sums),
        shards_done=len(sums) - len(pending),
        processes=processes,
        tokens_per_s=round(speeds[0], 1),
        samples_per_s=round(speeds[1], 1),
        left_s=None if left is None else round(left, 1),
        resubmit=format_ranges(set(pending) - claimed),
        has_card=(root / "README.md").exists() and not pending,
    )


def status_lines(status: Status) -> list[str]:
    """Return the status in a few lines for people."""
    finished, kept = sum(status.states.values()), percent(status.kept, status.samples)
    states = ", ".join(f"{count} {state}" for state, count in status.states.items())
    lines = [f"rows       {finished} of {status.rows} ({percent(finished, status.rows)}): {states}"]
    if status.kind == "sdg":
        lines.append(f"samples    {status.samples}: {status.kept} kept ({kept}), {status.failed} failed")
    lines.append(f"shards     {status.shards_done} of {status.shards} done")
    if status.samples and status.seconds:
        lines.append(f"speed      {status.tokens_per_s:.0f} tokens/s, {status.samples_per_s:.1f} captions/s")
    if status.left_s:
        by = f"{len(status.processes)} processes" if len(status.processes) > 1 else "one process"
        lines.append(f"time left  about {timedelta(seconds=round(status.left_s))} with {by}")
    for p in status.processes:
        lines.append(f"at work    {p.host}, process {p.pid}: shards {p.shards}, last heard of {p.silent_s:.0f} s ago")
    if status.resubmit:
        lines.append(f"resubmit   --shards {status.resubmit} (nobody works on these)")
    elif status.shards_done == status.shards:
        lines.append("done" if status.has_card else "resubmit   only the dataset card is missing: run it once more")
    if status.failed:
        again = f"in the end --retry {status.folder} --out NEW asks for them again"
        lines.append(f"failed     {status.failed} samples: {again}")
    return lines


def watch(root: Path, every_s: float) -> Iterator[Status]:
    """Yield the status again and again, until the run is done.

    Args:
        root: folder of the run.
        every_s: time from one to the next [s]; longer where reading it takes more than a tenth of that.

    Raises:
        UserError: if there is no run.
    """
    while True:
        started = time.monotonic()
        yield (status := read_status(root))
        if status.is_done:
            return
        time.sleep(max(every_s, 9 * (time.monotonic() - started)))


def show(looks: Iterable[Status], *, as_json: bool, watching: bool) -> None:
    """Print each look at a run to standard output; while watching, a terminal has the latest one alone.

    Args:
        looks: one, or what :func:`watch` yields.
        as_json: print JSON, while watching one line per look.
        watching: whether more than one will come.
    """
    out = Console(highlight=False, soft_wrap=True)
    if watching and not as_json and out.is_terminal:
        with Live(console=out, auto_refresh=False) as live:
            for status in looks:
                lines = [f"{status.folder}, {time.strftime('%X')}", *status_lines(status)]
                live.update(Text("\n".join(lines)), refresh=True)
        return
    for status in looks:
        if as_json:
            typer.echo(json.dumps(asdict(status), indent=None if watching else 1))
        else:
            typer.echo("\n".join([status.folder, *status_lines(status)]))


def _kind(root: Path) -> str:
    """Return the kind of the artifact, ``sdg`` if that cannot be told."""
    path = root / "plan.json"
    return str(read_json(path).get("kind", "sdg")) if path.exists() else "sdg"


def _opened(path: Path) -> io.BufferedIOBase:
    """Open a file for reading; an object is read whole."""
    return io.BytesIO(path.read_bytes()) if isinstance(path, ObjectPath) else path.open("rb")


def _in_threads(function: Callable[[In], Out], items: Sequence[In]) -> list[Out]:
    """Return what a function makes of each item, in order; neighbours go to one thread together."""
    size = 1 + len(items) // (4 * _THREADS)
    parts = [items[i : i + size] for i in range(0, len(items), size)]
    with ThreadPoolExecutor(_THREADS) as pool:
        return [out for part in pool.map(lambda part: [function(item) for item in part], parts) for out in part]


def _read_shard(run: Run, shard: Shard) -> dict[str, Any]:
    """Add up the figures of a shard; ``rows`` are its finished rows by state, ``finished`` is when it was committed."""
    finished: str | None = None
    try:
        if manifest := run.manifest(shard):
            finished = manifest["finished"]
            parts = [{"seconds": manifest["seconds"] or 0, **manifest["figures"], "rows": manifest["counts"]}]
        else:
            parts = [{"rows": {}}, *run.chunks(shard).figures()]
    except ShardCommittedError:  # since the first look
        return _read_shard(Run(run.root, run.plan), shard)
    sums: dict[str, Any] = {key: sum(part.get(key, 0) for part in parts) for key in _FIGURES}
    known = {state for part in parts for state in part["rows"]}
    sums["rows"] = {state: sum(part["rows"].get(state, 0) for part in parts) for state in known}
    sums["finished"] = finished
    return sums


def _processes(root: Path) -> list[Process]:
    """Return who is at work, by their logs."""
    found = _in_threads(_process, list_folder(root / "logs", "*.jsonl"))
    return [process for process in found if process is not None]


def _process(path: Path) -> Process | None:
    """Return the process that writes a log, if it is still at work."""
    with _opened(path) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        tail = file.read()
        if b'"event": "end"' in tail[tail.rstrip().rfind(b"\n") + 1 :]:
            return None
        file.seek(0)
        start = _event(file.readline())
    if start is None or start["event"] != "start":
        return None
    silent_s = max(0.0, time.time() - modified(path))
    here = start["host"] == socket.gethostname()
    if not (_is_alive(start["pid"]) if here else silent_s < SILENCE_S):
        return None
    events = [event for line in tail.splitlines() if (event := _event(line)) is not None]
    chunks = [event for event in events if event["event"] == "chunk"][-RECENT_CHUNKS:]
    seconds = sum(chunk["seconds"] for chunk in chunks)
    rates = {
        f"{key}_per_s": sum(chunk[key] for chunk in chunks) / seconds if seconds else 0.0
        for key in ("tokens", "samples")
    }
    return Process(host=start["host"], pid=start["pid"], shards=start["shards"], silent_s=round(silent_s, 1), **rates)


def _event(line: bytes) -> dict[str, Any] | None:
    """Return the event of a line of a log; nothing if the line is cut off, at either end."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
