"""What the link is held to in speed and memory, on sizes of the demo: 16×16 antennas, 4 streams. One run prints:

- training: a step with the link over one of the same model without it (``channel: none``), with generated captions in
  the mixed fusion and without any; turns in alternation;
- sweep: what ``sclmkb-eval run`` takes for a checkpoint at 8 SNRs with 2 receivers, over one SNR and receiver; loading,
  gallery and decomposition are in both, while captions' embeddings and decoded pictures come from their caches;
- batches: LMMSE of a batch over a loop in NumPy, sample by sample; and the link of a sweep (channels decomposed once a
  drop, then transmission and both receivers at every SNR) over a loop that treats every transmission by itself, with
  an SVD each. SVD alone, of as many channels, is printed without a bound: LAPACK does it in both;
- memory: by how much more the peak of a training run and of its evaluation is for ten times the pictures, decoding
  included. Peak of memory of the process's own; pages of mapped files, which the system takes back when it needs them,
  are printed beside it.

Weights do not change speed, so nothing is trained for long. Pictures are noise, channels Rayleigh. Run it on a quiet
machine.
"""

import argparse
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from verdict import sized, verdict

from sclmkb.common.artifacts import schemas
from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.plan import Plan, make_row_id, make_shards
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.console import console, limit_threads
from sclmkb.common.link import mimo
from sclmkb.common.link.fading import FadingSettings, draw_channels
from sclmkb.common.link.link import RECEIVERS, Noise, QueryLink
from sclmkb.common.link.sources import LinkCsi, load_link_csi
from sclmkb.common.precision import has_fast_bfloat16
from sclmkb.common.seeds import make_generator
from sclmkb.common.tasks.retrieval_corpus import load_retrieval_split
from sclmkb.common.tasks.trained import JsccSettings, TrainedSystem
from sclmkb.evaluate.measure.settings import RunInputs, RunSettings
from sclmkb.evaluate.measure.sweeps import Bench
from sclmkb.train.engine.devices import start_accelerator
from sclmkb.train.semantic.data import TrainingData, index_generated
from sclmkb.train.semantic.fit import train_jscc
from sclmkb.train.semantic.inputs import JsccInputs
from sclmkb.train.semantic.texts import Texts
from sclmkb.train.semantic.trainer import JsccTraining
from sclmkb.train.semantic.validation import Validation

STEP_BOUND = 1.15
SWEEP_BOUND = 2.0
BATCH_BOUND = 10.0
MEMORY_BOUND_GB = 0.1
"""For 9,000 more pictures, which would take 0.11 in memory; captions and their embeddings are not on disk."""
SNRS_DB = tuple(float(snr) for snr in range(-15, 25, 5))
STREAMS, USES, ANTENNAS = 4, 16, 16
SHARD, PICTURES_EACH = 100, 4
COLORS = ["red", "green", "blue", "white", "black", "brown", "pink", "grey", "yellow", "violet"]
PEOPLE = ["woman", "man", "child", "nurse", "judge", "pilot", "farmer", "singer", "cook", "guard"]


def write_corpus(root: Path, **sizes: int) -> Path:
    """Write a corpus of noise with so many pictures in each split: four an identity, two captions an identity."""
    shards = [
        shard
        for split, count in sizes.items()
        for shard in make_shards(split, [f"{split}-{i}" for i in range(count)], SHARD)
    ]
    tables = {"items": schemas.ITEMS, "captions": schemas.CAPTIONS}
    run = Run.open(
        root,
        Plan(kind="corpus", tables=tables, settings={}, shards=shards, inputs={}),
    )
    for seed, shard in enumerate(shards):
        draw = np.random.default_rng(seed)
        items, captions = [], []
        for item_id in shard.row_ids:
            number = int(item_id.rpartition("-")[2])
            identity = f"{shard.split}-{number // PICTURES_EACH}"
            common = {"identity": identity, "group": identity, "split": shard.split}
            file = io.BytesIO()
            Image.fromarray(draw.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file, "PNG")
            media = {"bytes": file.getvalue(), "path": f"{item_id}.png"}
            items.append({**common, "item_id": item_id, "source": "noise", "modality": "pictures", "media": media})
            for index, wording in enumerate(("label", "sentence")[: 2 * (number % PICTURES_EACH == 0)]):
                caption = {"row_id": make_row_id("bench", shard.split, identity, index), "caption_index": index}
                caption |= {"wording": wording, "role": "caption"}
                captions.append({**common, **caption, "text": describe(number, wording)})
        rows = {
            "items": pa.Table.from_pylist(items, schema=schemas.ITEMS),
            "captions": pa.Table.from_pylist(captions, schema=schemas.CAPTIONS),
        }
        run.commit_shard(shard, rows, counts={"ok": len(items)})
    run.finish("Bench", "Noise.")
    return root


