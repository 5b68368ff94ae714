"""What CDG is held to in speed and memory, on the sizes of the demo: 16×16 antennas, 16 → 4 samples. One run prints:

- CDG / LLM4CP: predicted sequences a second of ``sclmkb-gen cdg`` with one and the other, from loading to
  the committed artifact; same CSI, threads and batch, turns in alternation;
- CDG / LLM4CP on whole matrices (``sample=matrix``, one series a drop instead of one a receive antenna), AR(8) and
  eigen-beam LMMSE: the same command, no bound;
- the same for the prediction alone, without loading and files (no bound);
- memory: by how much more the peak of ``sclmkb-gen cdg`` is for ten times the sequences;
- training: seconds of ``sclmkb-train cdg --preset demo``, from its statistics, validations and a few of its steps.

Weights do not change speed, so the predictors are not trained. The channels are sums of a few paths. Run it on a quiet
machine.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from verdict import sized, verdict

from sclmkb.common.artifacts.plan import Plan, Shard, make_shards
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.artifacts.schemas import csi_schema
from sclmkb.common.console import console, limit_threads
from sclmkb.common.csi.sets import CsiSet, CsiShape, csi_to_table
from sclmkb.common.csi.tensors import normalise_power
from sclmkb.common.models.csi.ar import AutoRegression
from sclmkb.common.models.csi.base import CsiPredictor, PredictorSettings, predict_in_batches
from sclmkb.common.models.csi.cdg.settings import CdgSettings
from sclmkb.common.models.csi.llm4cp import Llm4cpSettings
from sclmkb.common.models.csi.lmmse import LmmseSettings
from sclmkb.common.models.csi.zoo import build_predictor, load_predictor, save_predictor
from sclmkb.common.seeds import make_generator
from sclmkb.generate.csi.predict import PredictSettings, plan_predicted
from sclmkb.train.engine.checkpoint import trained_tensors
from sclmkb.train.engine.devices import start_accelerator
from sclmkb.train.predictor.data import load_training_data
from sclmkb.train.predictor.fit import CsiTrainSettings
from sclmkb.train.predictor.trainer import CsiTrainer

SPEED_BOUND = 3.0
MEMORY_BOUND_GB = 0.1
TRAINING_BOUND_MIN = 30.0
SHAPE = CsiShape(num_history=16, num_future=4, num_rx=16, num_tx=16)
SHARD = 100


def channels(count: int, seed: int) -> torch.Tensor:
    """Return sums of six paths with Doppler, ``[count, T + P, Nr, Nt]``, histories of unit power."""
    generator = make_generator(seed, "bench")
    samples, paths = SHAPE.num_history + SHAPE.num_future, 6
    receive, transmit = (
        torch.randn(count, paths, n, dtype=torch.complex64, generator=generator) for n in (SHAPE.num_rx, SHAPE.num_tx)
    )
    doppler = 0.3 * torch.cos(2 * torch.pi * torch.rand(count, 1, paths, generator=generator))
    gains = (0.6 ** torch.arange(paths)).expand(count, samples, -1)
    turn = torch.polar(gains.contiguous(), doppler * torch.arange(samples)[:, None])
    return normalise_power(torch.einsum("btl,bli,blj->btij", turn, receive, transmit), SHAPE.num_history)[0]


def drops(count: int, seed: int, name: str = "test") -> CsiSet:
    """Return drops at a pilot SNR of 15 dB."""
    h = channels(count, seed)
    clean, future = h[:, : SHAPE.num_history].clone(), h[:, SHAPE.num_history :].clone()
    noise = torch.randn(clean.shape, dtype=torch.complex64, generator=make_generator(seed, "bench noise"))
    nowhere = torch.full((count,), torch.nan)
    return CsiSet(
        drop_ids=[f"{name}-{seed}-{i}" for i in range(count)],
        scenarios=["paths"] * count,
        users=[""] * count,
        num_subcarriers=1,
        history=clean + 10 ** (-15 / 20) * noise,
        clean_history=clean,
        future=future,
        speed_kmh=torch.full((count,), 30.0),
        pilot_snr_db=torch.full((count,), 15.0),
        carrier_hz=torch.full((count,), 3.5e9, dtype=torch.float64),
        sample_period_s=torch.full((count,), 5e-4, dtype=torch.float64),
        x_m=nowhere,
        y_m=nowhere,
    )


def write_csi(root: Path, **sizes: int) -> Path:
    """Write a CSI artifact with so many drops in each split, shard by shard."""
    shards: list[Shard] = []
    for split, count in sizes.items():
        shards += make_shards(split, [f"{split}-{i}" for i in range(count)], SHARD)
    schema = csi_schema(SHAPE.num_history, SHAPE.num_future, SHAPE.num_rx, SHAPE.num_tx)
    run = Run.open(root, Plan(kind="csi", tables={"csi": schema}, settings={}, shards=shards, inputs={}))
    for seed, shard in enumerate(shards):
        table = csi_to_table(drops(len(shard.row_ids), seed, shard.split), shard.split)
        run.commit_shard(shard, {"csi": table}, counts={"ok": len(shard.row_ids)})
    run.finish("Bench", "Bench.")
    return root


def write_checkpoints(root: Path, training: CsiTrainSettings) -> dict[str, Path]:
    """Write predictors that are not fitted, by name."""
    layers = sized(Llm4cpSettings().num_layers, 1)
    kinds: dict[str, PredictorSettings] = {
        "cdg": training.model,
        "llm4cp": Llm4cpSettings(num_layers=layers),
        "llm4cp-matrix": Llm4cpSettings(sample="matrix", num_layers=layers),
        "lmmse": LmmseSettings(),
    }
    assert isinstance(training.model, CdgSettings)
    for name, settings in kinds.items():
        model = build_predictor(settings, SHAPE, 0)
        fields = {"model": settings.model_dump(mode="json")}
        save_predictor(root / name, model, seed=0, settings=fields, tensors=trained_tensors(model), info={})
    return {name: root / name for name in kinds}


def predict(csi: Path, checkpoint: Path | None, out: Path, batch: int, threads: int) -> float:
    """Run what ``sclmkb-gen cdg`` runs, and return its seconds."""
    settings = PredictSettings(predictor="checkpoint" if checkpoint else "ar", batch_size=batch, threads=threads)
    console.quiet = True
    started = time.perf_counter()
    plan_predicted(settings, csi, checkpoint, out).run_here()
    console.quiet = False
    return time.perf_counter() - started


def time_commands(csi: Path, count: int, checkpoints: dict[str, Path], args: argparse.Namespace) -> dict[str, float]:
    """Return sequences a second of the whole command, loading included, median over turns in alternation."""
    seconds: dict[str, list[float]] = {}
    for turn in range(args.rounds):
        for name, checkpoint in [*checkpoints.items(), ("ar", None)]:
            with tempfile.TemporaryDirectory() as out:
                taken = predict(csi, checkpoint, Path(out) / "predicted", args.batch, args.threads)
            seconds.setdefault(name, []).append(taken)
            print(f"turn {turn + 1}, {name}: {count} sequences in {taken:.1f} s", file=sys.stderr)
    return {name: count / statistics.median(values) for name, values in seconds.items()}


def time_predictions(checkpoints: dict[str, Path], args: argparse.Namespace) -> dict[str, float]:
    """Return sequences a second of the prediction alone, median over turns in alternation."""
    predictors: dict[str, CsiPredictor] = {name: load_predictor(root)[0] for name, root in checkpoints.items()}
    predictors["ar"] = AutoRegression(8)
    history = drops(2 * args.batch, 0).history
    rates: dict[str, list[float]] = {name: [] for name in predictors}
    for turn in range(args.rounds + 1):
        for name, predictor in predictors.items():
            started = time.perf_counter()
            predict_in_batches(predictor, history, SHAPE.num_future, args.batch)
            if turn:  # the first one warms up
                rates[name].append(len(history) / (time.perf_counter() - started))
    return {name: statistics.median(values) for name, values in rates.items()}


def peak_memory(count: int, checkpoint: Path, args: argparse.Namespace) -> float:
    """Return the peak memory [GB] of predicting ``count`` sequences in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        csi = write_csi(Path(folder) / "csi", test=count)
        paths = [str(csi), str(checkpoint), str(Path(folder) / "out")]
        command = [sys.executable, __file__, "--measure", *paths]
        command += ["--batch", str(args.batch), "--threads", str(args.threads)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout)
    print(f"{count} sequences: {found['seconds']:.0f} s, peak {found['peak_gb']:.3f} GB")
    return float(found["peak_gb"])


