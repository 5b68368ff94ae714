"""Time and memory of planning ``sclmkb-gen sdg`` over millions of captions, against their bounds.

A corpus of captions is written first, by the artifact contract, five captions an identity; that is not measured. Then,
each in a process of its own that loads what the command loads:

1. planning: the plan is made and frozen (the corpus checked by the sha256 of every file, its ids read, shards,
   hash of the ids, plan.json and the file of ids beside it);
2. joining: the same again, as each task of a job array does with ``--join``: the frozen plan must be found the same;
3. a look: the plan read as ``sclmkb-gen status`` reads it (no bound);
4. with ``--worker``, what a worker holds of the captions, without engine and features (no bound);
5. with ``--manifests N``, instead of all this: a run of N shards of one row each, what committing one takes at the
   beginning and at the end, which are left, and what the last step takes (no bounds).

Seconds are those of the work without imports, the peak is of the whole process.

Run it on a quiet machine: python tests/bench/bench_plan.py [--rows N] [--worker] [--folder FOLDER] [--manifests N]
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
from verdict import sized, verdict

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.plan import Plan, make_shards
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.artifacts.schemas import CAPTIONS, ITEMS
from sclmkb.generate.captions.backend import make_backend
from sclmkb.generate.captions.sdg import Backend, SdgSettings, plan_captions, read_captions
from sclmkb.generate.captions.waves import Worker
from sclmkb.generate.prompts import load_prompt

ROWS, SECONDS_BOUND, MEMORY_BOUND_GB = 10_000_000, 60.0, 2.0
CAPTIONS_EACH, SHARD_IDENTITIES = 5, 8192
WORDS = ("red", "blue", "old", "young", "tall", "small", "woman", "man", "dog", "horse", "walks", "runs", "sings")


def write_corpus(root: Path, rows: int) -> None:
    """Write a corpus with ``rows`` captions in the training split and no pictures."""
    names = [f"identity-{i:09d}" for i in range(-(-rows // CAPTIONS_EACH))]
    shards = make_shards("train", names, SHARD_IDENTITIES)
    run = Run.open(
        root, Plan(kind="corpus", tables={"items": ITEMS, "captions": CAPTIONS}, settings={}, shards=shards, inputs={})
    )
    draw, left = random.Random(0), rows
    texts = pa.array([" ".join(draw.choices(WORDS, k=11)) for _ in range(4096)])
    for shard in shards:
        count = min(left, len(shard.row_ids) * CAPTIONS_EACH)
        left -= count
        places, digits = np.arange(count), draw.randbytes(10 * count).hex()
        owners = pa.array(shard.row_ids).take(places // CAPTIONS_EACH)
        captions = {
            "row_id": [digits[i : i + 20] for i in range(0, 20 * count, 20)],
            "identity": owners,
            "group": owners,
            "split": pa.repeat("train", count),
            "caption_index": (places % CAPTIONS_EACH).astype(np.int32),
            "wording": pa.repeat("label", count),
            "role": pa.repeat("caption", count),
            "text": texts.take(np.frombuffer(draw.randbytes(2 * count), np.uint16) % len(texts)),
        }
        tables = {"items": ITEMS.empty_table(), "captions": pa.table(captions, CAPTIONS)}
        run.commit_shard(shard, tables, counts={"ok": len(shard.row_ids)})
    run.finish("Bench", "Bench.")


def measure(what: str, corpus: Path, out: Path) -> None:
    """Do one thing; print seconds, peak memory, rows and shards as JSON."""
    settings = SdgSettings(engine="template")  # the only one whose model nobody has to fetch
    started, rows, num_shards = time.perf_counter(), 0, 0
    if what == "worker":
        nothing: Any = lambda *_: None  # noqa: E731
        backend = Backend(prompt=load_prompt(settings.prompt), engine=nothing, filter=nothing, inputs={})
        captions = read_captions(Artifact.open(corpus, "corpus"), settings.splits)
        worker = Worker(settings, nothing, captions, backend, SimpleNamespace(beside=nothing))  # type: ignore[arg-type]
        rows = len(worker.captions)
    else:
        is_look = what == "look"
        run = (
            Run.look(out, "sdg")
            if is_look
            else plan_captions(settings, corpus, out, make_backend(settings), join=what == "join").run
        )
        rows, num_shards = sum(len(shard.row_ids) for shard in run.plan.shards), len(run.plan.shards)
    seconds, peak = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    found = {"seconds": seconds, "cpu_s": time.process_time(), "peak_gb": peak, "rows": rows, "shards": num_shards}
    print(json.dumps(found))


def measure_manifests(root: Path, count: int) -> None:
    """Commit so many shards of one row each, and print what that and looking at them takes of a core."""
    schema = pa.schema([("row_id", pa.string())])
    shards = make_shards("train", [f"row-{i}" for i in range(count)], 1)
    run = Run.open(root, Plan(kind="bench", tables={"rows": schema}, settings={}, shards=shards, inputs={}))
    seconds = []
    for shard in shards:
        started = time.process_time()
        run.commit_shard(shard, {"rows": pa.table({"row_id": list(shard.row_ids)}, schema)}, counts={"ok": 1})
        seconds.append(time.process_time() - started)
    few = max(1, count // 20)
    print(f"a commit [ms of a core], median: {1e3 * np.median(seconds[:few]):.1f} at the beginning", end="")
    print(f", {1e3 * np.median(seconds[-few:]):.1f} when {count} are there")
    sizes = [path.stat().st_size for path in (root / "manifests").glob("*.json")]
    print(f"a manifest: {np.mean(sizes):.0f} bytes")
    for name, work in (("which shards are left", run.pending), ("the last step", lambda: run.finish("Bench", ""))):
        started = time.process_time()
        work()
        print(f"{name}: {time.process_time() - started:.2f} s of a core")


def main() -> int:
    """Measure, print a line a bound, and return 1 if one is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=sized(ROWS, 10_000), help="captions of the corpus")
    parser.add_argument("--worker", action="store_true", help="also load all captions, as a worker does")
    parser.add_argument("--folder", type=Path, help="where a temporary folder is made")
    parser.add_argument("--manifests", type=int, help="only measure a run of so many shards")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        what, corpus, out = chosen.measure
        measure(what, Path(corpus), Path(out))
        return 0
    bounds: list[tuple[str, float, float, bool]] = []
    with tempfile.TemporaryDirectory(dir=chosen.folder) as home:
        corpus, out = Path(home) / "corpus", Path(home) / "sdg"
        if chosen.manifests:
            measure_manifests(out, chosen.manifests)
            return 0
        started = time.perf_counter()
        write_corpus(corpus, chosen.rows)
        print(f"corpus: {chosen.rows} captions in {time.perf_counter() - started:.0f} s", flush=True)
        parts = [("plan", "planning"), ("join", "joining"), ("look", "a look"), ("worker", "a worker's captions")]
        for what, name in parts if chosen.worker else parts[:-1]:
            command = [sys.executable, __file__, "--measure", what, str(corpus), str(out)]
            found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
            assert found["rows"] == chosen.rows
            seconds, peak = found["seconds"], found["peak_gb"]
            print(f"{name}: {seconds:.1f} s, {found['cpu_s']:.1f} s of a core with imports", end="")
            print(f", peak {peak:.2f} GB, {found['shards']} shards", flush=True)
            if what in ("plan", "join"):
                bounds.append((f"{name} {chosen.rows} rows [s]", seconds, SECONDS_BOUND, seconds <= SECONDS_BOUND))
                bounds.append((f"{name}, peak memory [GB]", peak, MEMORY_BOUND_GB, peak <= MEMORY_BOUND_GB))
        for path in sorted(out.glob("plan*")):
            print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")
    return verdict(bounds)


if __name__ == "__main__":
    sys.exit(main())
