"""What it takes to embed the source captions of a corpus: by one process, and by several that share them.

Each process does what ``sclmkb-gen sdg`` does before its first verdict: it loads the encoder, makes the features that
nobody has made yet, takes the rest, builds the exact index, and asks it for 128 verdicts. Four ways:

1. alone, in memory, nothing written;
2. one process on a run;
3. the given number of processes on another run, all started at once;
4. one more, which comes when all is there.

What is compared is captions embedded and seconds of a core, since processes on few cores wait for each other. Memory
is what a process holds by itself (anonymous pages) beside what it can share with others (pages of files), at the end,
with the same before the features were there taken off.

Run it: python tests/bench/bench_sources.py [--captions N] [--processes N] [--part N] [--folder FOLDER]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from bench_filter import captions
from verdict import sized, verdict

from sclmkb.common.artifacts.plan import Plan, make_shards
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.artifacts.schemas import SDG_ROWS
from sclmkb.generate.captions.source_features import share_features
from sclmkb.generate.filter import index
from sclmkb.generate.filter.encoder import load_text_encoder

OVERHEAD_BOUND, REPEATED_BOUND = 1.1, 1.5


def memory_mb() -> dict[str, float]:
    """Return the memory that is this process's own, and that of files, which others may share [MB]."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(lines[key].split()[0]) / 1e3 for name, key in (("own", "RssAnon"), ("of files", "RssFile"))}


def measure(root: Path, count: int, part: int, how: str) -> None:
    """Do what one process does; print what it took as JSON."""
    index.PART = part
    sources = [source for source, _ in captions(count)]
    identities = [str(i // 2) for i in range(count)]
    encoder, embedded = load_text_encoder("minilm"), 0
    encoder.encode(sources[:64])
    shards = make_shards("train", [], 1)
    run = Run.open(root, Plan(kind="bench", tables={"rows": SDG_ROWS}, settings={}, shards=shards, inputs={}))

    def embed(texts: Sequence[str]) -> torch.Tensor:
        nonlocal embedded
        embedded += len(texts)
        return encoder.encode(texts)

    nothing: Any = lambda *_, **__: None  # noqa: E731
    before, started, began = memory_mb(), time.process_time(), time.perf_counter()
    features: Sequence[index.Floats] = (
        index.embed_in_parts(embed, sources)
        if how == "alone"
        else share_features(run, nothing, lambda *_: argparse.Namespace(advance=nothing), embed, sources)
    )
    search = index.CaptionIndex(features, identities)
    seconds, wall = time.process_time() - started, time.perf_counter() - began
    similarity, margin = search.score(torch.from_numpy(features[0][:128].copy()), range(128))
    after = memory_mb()
    scores = [float(similarity.astype("d").sum()), float(margin.astype("d").sum())]
    held = {name: after[name] - before[name] for name in after}
    print(json.dumps({"embedded": embedded, "seconds": seconds, "wall": wall, "held": held, "scores": scores}))


def main() -> int:
    """Measure, print a line a process and one a bound, and return 1 if one is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=sized(20_000, 256), help="of the corpus")
    parser.add_argument("--processes", type=int, default=2, help="at work at once")
    parser.add_argument("--part", type=int, default=sized(index.PART, 128), help="captions that are embedded together")
    parser.add_argument("--folder", type=Path, help="where a temporary folder is made")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        root, count, part, how = chosen.measure
        measure(Path(root), int(count), int(part), how)
        return 0

    def start(root: Path, how: str) -> subprocess.Popen[str]:
        command = [sys.executable, __file__, "--measure", str(root), str(chosen.captions), str(chosen.part), how]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    found: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(dir=chosen.folder) as home:
        for name, root, how, number in (
            ("alone, in memory", "none", "alone", 1),
            ("one process", "one", "share", 1),
            (f"{chosen.processes} processes", "many", "share", chosen.processes),
            ("one that comes later", "many", "share", 1),
        ):
            processes = [start(Path(home) / root, how) for _ in range(number)]
            found[name] = [json.loads(process.communicate()[0]) for process in processes]
            for one in found[name]:
                held = ", ".join(f"{size:.0f} MB {kind}" for kind, size in one["held"].items())
                print(f"{name}: {one['embedded']} captions embedded, {one['seconds']:.1f} s of a core", end="")
                print(f" in {one['wall']:.1f} s; holds {held}; scores {one['scores']}", flush=True)
    alone, single, many, later = found.values()
    overhead = (single[0]["seconds"] / single[0]["embedded"]) / (alone[0]["seconds"] / alone[0]["embedded"])
    repeated = sum(one["embedded"] for one in many) / chosen.captions
    same = len({tuple(one["scores"]) for one in (*single, *many, *later)} | {tuple(alone[0]["scores"])})
    return verdict(
        [
            ("shared / in memory, seconds of a core a caption", overhead, OVERHEAD_BOUND, overhead <= OVERHEAD_BOUND),
            ("embedded by all / captions", repeated, REPEATED_BOUND, repeated <= REPEATED_BOUND),
            ("embedded by one that comes later", later[0]["embedded"], 0, later[0]["embedded"] == 0),
            ("different scores", same, 1, same == 1),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