def training_minutes(settings: CsiTrainSettings, num_steps: int) -> float:
    """Return minutes of the demo's training from its statistics, its validations and some of its steps."""
    with tempfile.TemporaryDirectory() as folder:
        csi = write_csi(Path(folder) / "csi", train=sized(2000, 40), val=sized(200, 4))
        data = load_training_data([csi], settings.max_data_gb)
    started = time.perf_counter()
    model = build_predictor(settings.model, SHAPE, settings.seed)
    model.fit_statistics(data.clean, settings.pilot_snr_db, make_generator(settings.seed, "cdg", "statistics"))
    trainer = CsiTrainer(settings, model, data, start_accelerator(settings.precision))
    prepared = time.perf_counter() - started
    trainer.step(1)
    started = time.perf_counter()
    trainer.validate()
    validating = time.perf_counter() - started
    started = time.perf_counter()
    for index in range(2, num_steps + 2):
        trainer.step(index)
    stepping = (time.perf_counter() - started) / num_steps
    total = prepared + (settings.num_validations + 2) * validating + settings.num_steps * stepping
    print(
        f"training: statistics of {len(data.clean)} drops {prepared:.1f} s, a validation {validating:.1f} s, a step"
        f" {stepping:.3f} s; {settings.num_steps} steps: {total / 60:.1f} min"
    )
    return total / 60


