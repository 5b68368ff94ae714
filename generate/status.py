"""``sclmkb-gen status``: how far a run of ``sclmkb-gen sdg`` is, also while it goes on."""

import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from sclmkb.common.artifacts import Run, Shard, ShardCommittedError
from sclmkb.common.files import list_folder, modified
from sclmkb.common.plans import format_ranges, parse_ranges
from sclmkb.common.schemas import ROW_STATES
from sclmkb.generate.summary import share

SILENCE_S = 1800.0
"""A process of another machine counts as dead when its log has been silent for so long [s]."""
RECENT_CHUNKS = 20


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
        rows: planned rows.
        states: finished rows by state.
        samples: generated samples, of them ``kept`` by the filter so far and ``failed`` in the engine.
        tokens: generated tokens.
        shards: planned shards, of them ``shards_done`` committed.
        processes: who is at work.
        tokens_per_s: of all who are at work, or of the run so far when nobody is.
        samples_per_s: the same.
        left_s: estimate of the time left [s]; nothing before the first chunk.
        resubmit: shards that are not committed and that nobody is at work on, as ``--shards`` takes them.
        has_card: whether the run was closed with its dataset card.
    """

    folder: str
    rows: int
    states: dict[str, int]
    samples: int
    kept: int
    failed: int
    tokens: int
    shards: int
    shards_done: int
    processes: list[Process]
    tokens_per_s: float
    samples_per_s: float
    left_s: float | None
    resubmit: str
    has_card: bool

    def to_json(self) -> str:
        """Return all of it as JSON."""
        return json.dumps(asdict(self), indent=1)


def read_status(root: Path) -> Status:
    """Read how far the run in a folder is.

    Raises:
        UserError: if there is none.
    """
    run = Run.look(root, "sdg")
    pending = [i for i, shard in enumerate(run.plan.shards) if not run.is_committed(shard)]
    sums = [_read_shard(run, shard) for shard in run.plan.shards]
    total = {key: sum(s[key] for s in sums) for key in ("samples", "kept", "failed", "tokens", "seconds")}
    states = {state: sum(s["rows"].get(state, 0) for s in sums) for state in ROW_STATES}
    processes = _processes(root)
    claimed = {number for p in processes for number in parse_ranges(p.shards, len(sums))}
    num_rows, finished = sum(len(shard.row_ids) for shard in run.plan.shards), sum(states.values())
    seconds = total["seconds"]
    speeds = [sum(getattr(p, name) for p in processes) for name in ("tokens_per_s", "samples_per_s")]
    if not any(speeds) and seconds:
        speeds = [total["tokens"] / seconds, total["samples"] / seconds]
    left = (num_rows - finished) * seconds / finished / max(len(processes), 1) if finished else None
    return Status(
        folder=str(root),
        rows=num_rows,
        states=states,
        samples=total["samples"],
        kept=total["kept"],
        failed=total["failed"],
        tokens=total["tokens"],
        shards=len(sums),
        shards_done=len(sums) - len(pending),
        processes=processes,
        tokens_per_s=round(speeds[0], 1),
        samples_per_s=round(speeds[1], 1),
        left_s=None if left is None else round(left, 1),
        resubmit=format_ranges(set(pending) - claimed),
        has_card=(root / "README.md").exists() and not pending,
    )


def describe(status: Status) -> list[str]:
    """Return the status in a few lines for people."""
    finished, kept = sum(status.states.values()), share(status.kept, status.samples)
    states = ", ".join(f"{count} {state}" for state, count in status.states.items())
    lines = [
        f"rows       {finished} of {status.rows} ({share(finished, status.rows)}): {states}",
        f"samples    {status.samples}: {status.kept} kept ({kept}), {status.failed} failed",
        f"shards     {status.shards_done} of {status.shards} done",
    ]
    if status.samples:
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
        lines.append(f"failed     {status.failed} samples: run with --retry-failed to ask for them again")
    return lines


def _read_shard(run: Run, shard: Shard) -> dict[str, Any]:
    """Add up the figures of a shard; ``rows`` are its finished rows by state."""
    try:
        if manifest := run.manifest(shard):
            parts = [{"rows": manifest["counts"], **manifest["figures"]}]
        else:
            earlier, chunks = run.figures(shard)
            parts = [{"rows": run.counts_before_retry(shard), **earlier}, *chunks]
    except ShardCommittedError:  # since the first look
        return _read_shard(Run(run.root, run.plan), shard)
    keys = ("samples", "kept", "failed", "tokens", "seconds")
    sums: dict[str, Any] = {key: sum(part.get(key, 0) for part in parts) for key in keys}
    sums["rows"] = {state: sum(part["rows"].get(state, 0) for part in parts) for state in ROW_STATES}
    return sums


def _processes(root: Path) -> list[Process]:
    """Return who is at work, by their logs."""
    found = []
    for path in list_folder(root / "logs", "*.jsonl"):
        events = _read_log(path)
        if not events or events[0]["event"] != "start" or events[-1]["event"] == "end":
            continue
        start, silent_s = events[0], max(0.0, time.time() - modified(path))
        here = start["host"] == socket.gethostname()
        if not (_is_alive(start["pid"]) if here else silent_s < SILENCE_S):
            continue
        chunks = [event for event in events if event["event"] == "chunk"][-RECENT_CHUNKS:]
        seconds = sum(chunk["seconds"] for chunk in chunks)
        rates = {
            f"{key}_per_s": sum(chunk[key] for chunk in chunks) / seconds if seconds else 0.0
            for key in ("tokens", "samples")
        }
        found.append(
            Process(host=start["host"], pid=start["pid"], shards=start["shards"], silent_s=round(silent_s, 1), **rates)
        )
    return found


def _read_log(path: Path) -> list[dict[str, Any]]:
    events = []
    for line in path.read_text("utf-8", errors="replace").splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:  # the last line may be half written
            break
    return events


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
