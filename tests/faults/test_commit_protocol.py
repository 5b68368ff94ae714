"""The commit protocol under every interleaving that hypothesis can think of, with crashes at any step.

Each process is a thread. A step is one look at the run or one change of the file system; a schedule says who takes the
next one, and who dies there. A dead process does nothing more, not even clean up after itself.
"""

import json
import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.chunks import Chunks, ShardCommittedError
from sclmkb.common.artifacts.files import create_json
from sclmkb.common.artifacts.plan import Plan, format_ranges, make_shards, parse_ranges
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.artifacts.schemas import CAPTIONS
from sclmkb.generate.runs.verify import find_problems

NUM_CHUNKS = 2
CHUNK_ROWS = 2
ROW_IDS = [f"row-{i}" for i in range(2 * NUM_CHUNKS * CHUNK_ROWS)]
STEPS = [
    (Chunks, "indices"),
    (Chunks, "read"),
    (Run, "is_committed"),
    (os, "link"),
    (Path, "replace"),
    (Path, "rename"),
    (Path, "unlink"),
    (shutil, "rmtree"),
    (pq, "write_table"),
]


class Dead(BaseException):
    """The process was killed."""


class Interleaving:
    """Runs functions in threads, one step of one of them at a time, as a schedule says."""

    def __init__(self, schedule: Iterator[tuple[int, bool]], look: Callable[[], None]) -> None:
        self.schedule, self.look = schedule, look
        self.local = threading.local()
        self.condition = threading.Condition()
        self.waiting: list[int] = []
        self.running = 0
        self.turn: int | None = None
        self.dead: set[int] = set()
        self.failures: list[BaseException] = []

    def step(self) -> None:
        """Wait for this thread's turn; threads that are none of ours go on at once."""
        me = getattr(self.local, "number", None)
        if me is None:
            return
        if me in self.dead:
            raise Dead
        with self.condition:
            self.waiting.append(me)
            self.running -= 1
            self.condition.notify_all()
            self.condition.wait_for(lambda: self.turn == me)
            self.turn = None
            self.waiting.remove(me)
            self.running += 1
        if me in self.dead:
            raise Dead

    def run(self, jobs: Sequence[Callable[[], None]]) -> None:
        """Run the jobs to their end."""

        def life(number: int, job: Callable[[], None]) -> None:
            self.local.number = number
            try:
                job()
            except Dead:
                pass
            except BaseException as error:
                self.failures.append(error)
            finally:
                with self.condition:
                    self.running -= 1
                    self.condition.notify_all()

        threads = [threading.Thread(target=life, args=job, daemon=True) for job in enumerate(jobs)]
        self.running = len(threads)
        for thread in threads:
            thread.start()
        while True:
            with self.condition:
                self.condition.wait_for(lambda: self.running == 0 and self.turn is None)
                self.look()
                if not self.waiting:
                    break
                choice, dies = next(self.schedule)
                chosen = sorted(self.waiting)[choice % len(self.waiting)]
                if dies:
                    self.dead.add(chosen)
                self.turn = chosen
                self.condition.notify_all()
                self.condition.wait_for(lambda: self.turn is None)
        for thread in threads:
            thread.join()


@contextmanager
def stepwise(interleaving: Interleaving) -> Iterator[None]:
    """Make every look and every change of the file system a step of the interleaving; who dies does so before one."""
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in STEPS:
            real = getattr(owner, name)

            def stepped(*args: Any, real: Any = real, **kwargs: Any) -> Any:
                interleaving.step()
                return real(*args, **kwargs)

            patch.setattr(owner, name, stepped)
        patch.setattr(os, "fsync", lambda _: None)  # nobody pulls the plug here, and it is slow
        yield


def make_plan() -> Plan:
    shards = make_shards("train", ROW_IDS, NUM_CHUNKS * CHUNK_ROWS)
    return Plan(kind="corpus", tables={"captions": CAPTIONS}, settings={"seed": 0}, shards=shards, inputs={})


def table_of(row_ids: Sequence[str], text: str) -> pa.Table:
    common = {"group": "g", "split": "train", "caption_index": 0, "wording": "label", "role": "caption", "text": text}
    return pa.Table.from_pylist([{"row_id": i, "identity": i, **common} for i in row_ids], schema=CAPTIONS)


