"""Speed of ``sclmkb-gen status`` over many manifests against its bound, and processor time of a run that is done.

1. ``status`` over a run of 10,000 committed shards, 64 more under way with three waves each, and one log a shard, as a
   job array leaves them. Files are as a run writes them, in a temporary folder; the fastest of five looks counts,
   without imports; ``plan.json`` is read as well, the row ids beside it are not.
2. ``sclmkb-gen sdg`` on a run that is done, as cron starts it every night: here (``--executor local``) and, with an
   sbatch and a squeue that do nothing, as ``--executor slurm``; the control engine, so that no model has to be there.
   Processor time (user and system) of the whole process counts, so that other work on the machine does not.

Run it on a quiet machine: python tests/bench/bench_status.py [--shards N] [--rows N]
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
from verdict import sized, verdict

from sclmkb.common.artifacts.plan import Plan, make_row_id, make_shards
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.artifacts.schemas import CAPTIONS, ITEMS
from sclmkb.generate.runs.status import read_status

STATUS_BOUND_S, IDLE_BOUND_S, ROUNDS, UNDER_WAY = 2.0, 5.0, 5, 64
SCRIPTS = {"sbatch": "echo 1", "squeue": "exit 0"}


def write_run(root: Path, num_shards: int, rows: int) -> None:
    """Write plan, manifests, chunks and logs of a run, but no data."""
    ids = [f"{i:020x}" for i in range((num_shards + UNDER_WAY) * rows)]
    shards = make_shards("train", ids, rows)
    Run.open(root, Plan(kind="sdg", tables={}, settings={}, shards=shards, inputs={}))
    for folder in ("manifests", "logs", "work"):
        (root / folder).mkdir()
    figures = {"samples": 2 * rows, "kept": rows, "failed": 0, "tokens": 60 * rows, "seconds": 12.5}
    for number, shard in enumerate(shards):
        done = number < num_shards
        waves = [json.dumps({"time": 0.0, "event": "chunk", "shard": shard.name, **figures}) for _ in range(3)]
        start = {"time": 0.0, "event": "start", "host": "elsewhere", "pid": 1, "shards": str(number)}
        end = [json.dumps({"time": 9.0, "event": "end", "how": "done"})] if done else []
        (root / "logs" / f"20260101T000000Z-node-{number}.jsonl").write_text(
            "\n".join([json.dumps(start), *waves, *end]) + "\n"
        )
        if not done:
            (root / "work" / shard.name).mkdir()
            for i in range(3):
                chunk = {"files": {}, "figures": {**figures, "rows": {"ok": rows // 4}}}
                (root / "work" / shard.name / f"chunk-{i:05d}.json").write_text(json.dumps(chunk, indent=1))
            continue
        files = {f"{table}/{shard.name}-01234567.parquet": {"num_rows": rows, "sha256": "0" * 64} for table in "ab"}
        manifest = {"shard": shard.name, "split": "train", "num_rows": rows, "counts": {"ok": rows}, "figures": figures}
        manifest |= {"files": files, "seconds": 12.5, "finished": "2026-01-01T00:00:00Z"}
        (root / "manifests" / f"{shard.name}.json").write_text(json.dumps(manifest, indent=1) + "\n")


def time_status(root: Path, num_shards: int) -> tuple[float, float]:
    """Return the fastest of some looks by the clock, and the least processor time of one [s]."""
    seconds, processor = [], []
    for _ in range(ROUNDS):
        started, used = time.perf_counter(), time.process_time()
        status = read_status(root)
        seconds.append(time.perf_counter() - started)
        processor.append(time.process_time() - used)
        assert (status.shards_done, len(status.processes)) == (num_shards, UNDER_WAY), "it counts what is there"
    return min(seconds), min(processor)


def write_corpus(root: Path) -> None:
    """Write a corpus of a few captions."""
    names = [f"item-{i}" for i in range(40)]
    shards = make_shards("train", names, len(names))
    run = Run.open(
        root, Plan(kind="corpus", tables={"items": ITEMS, "captions": CAPTIONS}, settings={}, shards=shards, inputs={})
    )
    own = {"split": "train", "caption_index": 0, "wording": "label", "role": "caption"}
    rows = [
        {"row_id": make_row_id("b", "train", n, 0), "identity": n, "group": n, "text": f"a boat, {n}", **own}
        for n in names
    ]
    run.commit_shard(shards[0], {"items": ITEMS.empty_table(), "captions": pa.Table.from_pylist(rows, schema=CAPTIONS)})
    run.finish("Boats", "Boats.")


def time_idle(folder: Path) -> tuple[float, float]:
    """Return the processor time of a run that is done, here and as a submission [s]."""
    write_corpus(folder / "corpus")
    (folder / "bin").mkdir(parents=True)
    for name, text in SCRIPTS.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / "bin" / name).chmod(0o755)
    command = [sys.executable, "-m", "sclmkb.generate.cli", "sdg", "--set", "engine=template"]
    command += ["--corpus", str(folder / "corpus"), "--out", str(folder / "sdg")]
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}

    def call(*more: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*command, *more], check=True, env=environment, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    print(f"sdg on {folder}: makes the run, {call():.1f} s of processor time")
    return min(call() for _ in range(2)), min(call("--executor", "slurm") for _ in range(2))


def main() -> int:
    """Measure; the exit code is 1 if a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=sized(10_000, 20), help="committed shards")
    parser.add_argument("--rows", type=int, default=sized(100, 4), help="rows a shard")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name, "sdg")
        write_run(root, args.shards, args.rows)
        size = (root / "plan.json").stat().st_size / 1e6
        seconds, processor = time_status(root, args.shards)
        print(f"status: {args.shards} manifests, {args.shards + UNDER_WAY} logs, plan.json of {size:.0f} MB:")
        print(f"  {seconds:.2f} s by the clock, {processor:.2f} s of processor time")
        here, submission = time_idle(Path(name, "idle"))
    return verdict(
        [
            ("status, seconds by the clock", seconds, STATUS_BOUND_S, seconds < STATUS_BOUND_S),
            ("idle run here, seconds of processor time", here, IDLE_BOUND_S, here < IDLE_BOUND_S),
            ("idle submission, seconds of processor time", submission, IDLE_BOUND_S, submission < IDLE_BOUND_S),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
