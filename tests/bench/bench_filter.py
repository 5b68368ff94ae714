"""Speed and memory of the hallucination filter against its bounds.

1. The filter (embedding of source and generated captions, FAISS search, rules) against the bare sentence encoder on the
   same texts, and the share of its time that the search takes. Loading is left out on both sides; the two take turns.
2. ``sclmkb-gen filter`` on cached attempts, 10^4 to 10^6 of them, each size in a process of its own: seconds without
   imports, peak memory of the whole process, and the exponent of the cost. Similarities and margins come from the
   attempts, so that nothing is embedded or searched; hashes, rules, thresholds, near copies, rows, card and the
   committed Parquet are all done. Two samples a caption, half of them faithful.

3. The search alone, among many sources: seconds of each kind of index, and how many margins it finds that the exact
   one finds. The features are random, in clusters of twenty (no encoder could make so many in time).

Run it on a quiet machine: python tests/bench/bench_filter.py [--captions N] [--sizes N N ...]
"""

import argparse
import json
import math
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from verdict import sized, verdict

from sclmkb.common.artifacts.plan import Plan, make_row_id, make_shards
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.artifacts.schemas import SDG_ATTEMPTS, SDG_ROWS
from sclmkb.common.seeds import derive_seed
from sclmkb.generate.captions.refilter import RefilterSettings, plan_refilter
from sclmkb.generate.filter.encoder import load_text_encoder
from sclmkb.generate.filter.filter import FilterSettings, HallucinationFilter, Sample, encoder_fingerprint
from sclmkb.generate.filter.index import CaptionIndex, IndexKind, embed_in_parts
from sclmkb.generate.prompts import load_prompt

ENCODER_BOUND, SEARCH_BOUND, MEMORY_BOUND_GB, EXPONENT_BOUND = 0.9, 0.05, 2.0, 1.05
SAMPLES, SHARD_ROWS, WAVE = 2, 8192, 512
WHO = ("woman", "man", "person", "older person", "girl", "boy", "student", "farmer")
DOES = ("walks", "runs", "climbs", "reads", "cooks", "sings", "rows a boat", "carries a ladder")
LOOKS = (
    "in a red coat",
    "with a dark hat",
    "with curly hair",
    "in blue jeans",
    "with a leather bag",
    "in striped socks",
)
WHERE = ("beside a lamp", "to the left", "near two dogs", "without hurry", "on a wooden bridge", "before a large door")


def captions(count: int) -> Iterator[tuple[str, list[str]]]:
    """Yield source captions, each with generated ones: the first says the same, the second does not."""
    draw = random.Random(0)
    for number in range(count):
        who, does, looks, where = (draw.choice(words) for words in (WHO, DOES, LOOKS, WHERE))
        other = draw.choice(LOOKS)
        source = f"a {who} {looks} {does} {where}, scene {number}"
        yield (
            source,
            [f"{where} {does} a {who} {looks}, seen in scene {number}", f"in scene {number} a {who} {other} {does}"],
        )