def worker(root: Path, name: str) -> None:
    """Do what SDG does: chunk after chunk of every shard, going on from whatever counts, then the card."""
    run = Run.open(root, make_plan())
    for shard in run.plan.shards:
        if run.is_committed(shard):
            continue
        with suppress(ShardCommittedError):
            indices = run.chunks(shard).indices()
            table = run.chunks(shard).read_all("captions", indices)
            if table.num_rows < len(shard.row_ids):
                for index in range(len(indices), NUM_CHUNKS):
                    ids = shard.row_ids[index * CHUNK_ROWS : (index + 1) * CHUNK_ROWS]
                    part = table_of(ids, name)
                    if not run.chunks(shard).commit(index, {"captions": part}):
                        part = run.chunks(shard).read(index, "captions")
                    table = pa.concat_tables([table, part])
            run.commit_shard(shard, {"captions": table}, counts={"ok": table.num_rows})
    run.finish("Test", "")


def committed(root: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in (root / "manifests").glob("train-*.json")}


def committed_chunks(root: Path, known: dict[tuple[str, int], str]) -> dict[tuple[str, int], str]:
    """Return who wrote each committed chunk; those that are known are not read again."""
    found = {}
    for path in (root / "work").glob("*/chunk-*.json"):
        key = path.parent.name, int(path.stem.removeprefix("chunk-"))
        if key not in known:
            (name,) = json.loads(path.read_text())["files"]
            found[key] = pq.read_table(path.with_name(name)).column("text")[0].as_py()
    return found


def check_whole(root: Path) -> None:
    # Who dies may leave a file of his own, but nothing reads it.
    problems = [p for p in find_problems(root) if "belongs to no manifest" not in p]
    assert problems == []
    rows = Artifact.open(root, "corpus").table("captions").to_pylist()
    assert [row["row_id"] for row in rows] == ROW_IDS
    for start in range(0, len(rows), CHUNK_ROWS):
        assert len({row["text"] for row in rows[start : start + CHUNK_ROWS]}) == 1, "a chunk is of one process"


def make_schedule(seed: int, deaths: int) -> Iterator[tuple[int, bool]]:
    """Yield who goes next, for one step or a few in a row, and whether he dies."""
    draw = random.Random(seed)
    while True:
        chosen = draw.randrange(3)
        for _ in range(draw.choice([1, 1, 2, 5, 12])):
            dies = deaths > 0 and draw.random() < 0.03
            deaths -= dies
            yield chosen, dies


schedules = st.builds(make_schedule, st.integers(0, 2**32), st.integers(0, 3))


@given(schedule=schedules)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whoever_comes_first_counts_and_what_counts_stays(
    schedule: Iterator[tuple[int, bool]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("run") / "a"
    seen: dict[str, str] = {}
    writers: dict[tuple[str, int], str] = {}

    def look() -> None:
        now = committed(root)
        writers.update(committed_chunks(root, writers))
        assert seen.items() <= now.items(), "a committed shard changed"
        seen.update(now)

    interleaving = Interleaving(schedule, look)
    with stepwise(interleaving):
        interleaving.run([lambda name=name: worker(root, name) for name in "abc"])  # type: ignore[misc]
    assert interleaving.failures == []
    worker(root, "last")  # and after all who died, one more goes on
    assert seen.items() <= committed(root).items()
    check_whole(root)
    for (shard, index), writer in writers.items():
        texts = Artifact.open(root, "corpus").shard_table("captions", shard).column("text").to_pylist()
        assert texts[index * CHUNK_ROWS] == writer, "a committed chunk changed"


@given(numbers=st.sets(st.integers(0, 30), min_size=1))
def test_ranges_are_read_as_written(numbers: set[int]) -> None:
    assert parse_ranges(format_ranges(numbers), 31) == sorted(numbers)


def test_a_name_that_is_taken_stays_taken(tmp_path: Path) -> None:
    assert create_json(tmp_path / "x.json", 1)
    assert not create_json(tmp_path / "x.json", 2)
    assert (tmp_path / "x.json").read_text() == "1\n"
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