def main() -> int:
    """Measure, print a line a bound, and return 1 if one is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=sized(500, 4), help="of a turn of the command")
    parser.add_argument("--rounds", type=int, default=sized(3, 1), help="turns of each predictor")
    parser.add_argument("--batch", type=int, default=sized(50, 2), help="sequences at a time")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="CPU threads")
    parser.add_argument(
        "--sizes", type=int, nargs=2, default=sized([1_000, 10_000], [2, 4]), help="sequences, for the memory"
    )
    parser.add_argument("--steps", type=int, default=sized(20, 1), help="training steps to time")
    parser.add_argument("--measure", nargs=3, type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        seconds = predict(*args.measure, args.batch, args.threads)
        peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        print(json.dumps({"seconds": seconds, "peak_gb": peak_gb}))
        return 0
    limit_threads(args.threads)
    training = CsiTrainSettings.resolve(presets="sclmkb.train", section="cdg", preset=sized("demo", "tiny"))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        checkpoints = write_checkpoints(root / "checkpoints", training)
        csi = write_csi(root / "csi", test=args.sequences)
        whole = time_commands(csi, args.sequences, checkpoints, args)
        bare = time_predictions(checkpoints, args)
        limit_threads(args.threads)
        minutes = training_minutes(training, args.steps)
        few, many = (peak_memory(size, checkpoints["cdg"], args) for size in args.sizes)
    for what, rates in (("sclmkb-gen cdg", whole), ("prediction alone", bare)):
        listed = ", ".join(f"{name} {rate:.1f}" for name, rate in rates.items())
        print(f"sequences/s, {what}, {args.threads} threads, batch {args.batch}: {listed}")
        for name in ("ar", "lmmse", "llm4cp", "llm4cp-matrix"):
            print(f"cdg / {name}, {what}: {rates['cdg'] / rates[name]:.3f}")
    ratio, growth = whole["cdg"] / whole["llm4cp"], many - few
    bounds = [
        ("cdg / llm4cp, sclmkb-gen cdg", ratio, SPEED_BOUND, ratio >= SPEED_BOUND),
        (f"peak memory, {args.sizes[1]} less {args.sizes[0]} sequences [GB]", growth, MEMORY_BOUND_GB,
         growth <= MEMORY_BOUND_GB),
        ("training of the demo [min]", minutes, TRAINING_BOUND_MIN, minutes <= TRAINING_BOUND_MIN),
    ]  # fmt: skip
    return verdict(bounds)


if __name__ == "__main__":
    sys.exit(main())
