"""CSI generation: independent channel drops with a noisy history and a clean future.

::

    seed ─► speed, pilot SNR ─► 3GPP drop ─► unit power ─┬─► history + pilot noise ─► pilot pattern   [T, Nr, Nt]
                                h [T+P, Nr, Nt]          ├─► clean history                            [T, Nr, Nt]
                                                         └─► future, without noise                    [P, Nr, Nt]

Normalisation: each drop is divided by the root mean square of its *clean history* over time and antennas. So E|h|² = 1
there, the pilot SNR holds for each drop, and nothing of the future leaks into the scale.

A chunk of drops depends only on the settings, its split and the index of its first drop. So more drops extend a split
without changing existing ones, and the number of workers changes nothing. Users who stand in one sector are simulated
together, so their number is part of what a seed means.
"""

import ctypes
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import get_context, parent_process
from pathlib import Path

import torch
from torch import Tensor

from sclmkb.common.artifacts.plan import Plan, Shard, make_shards
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.artifacts.schemas import SPLITS, csi_schema
from sclmkb.common.csi.sets import CsiSet, csi_to_table, rows_not_finite
from sclmkb.common.csi.tensors import add_pilot_noise, hold_unsounded, normalise_power
from sclmkb.common.errors import UserError
from sclmkb.common.executors.stage import Made, Session, Work
from sclmkb.common.seeds import derive_seed, make_generator
from sclmkb.generate.csi.channels.sionna import Simulated, simulate_drops, simulate_sector
from sclmkb.generate.csi.settings import CHUNK, CsiSettings, uniform

SIGNAL_DELAY_S = 0.5


def drop_id(settings: CsiSettings, split: str, index: int) -> str:
    """Return the id of a drop: scenario, seed, split (or that it is a user) and index."""
    return f"{settings.label(index)}-{settings.seed}-{'user' if settings.users else split}-{index:06d}"


def simulate_chunk(settings: CsiSettings, split: str, start: int, count: int) -> CsiSet:
    """Simulate ``count`` drops of a split from drop ``start`` on, a multiple of :data:`CHUNK`; users all at once.

    Runs on one thread, so that the result does not depend on the number of cores.
    """
    # always a whole chunk: Sionna's draws depend on the batch, and a split may be extended later
    size = settings.users or CHUNK
    key = (settings.seed, "csi", settings.name, split, start)
    generator = make_generator(*key, "settings")
    speeds, snrs = (uniform(bounds, size, generator) for bounds in (settings.speed_kmh, settings.pilot_snr_db))
    rows = range(start, start + size)
    if settings.speed_grid_kmh:
        speeds = torch.tensor([settings.cell(row)[2] for row in rows])
    if split == "test" and settings.test_pilot_snr_db:
        values = settings.test_pilot_snr_db
        snrs = torch.tensor([values[row % len(values)] for row in rows])
    lead, end = settings.num_lead, settings.num_lead + settings.num_history
    with _one_thread():
        h, places = _simulate(settings, key, rows, speeds)
        _, scale = normalise_power(h[:, lead:end])
        h = h / scale
        clean, future = h[:, lead:end], h[:, end:]
        history = add_pilot_noise(h[:, :end], snrs, make_generator(*key, "noise"))
        if lead:
            history = hold_unsounded(history, settings.comb_period)
    drops = CsiSet(
        drop_ids=[drop_id(settings, split, row) for row in rows],
        scenarios=[settings.label(row) for row in rows],
        users=[f"user-{row:03d}" if settings.users else "" for row in rows],
        num_subcarriers=settings.num_subcarriers,
        history=history,
        clean_history=clean,
        future=future,
        speed_kmh=speeds,
        pilot_snr_db=snrs,
        carrier_hz=torch.full((size,), settings.carrier_hz, dtype=torch.float64),
        sample_period_s=torch.full((size,), settings.sample_period_s, dtype=torch.float64),
        x_m=places[:, 0],
        y_m=places[:, 1],
    )
    return drops.part(slice(count))


