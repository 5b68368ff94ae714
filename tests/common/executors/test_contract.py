"""What every executor keeps, whoever makes the shards: a process, the actors of a real Ray, the tasks of a real Slurm.

``make test`` loses a worker of each executor; the rest on Ray and Slurm is of ``make test-all``.
"""

import os

import pytest
from toy_runs import Here, Toy
from waiting import wait_for

EXECUTORS = ("local", "ray", "slurm")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the files of a run in one process that nothing happens to."""
    toy = Toy(tmp_path_factory.mktemp("whole") / "toy", dict(os.environ))
    assert toy.start().wait(240) == 0, toy.said()
    return toy.files()


everywhere = pytest.mark.parametrize("runner", EXECUTORS, indirect=True)
everywhere_if_long = pytest.mark.parametrize(
    "runner",
    ["local", *(pytest.param(name, marks=pytest.mark.long) for name in EXECUTORS[1:])],
    indirect=True,
)


@pytest.mark.slow
@everywhere
def test_a_lost_worker_costs_no_shard_and_changes_none(runner: Here, toy: Toy, whole: dict[str, bytes]) -> None:
    toy.mood("slow-2")
    runner.run(toy)
    runner.wait_at_work(toy, 1)
    wait_for(lambda: toy.done() == ["0", "1"])
    runner.lose(toy)
    runner.wait_at_work(toy, 2)
    assert toy.done() == ["0", "1"]
    toy.mood("go")
    runner.wait(toy)
    assert toy.files() == whole


@everywhere_if_long
def test_who_is_told_to_stop_does_so_in_good_order_and_the_run_goes_on(
    runner: Here, toy: Toy, whole: dict[str, bytes]
) -> None:
    toy.mood("slow-2")
    runner.run(toy)
    runner.wait_at_work(toy, 1)
    runner.tell(toy)
    runner.wait_at_work(toy, 2)
    toy.mood("go")
    assert "stopped in good order" in runner.wait(toy)
    assert toy.files() == whole


@everywhere_if_long
def test_a_failed_shard_is_named_and_made_once_it_can_be(runner: Here, toy: Toy, whole: dict[str, bytes]) -> None:
    toy.mood("bad-2")
    runner.run(toy)
    assert "shard train-00002-of-00003 is bad" in runner.wait(toy, code=2)
    assert toy.done() == ["0", "1"], "the others are made"
    assert not (toy.out / "README.md").exists(), "the last step waits for what never came"
    (toy.moods / "bad-2").unlink()
    runner.run(toy)
    runner.wait(toy)
    assert toy.files() == whole
    runner.run(toy)
    runner.wait(toy)
    assert toy.files() == whole, "nothing was left to do"
