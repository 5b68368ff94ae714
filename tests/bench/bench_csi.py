"""Speed and memory of CSI generation against its bounds.

1. ``sclmkb-gen csi`` (drops, normalisation, noise, Parquet on disk) against bare Sionna: its topology and its channel
   model alone, called with the same settings, the same batch and in as many processes, nothing kept. Starting the
   processes counts on both sides; the two take turns.
2. Memory: the peak of the process that writes, and of one that reads shard by shard, at two numbers of drops.

Run it on a quiet machine: python tests/bench/bench_csi.py [--drops N] [--rounds N] [--workers N] [--sizes N N]
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from verdict import sized, verdict

from sclmkb.common.csi.sets import iter_csi
from sclmkb.generate.csi.drops import plan_csi
from sclmkb.generate.csi.settings import CHUNK, CsiSettings

RATIO_BOUND, GROWTH_BOUND = 0.9, 1.1


def settings_for(drops: int, workers: int) -> CsiSettings:
    """Return the default settings for so many drops in all."""
    return CsiSettings(num_train=drops - 2 * CHUNK, num_val=CHUNK, num_test=CHUNK, workers=workers)


def bare_batch(settings: CsiSettings, seed: int) -> None:
    """Do what Sionna's documentation does for a batch of drops."""
    from sionna.phy import config
    from sionna.phy.channel import gen_single_sector_topology
    from sionna.phy.channel.tr38901 import PanelArray, UMi

    torch.set_num_threads(1)
    config.device, config.seed = "cpu", seed
    base, terminal = (
        PanelArray(
            num_rows_per_panel=settings.array_rows,
            num_cols_per_panel=settings.array_columns,
            polarization="dual",
            polarization_type="cross",
            antenna_pattern=pattern,
            carrier_frequency=settings.carrier_hz,
        )
        for pattern in ("38.901", "omni")
    )
    model = UMi(
        carrier_frequency=settings.carrier_hz,
        o2i_model="low",
        ut_array=terminal,
        bs_array=base,
        direction="downlink",
        enable_pathloss=False,
        enable_shadow_fading=False,
    )
    speed = settings.speed_kmh[0] / 3.6
    topology = gen_single_sector_topology(
        batch_size=CHUNK,
        num_ut=1,
        scenario="umi",
        indoor_probability=0.0,
        min_ut_velocity=speed,
        max_ut_velocity=speed,
    )
    model.set_topology(*topology, los=True)
    model(settings.num_history + settings.num_future, 1 / settings.sample_period_s)


def time_bare(settings: CsiSettings, drops: int) -> float:
    """Return drops a second of bare Sionna."""
    started = time.perf_counter()
    with ProcessPoolExecutor(settings.workers, get_context("spawn")) as pool:
        for done in [pool.submit(bare_batch, settings, seed) for seed in range(drops // CHUNK)]:
            done.result()
    return drops / (time.perf_counter() - started)


def time_ours(settings: CsiSettings, drops: int) -> float:
    """Return drops a second of the whole command."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        plan_csi(settings, Path(folder) / "csi").run_here()
        return drops / (time.perf_counter() - started)


def measure(drops: int, workers: int, folder: Path, what: str) -> float:
    """Return the peak memory [GB] of a process of its own that writes or reads so many drops."""
    command = [sys.executable, __file__, "--measure", what, str(drops), str(workers), str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def run_measured(what: str, drops: int, workers: int, folder: Path) -> None:
    """Write or read, and print the peak memory of this process."""
    torch.set_num_threads(1)
    if what == "write":
        plan_csi(settings_for(drops, workers), folder).run_here()
    else:
        for _, part in iter_csi(folder):
            part.history.abs().sum()
    print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9))


def main() -> int:
    """Measure, print a line a bound, and return 1 if one is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--drops", type=int, default=sized(1000, 3 * CHUNK), help=f"drops a turn, in multiples of {CHUNK}"
    )
    parser.add_argument("--rounds", type=int, default=sized(2, 1), help="turns of each")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes that simulate")
    parser.add_argument(
        "--sizes",
        type=int,
        nargs=2,
        default=sized([400, 1600], [3 * CHUNK, 4 * CHUNK]),
        help="numbers of drops for the memory",
    )
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        what, drops, workers, folder = chosen.measure
        run_measured(what, int(drops), int(workers), Path(folder))
        return 0
    if chosen.drops % CHUNK or chosen.drops <= 2 * CHUNK:
        parser.error(f"--drops must be a multiple of {CHUNK}, above {2 * CHUNK}")
    settings = settings_for(chosen.drops, chosen.workers)
    ours, bare = [], []
    for _ in range(chosen.rounds):
        bare.append(time_bare(settings, chosen.drops))
        ours.append(time_ours(settings, chosen.drops))
        print(f"drops/s: sclmkb-gen csi {ours[-1]:.1f}, bare Sionna {bare[-1]:.1f}", file=sys.stderr)
    ratio = sum(1 / rate for rate in bare) / sum(1 / rate for rate in ours)
    print(f"drops/s, {chosen.workers} processes: {chosen.rounds / sum(1 / rate for rate in ours):.1f} and bare"
          f" {chosen.rounds / sum(1 / rate for rate in bare):.1f}")  # fmt: skip
    bounds = [("sclmkb-gen csi / bare Sionna", ratio, RATIO_BOUND, ratio >= RATIO_BOUND)]
    with tempfile.TemporaryDirectory() as folder:
        roots = {size: Path(folder) / str(size) for size in sorted(chosen.sizes)}
        for what in ("write", "read"):
            peaks = [measure(size, chosen.workers, root, what) for size, root in roots.items()]
            sizes = " and ".join(f"{size} drops {peak:.2f} GB" for size, peak in zip(roots, peaks, strict=True))
            print(f"peak memory of a process that {what}s: {sizes}")
            growth = peaks[1] / peaks[0]
            bounds.append((f"growth of memory, {what}", growth, GROWTH_BOUND, growth <= GROWTH_BOUND))
    return verdict(bounds)


if __name__ == "__main__":
    sys.exit(main())
