"""Simulates a cluster at work on one plan, in one process, on real files; its end must be that of a run by one worker.

::

    scheduler 0 ─► 100 workers ─┐                         one of them at a time goes on, drawn at random,
                                ├─► one artifact folder   from one file operation to the next;
    scheduler 1 ─► 100 workers ─┘                         a dead one never goes on, and cleans nothing up

Both schedulers start on the same plan and know nothing of each other: they ask the manifests what is left, hand it out
in an order of their own, replace workers that died, ask again, and finish the run. A worker is the real one of
``sclmkb-gen sdg`` with a fake engine and a fake encoder. Of the shards that are handed out, a part kills its worker,
before a file operation drawn at random; half-way through, the second scheduler dies with all of its workers and is
started again. Every process has a clock of its own, up to two hours off, which its files and manifests bear.

Each process is a thread that is given the turn. Whether it goes on is decided in an audit hook, which Python calls
before it opens, links, renames, lists or removes anything; so nothing of the program is replaced but ``time.time`` and
``time.gmtime``.

Run it: python tests/bench/simulate_scale.py [--shards 1000] [--workers 200] [--deaths 0.05]
"""

import argparse
import importlib
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from verdict import sized, verdict

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.plan import Plan, Shard
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.generate.captions.sdg import Backend, SdgSettings, plan_captions, read_captions
from sclmkb.generate.captions.waves import Worker
from sclmkb.generate.filter.filter import HallucinationFilter
from sclmkb.generate.filter.index import embed_in_parts
from sclmkb.generate.runs.verify import find_problems

