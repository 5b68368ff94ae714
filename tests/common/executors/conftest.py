"""A stage that needs nothing, in this process, and runs of it by each executor."""

import dataclasses
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from toy_runs import Here, OnRay, OnSlurm, Toy
from toy_stage import plan_toy

from sclmkb.common.artifacts.plan import Shard
from sclmkb.common.executors.stage import Made, Session, Work


class Stage:
    """Makes 10 rows in 5 shards; ``made`` are those that it was asked for, in order."""

    def __init__(self, out: Path) -> None:
        self.out, self.made = out, list[str]()

    def work(self, *, join: bool = False) -> Work:
        work = plan_toy(self.out, self.out, num_shards=5, join=join)

        def produce(pending: Sequence[Shard], session: Session) -> Generator[Made, None, None]:
            for made in work.produce(pending, session):
                self.made.append(made.shard.name)
                yield made

        return dataclasses.replace(work, produce=produce)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path / "toy run")


@pytest.fixture
def runner(request: pytest.FixtureRequest) -> Any:
    """Return who runs the shards: ``local``, ``ray`` or ``slurm``."""
    if request.param == "ray":
        return OnRay(request.getfixturevalue("ray_cluster"))
    return OnSlurm(request.getfixturevalue("slurm")) if request.param == "slurm" else Here()


@pytest.fixture
def toy(runner: Here, tmp_path: Path) -> Iterator[Toy]:
    toy = Toy(tmp_path / "toy", runner.environment)
    yield toy
    runner.end(toy)
