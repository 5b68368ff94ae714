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
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from chunked_run import CHUNK_ROWS, check_whole, work
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.chunks import Chunks
from sclmkb.common.artifacts.files import create_json
from sclmkb.common.artifacts.plan import format_ranges, parse_ranges
from sclmkb.common.artifacts.run_folder import Run

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
        interleaving.run([lambda name=name: work(root, name) for name in "abc"])  # type: ignore[misc]
    assert interleaving.failures == []
    work(root, "last")  # and after all who died, one more goes on
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