EVENTS = ("open", "os.link", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.listdir", "os.scandir")
ROWS_A_SHARD, MAX_CLOCK_ERROR_S, SCHEDULERS = 4, 7200.0, 2
TIMES = ("seconds", "finished")
"""What no two runs have in common, in manifests and in their figures."""


class Process(threading.Thread):
    """A simulated process: goes on only while it has the turn."""

    def __init__(self, cluster: "Cluster", work: Callable[["Process"], None], clock_s: float) -> None:
        """Take what it does and how far its clock is off; it begins with its first turn."""
        super().__init__(daemon=True)
        self.cluster, self.work, self.clock_s = cluster, work, clock_s
        self.turn = threading.Semaphore(0)
        self.operations, self.dies_at = 0, -1
        self.is_dead = self.has_ended = False
        self.error: BaseException | None = None

    def run(self) -> None:
        """Do the work."""
        self.turn.acquire()
        self.cluster.process_of[threading.get_ident()] = self
        try:
            self.work(self)
        except BaseException as error:
            self.error = error
        del self.cluster.process_of[threading.get_ident()]  # a thread to come may get the number
        self.has_ended = True
        self.cluster.given_back.release()

    def pause(self) -> None:
        """Give the turn back and wait for the next one, which a dead process never gets."""
        self.operations += 1
        if self.operations == self.dies_at:
            self.is_dead = True
            self.cluster.count["died"] += 1
        self.cluster.given_back.release()
        self.turn.acquire()


class Cluster:
    """The processes, who of them has the turn, and their clocks."""

    def __init__(self, seed: int, clock_error_s: float) -> None:
        """Begin with no process; all that is random follows from the seed."""
        self.draw, self.clock_error_s = random.Random(seed), clock_error_s
        self.given_back = threading.Semaphore(0)
        self.process_of: dict[int, Process] = {}
        self.alive: list[Process] = []
        self.root: str | None = None
        self.count: Counter[str] = Counter()
        self.errors: list[BaseException] = []
        self._real_time, self._real_gmtime = time.time, time.gmtime

    def start(self, work: Callable[[Process], None]) -> Process:
        """Start a process with a clock of its own."""
        process = Process(self, work, self.draw.uniform(-self.clock_error_s, self.clock_error_s))
        process.start()
        self.alive.append(process)
        return process

    def run_all(self, root: Path, each_turn: Callable[[], None] = lambda: None) -> None:
        """Give turns until every process has ended or is dead; ``root`` is the folder whose operations count."""
        self.root = str(root)
        while self.alive:
            place = self.draw.randrange(len(self.alive))
            process = self.alive[place]
            if not process.is_dead:
                self.count["turns"] += 1
                process.turn.release()
                self.given_back.acquire()
            if process.is_dead or process.has_ended:
                self.alive[place] = self.alive[-1]
                self.alive.pop()
                if process.error is not None:
                    self.errors.append(process.error)
            each_turn()
        self.root = None

    def install(self) -> None:
        """Have Python ask before every file operation, and let each process read its own clock."""

        def now() -> float:
            process = self.process_of.get(threading.get_ident())
            return self._real_time() + (process.clock_s if process else 0.0)

        time.time = now
        time.gmtime = lambda seconds=None: self._real_gmtime(now() if seconds is None else seconds)  # type: ignore
        sys.addaudithook(self._before)

    def _before(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.root is None or event not in EVENTS or (process := self.process_of.get(threading.get_ident())) is None:
            return
        if not isinstance(path := arguments[0], str | os.PathLike) or not os.fspath(path).startswith(self.root):
            return
        if event in ("os.link", "os.rename"):  # what is about to get its final name bears this process's time
            os.utime(path, (time.time(), time.time()))
        process.pause()


class Scheduler:
    """Hands out what the manifests say is left, replaces who died, and finishes the run."""

    def __init__(self, cluster: Cluster, plan: Callable[[], Any], build: Callable[[Run], Worker], size: int) -> None:
        """Take how to plan, how a process builds its worker, and how many of them there are."""
        self.cluster, self.plan, self.build, self.size = cluster, plan, build, size
        self.deaths, self.operations_a_shard = 0.0, 0
        self.queue: list[Shard] = []
        self.workers: list[Process] = []

    def work(self, process: Process) -> None:
        """Bring the run to its end."""
        work = self.plan()
        while left := work.run.pending():
            self.cluster.draw.shuffle(left)
            self.queue = left
            while self.queue or any(not (w.is_dead or w.has_ended) for w in self.workers):
                self.workers = [w for w in self.workers if not (w.is_dead or w.has_ended)]
                for _ in range(min(self.size, len(self.queue)) - len(self.workers)):
                    self.workers.append(self.cluster.start(partial(self._make, work.run.root, work.run.plan)))
                    self.cluster.count["workers started"] += 1
                process.pause()
        work.finish()

    def die(self, process: Process) -> None:
        """Kill the scheduler and its workers, all between two file operations."""
        for victim in (process, *self.workers):
            if not victim.has_ended and not victim.is_dead:
                victim.is_dead = True
                self.cluster.count["killed with their scheduler"] += 1

    def _make(self, root: Path, plan: Plan, process: Process) -> None:
        run = Run.open(root, plan, join=True)
        worker = self.build(run)
        while self.queue:
            shard = self.queue.pop()
            if run.is_committed(shard):
                continue
            dies = self.cluster.draw.random() < self.deaths
            begun = process.operations
            process.dies_at = begun + self.cluster.draw.randint(1, self.operations_a_shard) if dies else -1
            if made := worker.make_shard(shard):
                run.commit_shard(shard, made.tables, counts=made.counts, figures=made.figures, seconds=made.seconds)
            self.cluster.count["shards worked on to the end"] += 1
            self.cluster.count["operations"] += process.operations - begun


def differences(planned: Sequence[str], one: Artifact, many: Artifact) -> dict[str, int]:
    """Count what is lost, repeated or changed in a run of many workers, beside that of one.

    Args:
        planned: ids of all rows.
        one: the run of one worker.
        many: the run of many.
    """
    rows = [artifact.table("rows").to_pylist() for artifact in (one, many)]
    expected, found = ({row["row_id"]: row for row in part} for part in rows)
    files = [{name: (artifact.root / name).read_bytes() for name, _ in artifact._files()} for artifact in (one, many)]
    manifests = [[_without_times(manifest) for manifest in artifact.manifests] for artifact in (one, many)]
    cards = [(artifact.root / "README.md").read_bytes() for artifact in (one, many)]
    return {
        "rows lost": len(set(planned) - set(found)),
        "rows repeated": len(rows[1]) - len(found),
        "rows changed": sum(found.get(row_id) != row for row_id, row in expected.items()),
        "files that differ": sum(files[0].get(name) != files[1].get(name) for name in {**files[0], **files[1]}),
        "manifests that differ": sum(a != b for a, b in zip(*manifests, strict=True)),
        "cards that differ": int(cards[0] != cards[1]),
        "problems that verify finds": sum(1 for _ in find_problems(many.root)),
    }


def _without_times(manifest: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in manifest.items() if key not in TIMES}
    return {**kept, "figures": {key: value for key, value in manifest["figures"].items() if key not in TIMES}}


def load_fakes() -> ModuleType:
    """Return the stand-ins for engine and encoder of ``tests/support/sdg_fakes.py``."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
    return importlib.import_module("sdg_fakes")


def simulate(
    home: Path, shards: int, workers: int, deaths: float, seed: int, engine: Callable[[], Any] | None = None
) -> tuple[dict[str, int], Cluster]:
    """Make a run by one worker and one by many, and compare them.

    Args:
        home: an empty folder.
        shards: of the plan.
        workers: at work at a time, of both schedulers.
        deaths: share of the shards handed out that kill their worker.
        seed: of all that is random.
        engine: builds the engine of the many instead.

    Returns:
        differences: see :func:`differences`.
        cluster: with what happened.
    """
    fakes = load_fakes()
    settings: SdgSettings = fakes.fake_settings(shard_size=ROWS_A_SHARD, wave_size=ROWS_A_SHARD)
    corpus = fakes.write_corpus(home / "corpus", shards * ROWS_A_SHARD)
    captions = read_captions(Artifact.open(corpus, "corpus"), settings.splits)
    plain: Backend = fakes.make_backend(settings, fakes.FakeEngine())
    sources = [c["text"] for c in captions.values()]
    judge: HallucinationFilter = plain.filter(sources, list(captions), embed_in_parts)
    silent: Any = lambda *_, **__: None  # noqa: E731
    session: Any = SimpleNamespace(
        log=SimpleNamespace(write=silent), check_stop=silent, beside=silent, show=silent, leave=silent
    )

    def scheduler(cluster: Cluster, out: Path, engine: Callable[[], Any], size: int) -> Scheduler:
        backend = Backend(prompt=plain.prompt, engine=engine, filter=lambda *_: judge, inputs=plain.inputs)

        def build(run: Run) -> Worker:
            return Worker(settings, run, captions, backend, session)

        return Scheduler(cluster, partial(plan_captions, settings, corpus, out, backend), build, size)

    cluster = Cluster(seed, MAX_CLOCK_ERROR_S)
    cluster.install()
    alone = scheduler(cluster, home / "one", fakes.FakeEngine, 1)
    cluster.start(alone.work)
    cluster.run_all(home / "one")
    operations, cluster.count = cluster.count["operations"] // shards, Counter()

    both = [
        scheduler(cluster, home / "many", engine or fakes.FakeEngine, workers // SCHEDULERS) for _ in range(SCHEDULERS)
    ]
    for one in both:
        one.deaths, one.operations_a_shard = deaths, operations
    processes = [cluster.start(one.work) for one in both]
    has_died = False

    def kill_a_scheduler_once() -> None:
        nonlocal has_died
        if not has_died and cluster.count["shards worked on to the end"] >= shards // 2:
            has_died = True
            both[-1].die(processes[-1])
            both[-1].workers = []
            cluster.start(both[-1].work)

    cluster.run_all(home / "many", kill_a_scheduler_once)
    cluster.count["operations a shard, alone"] = operations
    ids = [row_id for shard in both[0].plan().run.plan.shards for row_id in shard.row_ids]
    artifacts = [Artifact.open(home / name, "sdg") for name in ("one", "many")]
    return differences(ids, *artifacts), cluster


def main() -> int:
    """Simulate, print what happened and a line a bound, and return 1 if one is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=sized(1000, 20), help="shards of the plan, of four rows each")
    parser.add_argument(
        "--workers", type=int, default=sized(200, 8), help="at work at a time, half of them for each scheduler"
    )
    parser.add_argument("--deaths", type=float, default=0.05, help="share of the shards handed out that kill a worker")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random")
    parser.add_argument("--folder", type=Path, help="where a temporary folder is made")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as home:
        started = time.perf_counter()
        found, cluster = simulate(Path(home), chosen.shards, chosen.workers, chosen.deaths, chosen.seed)
        print(f"{chosen.shards} shards, {chosen.workers} workers, {time.perf_counter() - started:.1f} s in all")
        for name, count in cluster.count.items():
            print(f"{name}: {count}")
        for error in cluster.errors:
            print(f"a process failed: {type(error).__name__}: {error}")
    bounds = [(name, count, 0, count == 0) for name, count in found.items()]
    return verdict([*bounds, ("processes that failed", len(cluster.errors), 0, not cluster.errors)])


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # the dead are threads that wait for ever