def plan_csi(settings: CsiSettings, out: Path, *, new_run: bool = False, join: bool = False) -> Work:
    """Freeze the plan of a CSI artifact; see :meth:`Run.open`.

    Raises:
        UserError: if ``out`` holds another run, or none to join. The work raises it if Sionna is missing or gives
            values that are not finite.
    """
    link = settings.link()
    num_rx = link.terminal.num_antennas * settings.num_subcarriers
    schema = csi_schema(settings.num_history, settings.num_future, num_rx, link.base.num_antennas)
    sizes = dict(zip(SPLITS, (settings.num_train, settings.num_val, settings.num_test), strict=True))
    if settings.users:
        sizes = {"test": settings.users}
    shards = [
        shard
        for split, size in sizes.items()
        for shard in make_shards(
            split, [drop_id(settings, split, i) for i in range(size)], settings.users or settings.shard_size
        )
    ]
    plan = Plan(
        kind="csi",
        tables={"csi": schema},
        settings=settings.fingerprint_fields(),
        shards=shards,
        inputs={},
        versions=("sionna-no-rt", "torch"),
    )
    run = Run.open(out, plan, new_run=new_run, join=join)

    def produce(pending: Sequence[Shard], session: Session) -> Generator[Made, None, None]:
        for shard, drops in _simulate_shards(settings, pending, session.check_stop):
            _check_finite(drops, shard)
            yield Made(shard=shard, tables={"csi": csi_to_table(drops, shard.split)})

    card = ("Channel state information", "3GPP TR 38.901 drops simulated with Sionna: noisy history, clean future.")
    return Work(name="csi", run=run, produce=produce, finish=lambda: run.finish(*card), unit="drops")


def _simulate(settings: CsiSettings, key: tuple[int | str, ...], rows: range, speeds: Tensor) -> tuple[Tensor, Tensor]:
    """Return channels and places of the drops, those of one scenario simulated together."""
    link = settings.link()
    if settings.users:
        return simulate_sector(link, settings.scenario[0], speeds, derive_seed(*key, "channel"))
    cells = [settings.cell(row) for row in rows]
    spreads_s = torch.tensor([1e-9 * spread for _, spread, _ in cells])
    order: list[int] = []
    found: list[Simulated] = []
    for number, scenario in enumerate(settings.scenario):
        if chosen := [i for i, cell in enumerate(cells) if cell[0] == scenario]:
            seed = derive_seed(*key, "channel", *([number] if number else []))
            found.append(simulate_drops(link, scenario, speeds[chosen], spreads_s[chosen], seed))
            order += chosen
    h, places = (torch.cat(parts)[torch.tensor(order).argsort()] for parts in zip(*found, strict=True))
    return h, places


def _simulate_shards(
    settings: CsiSettings, shards: Sequence[Shard], check_stop: Callable[[], None]
) -> Iterator[tuple[Shard, CsiSet]]:
    """Yield each shard with its drops, in order."""
    tasks = {shard.name: _tasks(settings, shard) for shard in shards}
    found = _simulate_chunks(settings, [task for own in tasks.values() for task in own], check_stop)
    for shard in shards:
        yield shard, CsiSet.join([next(found) for _ in tasks[shard.name]])


def _tasks(settings: CsiSettings, shard: Shard) -> list[tuple[str, int, int]]:
    """Return split, first drop and number of drops of each chunk; shard sizes are whole chunks, so starts line up."""
    first, size = int(shard.row_ids[0].rpartition("-")[2]), len(shard.row_ids)
    step = settings.users or CHUNK
    return [(shard.split, first + i, min(step, size - i)) for i in range(0, size, step)]


def _simulate_chunks(
    settings: CsiSettings, tasks: Sequence[tuple[str, int, int]], check_stop: Callable[[], None]
) -> Iterator[CsiSet]:
    """Yield chunks in order; several processes work ahead, but only so far that memory stays bounded."""
    workers = min(settings.workers or len(os.sched_getaffinity(0)), len(tasks))
    if workers <= 1:
        for task in tasks:
            yield simulate_chunk(settings, *task)
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start_worker)
    try:
        ahead: deque[Future[CsiSet]] = deque()
        for task in tasks:
            ahead.append(pool.submit(simulate_chunk, settings, *task))
            if len(ahead) > 2 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    except BrokenExecutor:
        # Batch systems send their signal to every process of a job, and it may not have got here yet.
        time.sleep(SIGNAL_DELAY_S)
        check_stop()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _check_finite(drops: CsiSet, shard: Shard) -> None:
    for name in ("history", "clean_history", "future", "speed_kmh", "pilot_snr_db"):
        if bad := rows_not_finite(getattr(drops, name)):
            raise UserError(
                f"the simulated {name} of drop {drops.drop_ids[bad[0]]} is not finite: nothing of shard {shard.name}"
                " was written; check the speed, carrier and period, or choose another seed"
            )


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _start_worker() -> None:
    """Leave Ctrl-C and SIGUSR1 to the parent, which waits for the chunks under way, and end when the parent is gone."""
    for signum in (signal.SIGINT, signal.SIGUSR1):  # SIGTERM is how the pool ends its processes
        signal.signal(signum, signal.SIG_IGN)
    _keep_memory()
    parent = parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _keep_memory() -> None:
    """Keep memory that is freed, which glibc would give back at once: half of the time went into new pages."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            libc, max_mmaps, trim_threshold = ctypes.CDLL("libc.so.6"), -4, -1
            libc.mallopt(max_mmaps, 0)
            libc.mallopt(trim_threshold, 2**31 - 1)
