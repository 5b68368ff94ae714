"""CSI generation: independent channel drops with a noisy history and a clean future.

::

    seed ─► speed, pilot SNR ─► TR 38.901 drop ─► unit power ─┬─► history + pilot noise   [T, Nr, Nt]
                                h [T+P, Nr, Nt]               ├─► clean history           [T, Nr, Nt]
                                                              └─► future, without noise   [P, Nr, Nt]

Normalisation: each drop is divided by the root mean square of its *clean history* over time and antennas, so that
E|h|² = 1 there, the pilot SNR holds drop by drop, and nothing of the future leaks into the scale.

A chunk of drops depends on the settings, its split and the index of its first drop alone: more drops extend a split
without changing those there are, and the number of workers changes nothing.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Literal

import pyarrow as pa
import torch
from pydantic import field_validator
from torch import Tensor

from sclmkb.common.artifacts import Artifact, Plan, Run, Shard, make_shards
from sclmkb.common.channel.csi import add_pilot_noise, finite_rows, normalise_power
from sclmkb.common.cli import progress
from sclmkb.common.config import Settings, speed_only
from sclmkb.common.errors import UserError
from sclmkb.common.schemas import csi_schema, pack_complex
from sclmkb.common.seeds import derive_seed, make_generator
from sclmkb.generate.channels.sionna import simulate_drops

SPLITS = ("train", "val", "test")
CHUNK = 25
"""Drops that are simulated together; part of what a seed means."""


class CsiSettings(Settings):
    """Settings of ``sclmkb-gen csi``.

    Attributes:
        scenario: TR 38.901 scenario and line of sight.
        num_train: drops in the training split.
        num_val: drops in the validation split.
        num_test: drops in the test split.
        num_history: noisy samples T that a predictor sees.
        num_future: clean samples P to predict.
        sample_period_s: time between samples [s].
        carrier_hz: carrier frequency [Hz].
        array_rows: rows of cross-polarised element pairs, at both ends.
        array_columns: columns of them: 2 · rows · columns antennas.
        speed_kmh: terminal speed [km/h], (least, most), uniform between.
        pilot_snr_db: pilot SNR [dB], (least, most), uniform between.
        test_pilot_snr_db: pilot SNRs [dB] that the test drops take in turn; empty: as the other splits.
        seed: everything random follows from it.
        shard_size: drops in a file.
        workers: processes that simulate; 0 means one for each core.
    """

    scenario: Literal["umi-los", "umi-nlos", "uma-los", "uma-nlos"] = "umi-los"
    num_train: int = 1500
    num_val: int = 150
    num_test: int = 300
    num_history: int = 16
    num_future: int = 4
    sample_period_s: float = 0.5e-3
    carrier_hz: float = 3.5e9
    array_rows: int = 2
    array_columns: int = 4
    speed_kmh: tuple[float, float] = (30.0, 30.0)
    pilot_snr_db: tuple[float, float] = (8.0, 22.0)
    test_pilot_snr_db: tuple[float, ...] = ()
    seed: int = 0
    shard_size: int = 100
    workers: int = speed_only(0, ge=0)

    @field_validator("num_train", "num_val", "num_test", "num_history", "num_future", "array_rows", "array_columns")
    @classmethod
    def _positive(cls, value: int) -> int:
        if value < 1:
            raise ValueError("must be at least 1")
        return value

    @field_validator("sample_period_s", "carrier_hz")
    @classmethod
    def _above_zero(cls, value: float) -> float:
        if not value > 0:
            raise ValueError("must be above 0")
        return value

    @field_validator("shard_size")
    @classmethod
    def _whole_chunks(cls, value: int) -> int:
        if value < 1 or value % CHUNK:
            raise ValueError(f"must be a multiple of {CHUNK}")
        return value

    @field_validator("speed_kmh", "pilot_snr_db", mode="before")
    @classmethod
    def _value_or_range(cls, value: object) -> object:
        return (value, value) if isinstance(value, int | float) else value

    @field_validator("speed_kmh", "pilot_snr_db")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError("the first value of a range must not be above the second")
        return value

    @field_validator("speed_kmh")
    @classmethod
    def _not_negative(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] < 0:
            raise ValueError("a speed must not be negative")
        return value


def drop_id(settings: CsiSettings, split: str, index: int) -> str:
    """Return the id of a drop: scenario, seed, split and index."""
    return f"{settings.scenario}-{settings.seed}-{split}-{index:06d}"


def simulate_chunk(settings: CsiSettings, split: str, start: int, count: int) -> dict[str, Tensor]:
    """Simulate ``count`` drops of a split from drop ``start`` on, a multiple of :data:`CHUNK`.

    Runs on one thread, so that the result does not depend on the number of cores.

    Returns:
        ``history``, ``clean_history`` ``[count, T, Nr, Nt]``, ``future`` ``[count, P, Nr, Nt]``, ``speed_kmh`` and
        ``pilot_snr_db`` ``[count]``.
    """
    key = (settings.seed, "csi", settings.scenario, split, start)
    generator = make_generator(*key, "settings")
    speeds = _uniform(settings.speed_kmh, generator)
    snrs = _uniform(settings.pilot_snr_db, generator)
    if split == "test" and settings.test_pilot_snr_db:
        values = settings.test_pilot_snr_db
        snrs = torch.tensor([values[(start + i) % len(values)] for i in range(CHUNK)])
    with _one_thread():
        # always a whole chunk: Sionna's draws depend on the batch, and a split may be extended later
        h = simulate_drops(
            scenario=settings.scenario,
            speeds_kmh=speeds,
            num_samples=settings.num_history + settings.num_future,
            sample_period_s=settings.sample_period_s,
            carrier_hz=settings.carrier_hz,
            array_rows=settings.array_rows,
            array_columns=settings.array_columns,
            seed=derive_seed(*key, "channel"),
        )
        h, _ = normalise_power(h, settings.num_history)
        clean, future = h[:, : settings.num_history], h[:, settings.num_history :]
        history = add_pilot_noise(clean, snrs, make_generator(*key, "noise"))
    found = {
        "history": history,
        "clean_history": clean,
        "future": future,
        "speed_kmh": speeds,
        "pilot_snr_db": snrs,
    }
    return {name: tensor[:count].contiguous() for name, tensor in found.items()}


def generate_csi(settings: CsiSettings, out: Path, *, new_run: bool = False) -> Artifact:
    """Write the CSI artifact, or go on with it.

    Raises:
        UserError: if ``out`` holds another run, or Sionna is missing or gives values that are not finite.
    """
    num_antennas = 2 * settings.array_rows * settings.array_columns
    schema = csi_schema(settings.num_history, settings.num_future, num_antennas, num_antennas)
    sizes = dict(zip(SPLITS, (settings.num_train, settings.num_val, settings.num_test), strict=True))
    shards = [
        shard
        for split, size in sizes.items()
        for shard in make_shards(split, [drop_id(settings, split, i) for i in range(size)], settings.shard_size)
    ]
    plan = Plan(
        kind="csi",
        tables={"csi": schema},
        settings=settings.fingerprint_fields(),
        shards=shards,
        inputs={},
        versions=("sionna-no-rt", "torch"),
    )
    run = Run.open(out, plan, new_run=new_run)
    pending = run.pending()
    total = sum(sizes.values())
    with progress("csi: drops", total, total - sum(len(s.row_ids) for s in pending)) as ticker:
        started = time.monotonic()
        for shard, parts in _simulate(settings, pending):
            table = _to_table(settings, shard, parts, schema)
            run.commit_shard(
                shard, {"csi": table}, counts={"ok": len(shard.row_ids)}, seconds=time.monotonic() - started
            )
            started = time.monotonic()
            ticker.advance(len(shard.row_ids))
    return run.finish(
        "Channel state information", "3GPP TR 38.901 drops simulated with Sionna: noisy history, clean future."
    )


def _simulate(settings: CsiSettings, shards: Sequence[Shard]) -> Iterator[tuple[Shard, list[dict[str, Tensor]]]]:
    """Yield each shard with its chunks, in order; several processes work ahead."""
    workers = min(settings.workers or len(os.sched_getaffinity(0)), sum(len(_chunks(s)) for s in shards))
    if workers <= 1:
        for shard in shards:
            yield shard, [simulate_chunk(settings, shard.split, *chunk) for chunk in _chunks(shard)]
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start_worker)
    try:
        futures: list[list[Future[dict[str, Tensor]]]] = [
            [pool.submit(simulate_chunk, settings, shard.split, *chunk) for chunk in _chunks(shard)] for shard in shards
        ]
        for shard in shards:
            yield shard, [future.result() for future in futures.pop(0)]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _chunks(shard: Shard) -> list[tuple[int, int]]:
    """Return (first drop, number of drops) of each chunk; shard sizes are whole chunks, so starts line up."""
    first = int(shard.row_ids[0].rpartition("-")[2])
    size = len(shard.row_ids)
    return [(first + i, min(CHUNK, size - i)) for i in range(0, size, CHUNK)]


def _to_table(settings: CsiSettings, shard: Shard, parts: list[dict[str, Tensor]], schema: pa.Schema) -> pa.Table:
    columns = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    for name, tensor in columns.items():
        finite = finite_rows(tensor)
        if not finite.all():
            row = int((~finite).nonzero()[0])
            raise UserError(
                f"the simulated {name} of drop {shard.row_ids[row]} is not finite: nothing of shard {shard.name} was"
                " written; check the speed, carrier and period, or choose another seed"
            )
    size = len(shard.row_ids)
    arrays: dict[str, pa.Array] = {
        "drop_id": pa.array(shard.row_ids),
        "split": pa.array([shard.split] * size),
        "scenario": pa.array([settings.scenario] * size),
        "speed_kmh": pa.array(columns["speed_kmh"].numpy(), pa.float32()),
        "pilot_snr_db": pa.array(columns["pilot_snr_db"].numpy(), pa.float32()),
        "carrier_hz": pa.array([settings.carrier_hz] * size, pa.float64()),
        "sample_period_s": pa.array([settings.sample_period_s] * size, pa.float64()),
    }
    for name in ("history", "clean_history", "future"):
        arrays |= pack_complex(name, columns[name])
    return pa.table([arrays[name] for name in schema.names], schema=schema)


def _uniform(bounds: tuple[float, float], generator: torch.Generator) -> Tensor:
    low, high = bounds
    return low + (high - low) * torch.rand(CHUNK, generator=generator)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, which waits for the chunks under way, and end when the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