def describe(number: int, wording: str) -> str:
    """Return a caption of an identity."""
    one, two, who = (COLORS[number // 4 % 10], COLORS[number // 40 % 10], PEOPLE[number // 400 % 10])
    return (
        f"{who} {one} coat {two} hat {number}"
        if wording == "label"
        else f"A {who} in {one} with a {two} hat, {number}."
    )


def settings_for(channel: str, **fields: Any) -> JsccSettings:
    """Return settings of a run of the demo over a drawn channel, or over none."""
    own = {"link": {"channel": channel}, "csi_source": "stale" if channel != "none" else "perfect"} | fields
    resolved = JsccSettings.resolve(presets="sclmkb.train", section="jscc", preset="demo")
    return JsccSettings.model_validate(resolved.model_dump() | own)


def make_task(corpus: Artifact, settings: JsccSettings, generated_each: int) -> JsccTraining:
    """Return a run in memory, with so many generated captions a caption."""
    form, streams = settings.model.media.form(), settings.model.num_streams
    train = load_retrieval_split(corpus, "train", form)
    generated = [[f"{text} once more, {i}" for i in range(generated_each)] for text in train.texts]
    flat, places = index_generated(generated)
    data = TrainingData(split=train, generated_of=places, seed=settings.seed)
    accelerator = start_accelerator(settings.precision, cpu_bfloat16=has_fast_bfloat16())
    csi = load_link_csi(None, None, "train", settings.csi_source, streams, settings.link)
    validation = Validation(settings, train, csi, accelerator)
    return JsccTraining(settings, data, Texts(settings.text, train.texts, flat), csi, validation, accelerator)


def alternate(rounds: int, **jobs: Callable[[], object]) -> dict[str, float]:
    """Return the median seconds of each job, turns in alternation; the first turn warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(rounds + 1):
        for name, job in jobs.items():
            started = time.perf_counter()
            job()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def steps_ratio(corpus: Artifact, generated_each: int, args: argparse.Namespace) -> float:
    """Return the time of a training step with the link over that of one without."""
    sizes = {"captions_per_step": args.captions, "media_per_step": args.captions // 3}
    tasks = {c: make_task(corpus, settings_for(c, **sizes), generated_each) for c in ("rayleigh", "none")}
    numbers = {channel: iter(range(10**6)) for channel in tasks}
    seconds = alternate(
        args.steps, **{c: lambda c=c, task=task: task.train_step(next(numbers[c])) for c, task in tasks.items()}
    )
    listed = ", ".join(f"{name} {1e3 * value:.1f} ms" for name, value in seconds.items())
    print(f"training step, {generated_each} generated captions a caption: {listed}")
    return seconds["rayleigh"] / seconds["none"]


def train_and_save(corpus: Path, root: Path) -> Path:
    """Train for two steps and return the checkpoint's folder."""
    small = {"num_steps": 2, "captions_per_step": 24, "media_per_step": 12, "num_validations": 1, "with_sdg": False}
    return train_jscc(settings_for("rayleigh", **small), JsccInputs(corpus=corpus), root / "jscc" / "bench" / "seed-0")


def measure(corpus: Path, checkpoint: Path, snrs_db: tuple[float, ...], receivers: tuple[Any, ...]) -> None:
    """Do what ``sclmkb-eval run`` does for one checkpoint, from loading on."""
    bench = Bench(
        RunSettings(snrs_db=snrs_db, receivers=receivers),
        RunInputs(checkpoints=checkpoint.parent, corpus=corpus),
        Artifact.open(corpus, "corpus"),
    )
    list(bench.measure(TrainedSystem.load(checkpoint), list(bench.parts), lambda: None))


def sweep_ratio(corpus: Path, checkpoint: Path, args: argparse.Namespace) -> float:
    """Return the time of a sweep over that of one SNR and receiver."""
    seconds = alternate(
        args.rounds,
        sweep=lambda: measure(corpus, checkpoint, SNRS_DB, ("literal", "dmrs")),
        once=lambda: measure(corpus, checkpoint, SNRS_DB[:1], ("dmrs",)),
    )
    print(
        f"evaluation: {len(SNRS_DB)} SNRs and 2 receivers {seconds['sweep']:.2f} s, one of each {seconds['once']:.2f} s"
    )
    return seconds["sweep"] / seconds["once"]


def loop_lmmse(effective: np.ndarray, y: np.ndarray, noise: float) -> None:
    """Detect sample by sample, as :func:`mimo.detect_dmrs`."""
    eye = np.eye(STREAMS, dtype=np.complex64)
    for e, received in zip(effective, y, strict=True):
        gram = e.conj().T @ e + noise * eye
        np.linalg.solve(gram, e.conj().T @ received)
        np.clip(1 / np.clip(noise * np.linalg.inv(gram).diagonal().real, 1e-12, None) - 1, 1e-5, 1e8)


def loop_link(h: np.ndarray, f: np.ndarray, draw: np.random.Generator) -> None:
    """Send each sample at every SNR to both receivers, each transmission with an SVD of its own."""

    def noise(*size: int) -> np.ndarray:
        return ((draw.standard_normal(size) + 1j * draw.standard_normal(size)) / 2**0.5).astype(np.complex64)

    for snr_db in SNRS_DB:
        power = np.float32(10 ** (-snr_db / 10))
        for channel, sent in zip(h, f, strict=True):
            for receiver in ("literal", "dmrs"):
                u, s, vh = np.linalg.svd(channel, full_matrices=False)
                v = vh[:STREAMS].conj().T
                y = channel @ (v @ sent) + power**0.5 * noise(ANTENNAS, USES)
                if receiver == "literal":
                    gain = s[:STREAMS] / (s[:STREAMS] ** 2 + STREAMS * power)
                    gain[:, None] * (u[:, :STREAMS].conj().T @ y)
                else:
                    effective = channel @ v + power**0.5 * noise(ANTENNAS, STREAMS)
                    loop_lmmse(effective[None], y[None], STREAMS * 2 * power)


def batch_link(h: torch.Tensor, drop: torch.Tensor, f: torch.Tensor, draw: torch.Generator) -> None:
    """Do the same for batches: decompose each drop once, then every SNR and both receivers."""
    first = LinkCsi.build("perfect", STREAMS, h, h).unallocated(drop, torch.zeros_like(drop))
    queries = QueryLink(first=first.precoded(), noise=Noise.draw(first, USES, draw), pilot_boost_db=0.0)
    for snr_db in SNRS_DB:
        for _ in queries.convey(f, queries.at(snr_db), RECEIVERS):
            pass


def batch_ratios(args: argparse.Namespace) -> dict[str, float]:
    """Return how many times faster batches are than loops in NumPy, the loops timed on a part of the samples."""
    num, part = args.samples, max(args.samples // 10, 1)
    draw = make_generator(0, "bench")
    sizes = FadingSettings(num_drops=args.drops, num_rx=ANTENNAS, num_tx=ANTENNAS)
    h = draw_channels("rayleigh", sizes, STREAMS, 1, draw)
    drop = torch.randint(args.drops, (num,), generator=draw)
    each = h[drop, 0]
    f = mimo.normalise_symbols(torch.randn(num, STREAMS, USES, dtype=torch.complex64, generator=draw))
    effective = each @ mimo.leading_beams(each, STREAMS).v
    y, snr_db = effective @ f, torch.full((num,), 10.0)
    loops = np.random.default_rng(0)
    seconds = alternate(
        args.rounds,
        lmmse=lambda: mimo.detect_dmrs(y, effective, snr_db, snr_db),
        lmmse_loop=lambda: loop_lmmse(effective[:part].numpy(), y[:part].numpy(), 0.8),
        svd=lambda: mimo.leading_beams(each, STREAMS),
        svd_loop=lambda: [np.linalg.svd(one, full_matrices=False) for one in each[:part].numpy()],
        link=lambda: batch_link(h, drop, f, draw),
        link_loop=lambda: loop_link(each[:part].numpy(), f[:part].numpy(), loops),
    )
    ratios = {}
    for name in ("lmmse", "svd", "link"):
        batch, loop = seconds[name] / num, seconds[f"{name}_loop"] / part
        print(
            f"{name}: batch {1e6 * batch:.1f} µs a sample, loop in NumPy {1e6 * loop:.1f} µs: {loop / batch:.1f} times"
        )
        ratios[name] = loop / batch
    return ratios


class PeakMemory:
    """Watches the memory that the process owns, without pages of files [GB]."""

    def __enter__(self) -> "PeakMemory":
        self.peak_gb = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            status = Path("/proc/self/status").read_text()
            kilobytes = int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1])
            self.peak_gb = max(self.peak_gb, kilobytes * 1024 / 1e9)


def peak_memory(count: int, args: argparse.Namespace) -> float:
    """Return the peak memory [GB] of training and evaluating on ``count`` pictures in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(Path(folder) / "corpus", train=count, val=count // 5, test=count)
        command = [sys.executable, __file__, "--measure", folder, "--threads", str(args.threads)]
        environment = os.environ | {"SCLMKB_CACHE": str(Path(folder) / "cache")}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise RuntimeError(done.stderr)
    found = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{count} pictures: {found['seconds']:.0f} s, peak {found['peak_gb']:.3f} GB of its own,"
        f" {found['with_files_gb']:.3f} GB with pages of files"
    )
    return float(found["peak_gb"])


def measure_memory(folder: Path) -> None:
    """Train and evaluate on the corpus in a folder, and print what it took."""
    started = time.perf_counter()
    with PeakMemory() as memory:
        checkpoint = train_and_save(folder / "corpus", folder)
        measure(folder / "corpus", checkpoint, SNRS_DB[:1], ("literal", "dmrs"))
    with_files_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "peak_gb": memory.peak_gb, "with_files_gb": with_files_gb}))


def main() -> int:
    """Measure, print a line a bound, and return 1 if one is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--captions", type=int, default=sized(768, 12), help="of a training step; a third has a picture"
    )
    parser.add_argument("--steps", type=int, default=sized(15, 1), help="training steps of each kind")
    parser.add_argument("--pictures", type=int, default=sized(2000, 40), help="of the training and of the test split")
    parser.add_argument("--samples", type=int, default=sized(2000, 20), help="transmissions of a batch")
    parser.add_argument("--drops", type=int, default=sized(1000, 20), help="channels that they share")
    parser.add_argument("--rounds", type=int, default=sized(3, 1), help="turns of each measurement")
    parser.add_argument(
        "--sizes", type=int, nargs=2, default=sized([1_000, 10_000], [40, 80]), help="pictures, for the memory"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    limit_threads(args.threads)
    console.quiet = True
    if args.measure:
        measure_memory(args.measure)
        return 0
    batches = batch_ratios(args)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SCLMKB_CACHE"] = str(Path(folder) / "cache")
        root = write_corpus(Path(folder) / "corpus", train=args.pictures, val=200, test=args.pictures)
        opened = Artifact.open(root, "corpus")
        plain, mixed = (steps_ratio(opened, count, args) for count in (0, 2))
        sweep = sweep_ratio(root, train_and_save(root, Path(folder)), args)
    few, many = (peak_memory(size, args) for size in args.sizes)
    bounds = [
        ("training step with link / without", plain, STEP_BOUND, plain <= STEP_BOUND),
        ("the same with generated captions, mixed", mixed, STEP_BOUND, mixed <= STEP_BOUND),
        (f"{len(SNRS_DB)} SNRs and 2 receivers / one of each", sweep, SWEEP_BOUND, sweep <= SWEEP_BOUND),
        ("LMMSE, loop in NumPy / batch", batches["lmmse"], BATCH_BOUND, batches["lmmse"] >= BATCH_BOUND),
        ("link of a sweep, SVD and detection, loop in NumPy / batch", batches["link"], BATCH_BOUND,
         batches["link"] >= BATCH_BOUND),
        (f"peak memory, {args.sizes[1]} less {args.sizes[0]} pictures [GB]", many - few, MEMORY_BOUND_GB,
         many - few <= MEMORY_BOUND_GB),
    ]  # fmt: skip
    return verdict(bounds)


if __name__ == "__main__":
    sys.exit(main())