def time_filter(count: int, rounds: int) -> dict[str, float]:
    """Measure the filter and the bare encoder on ``count`` captions, two thirds of them generated."""
    settings, encoder = FilterSettings(), load_text_encoder("minilm")
    sources, generated = zip(*captions(count // (1 + SAMPLES)), strict=True)
    texts = [text for written in generated for text in written]
    candidates = [
        Sample(source=i, text=text, finish_reason="stop") for i, written in enumerate(generated) for text in written
    ]
    identities = [str(i) for i in range(len(sources))]
    own_texts = load_prompt("rewrite-1").own_texts()
    seconds = {"bare": 0.0, "whole": 0.0, "search": 0.0}

    def timed(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            started = time.perf_counter()
            result = work(*arguments)
            seconds[name] += time.perf_counter() - started
            return result

        return run

    encode = timed("bare", encoder.encode)
    build = timed("whole", lambda: HallucinationFilter(settings, encoder, sources, identities, own_texts))
    HallucinationFilter(settings, encoder, texts[:64], texts[:64], own_texts)  # loads FAISS and the word lists
    for number in range(rounds):
        # Wave by wave, as in sdg, the two by turns: what else the machine does falls on both.
        steps: list[tuple[Callable[[], Any], Callable[[], Any]]] = [(lambda: encode(sources), lambda: None)]
        judge = build()
        judge._index.score = timed("search", judge._index.score)
        for start in range(0, len(texts), WAVE):
            part = slice(start, start + WAVE)
            steps.append((partial(encode, texts[part]), partial(timed("whole", judge.judge), candidates[part])))
        for step, turn in enumerate(steps):
            for work in turn if (step + number) % 2 else reversed(turn):
                work()
    total = rounds * (len(sources) + len(texts))
    return {
        "bare": total / seconds["bare"],
        "whole": total / seconds["whole"],
        "search": seconds["search"] / seconds["whole"],
    }


def time_search(count: int) -> None:
    """Print what each kind of index takes to build and to ask, and how exact it is."""
    draw = torch.Generator().manual_seed(0)
    centres = torch.randn(count // 20 + 1, 384, generator=draw)

    def embed(texts: Sequence[str]) -> torch.Tensor:
        places = torch.tensor([int(text) for text in texts])
        noise = torch.randn(len(texts), 384, generator=torch.Generator().manual_seed(int(places[0])))
        return torch.nn.functional.normalize(centres[places // 20] + 0.7 * noise, dim=-1)

    names = [str(i) for i in range(count)]
    own = list(range(0, count, max(1, count // 2048)))
    queries = embed([names[i] for i in own])
    exact = None
    kinds: tuple[IndexKind, ...] = ("flat", "ivf", "hnsw")
    for kind in kinds:
        started = time.perf_counter()
        index = CaptionIndex(embed_in_parts(embed, names), [str(i // 2) for i in range(count)], kind)
        built = time.perf_counter()
        margin = index.score(queries, own)[1]
        each_ms = 1e3 * (time.perf_counter() - built) / len(own)
        exact = margin if exact is None else exact
        found = float((abs(margin - exact) < 1e-4).mean())
        print(
            f"search among {count} sources, {kind}: {each_ms:.3f} ms a caption, {found:.1%} of the exact margins,"
            f" built in {built - started:.1f} s"
        )


def write_attempts(root: Path, count: int) -> None:
    """Write an SDG artifact with ``count`` attempts, shard by shard."""
    num_rows = count // SAMPLES
    ids = [make_row_id("bench", "train", str(i), 0) for i in range(num_rows)]
    settings = {"prompt": "rewrite-1", "max_attempts": 1, "filter": FilterSettings().model_dump(mode="json")}
    shards = make_shards("train", ids, SHARD_ROWS)
    schemas = {"rows": SDG_ROWS, "attempts": SDG_ATTEMPTS}
    inputs = {"encoder": encoder_fingerprint("minilm")}
    run = Run.open(root, Plan(kind="sdg", tables=schemas, settings=settings, shards=shards, inputs=inputs))
    texts, number = captions(num_rows), 0
    for shard in shards:
        rows, attempts = [], []
        for row_id in shard.row_ids:
            source, written = next(texts)
            rows.append(
                {"row_id": row_id, "identity": f"item-{number // 2}", "split": "train", "source_text": source,
                 "state": "rejected", "num_attempts": 1, "num_samples": SAMPLES, "captions": [], "similarities": [],
                 "error": ""}
            )  # fmt: skip
            attempts += [
                {"row_id": row_id, "split": "train", "attempt": 0, "sample": sample, "retry": 0, "text": text,
                 "similarity": 0.9 - 0.2 * sample, "margin": 0.1, "accepted": False, "reason": "low similarity",
                 "finish_reason": "stop", "num_tokens": 12, "seed": derive_seed(0, row_id, sample)}
                for sample, text in enumerate(written)
            ]  # fmt: skip
            number += 1
        tables = {
            "rows": pa.Table.from_pylist(rows, SDG_ROWS),
            "attempts": pa.Table.from_pylist(attempts, SDG_ATTEMPTS),
        }
        run.commit_shard(shard, tables, counts={"rejected": len(rows)})
    run.finish("Bench", "Bench.")


def measure_refilter(sdg: Path, out: Path) -> None:
    """Filter cached attempts, and print seconds and peak memory as JSON."""

    def no_encoder(name: str, dtype: str) -> None:
        raise AssertionError("nothing must be embedded")

    started = time.perf_counter()
    settings = RefilterSettings.of_run(sdg, overrides=["filter.min_similarity=0.85"])
    artifact = plan_refilter(settings, sdg, out, load_encoder=no_encoder).run_here()  # type: ignore[arg-type]
    seconds = time.perf_counter() - started
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(json.dumps({"seconds": seconds, "peak_gb": peak_gb, "ok": artifact.counts()["ok"]}))


def time_refilter(sizes: Sequence[int]) -> list[dict[str, float]]:
    """Measure each size in a process of its own."""
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        for size in sizes:
            sdg, out = Path(temporary) / f"sdg-{size}", Path(temporary) / f"out-{size}"
            write_attempts(sdg, size)
            command = [sys.executable, __file__, "--measure", str(sdg), str(out)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            found.append(json.loads(done.stdout))
            print(f"{size} attempts: {found[-1]}", file=sys.stderr)
    return found


def main() -> int:
    """Measure, print a line a bound, and return 1 if one is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--captions", type=int, default=sized(6000, 60), help="captions for the comparison with the encoder"
    )
    parser.add_argument("--rounds", type=int, default=sized(3, 1), help="turns of filter and encoder")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=sized([10_000, 100_000, 1_000_000], [100, 200]), help="cached attempts"
    )
    parser.add_argument(
        "--sources", type=int, default=sized(20_000, 200), help="sources for the search alone; 0 leaves it out"
    )
    parser.add_argument("--measure", nargs=2, type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        measure_refilter(*chosen.measure)
        return 0
    bounds: list[tuple[str, float, float, bool]] = []
    rate = time_filter(chosen.captions, chosen.rounds)
    print(f"captions/s: filter {rate['whole']:.0f}, bare encoder {rate['bare']:.0f}")
    ratio = rate["whole"] / rate["bare"]
    bounds.append(("filter / bare encoder", ratio, ENCODER_BOUND, ratio >= ENCODER_BOUND))
    bounds.append(("search, share of the filter's time", rate["search"], SEARCH_BOUND, rate["search"] <= SEARCH_BOUND))
    if chosen.sources:
        time_search(chosen.sources)
    sizes = sorted(chosen.sizes)
    found = time_refilter(sizes)
    for size, one in zip(sizes, found, strict=True):
        print(f"{size} cached captions filtered again: {one['seconds']:.1f} s, peak {one['peak_gb']:.2f} GB")
    peak = found[-1]["peak_gb"]
    bounds.append((f"peak memory at {sizes[-1]} [GB]", peak, MEMORY_BOUND_GB, peak <= MEMORY_BOUND_GB))

    def exponent(first: int, last: int) -> float:
        return math.log(found[last]["seconds"] / found[first]["seconds"]) / math.log(sizes[last] / sizes[first])

    if len(sizes) > 2:
        print(f"cost exponent {sizes[-2]} to {sizes[-1]} alone: {exponent(-2, -1):.3f}")
    if len(sizes) > 1:
        slope = exponent(0, -1)
        bounds.append((f"cost exponent {sizes[0]} to {sizes[-1]}", slope, EXPONENT_BOUND, slope <= EXPONENT_BOUND))
    return verdict(bounds)


if __name__ == "__main__":
    sys.exit(main())
