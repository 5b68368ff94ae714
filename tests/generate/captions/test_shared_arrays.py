"""Arrays that all processes of a run share: each part made once between them, none taken that is not whole."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sclmkb.common.artifacts.plan import Plan, make_shards
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.artifacts.schemas import ITEMS
from sclmkb.generate.captions.shared_arrays import Array, share_arrays

SIZES = [4, 4, 4, 4, 4, 4, 4, 3]


def a_run(root: Path) -> Run:
    return Run.open(
        root, Plan(kind="corpus", tables={"items": ITEMS}, settings={}, shards=make_shards("train", [], 1), inputs={})
    )


class Maker:
    """Makes parts, and notes which; a number in them says who."""

    def __init__(self, who: float = 0.0, before: Callable[[int], None] = lambda index: None) -> None:
        self.who, self.before, self.made = who, before, list[int]()

    def __call__(self, index: int) -> Array:
        self.before(index)
        self.made.append(index)
        return np.full((SIZES[index], 3), index + self.who, np.float32)


def values(parts: list[Array]) -> list[float]:
    assert [part.shape for part in parts] == [(size, 3) for size in SIZES]
    return [float(part[0, 0]) for part in parts]


def names(run: Run) -> list[str]:
    return sorted(path.name for path in run.shared.iterdir())


def test_what_one_makes_the_others_take(tmp_path: Path) -> None:
    first, second, advanced = Maker(), Maker(0.5), list[int]()
    made = share_arrays(a_run(tmp_path), "x", SIZES, first)
    taken = share_arrays(a_run(tmp_path), "x", SIZES, second, advanced.append)
    assert sorted(first.made) == list(range(8))
    assert second.made == []
    share_arrays(a_run(tmp_path / "other"), "x", SIZES, other := Maker())
    assert other.made != first.made, "every process has an order of its own"
    assert values(made) == values(taken) == list(range(8))
    assert sum(advanced) == sum(SIZES)


def test_parts_are_mapped_and_no_file_stays_open(tmp_path: Path) -> None:
    def count(name: str) -> int:
        return sum(str(tmp_path) in line for line in Path(f"/proc/self/{name}").read_text().splitlines())

    found = share_arrays(a_run(tmp_path), "x", SIZES, Maker())
    assert count("maps") == 8
    assert not [link for link in Path("/proc/self/fd").iterdir() if link.exists() and link.resolve().suffix == ".npy"]
    assert not any(part.flags.writeable for part in found)
    del found
    assert count("maps") == 0


def test_two_at_work_make_each_part_once(tmp_path: Path) -> None:
    """They take turns, a part each."""
    turns = [threading.Semaphore(1), threading.Semaphore(0)]
    makers, found = [Maker(0.0), Maker(0.25)], dict[int, list[Array]]()

    def work(who: int) -> None:
        def pass_the_turn(size: int) -> None:
            turns[1 - who].release()
            assert turns[who].acquire(timeout=60)

        assert turns[who].acquire(timeout=60)
        found[who] = share_arrays(a_run(tmp_path), "x", SIZES, makers[who], pass_the_turn)
        turns[1 - who].release(100)

    threads = [threading.Thread(target=work, args=(who,)) for who in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(makers[0].made + makers[1].made) == list(range(8))
    expected = [index + 0.25 * (index in makers[1].made) for index in range(8)]
    assert values(found[0]) == values(found[1]) == expected


def test_of_two_who_make_the_same_part_the_first_counts(tmp_path: Path) -> None:
    inner = Maker(0.5)

    def be_overtaken(index: int) -> None:
        share_arrays(a_run(tmp_path), "x", SIZES, inner)

    outer = Maker(0.0, be_overtaken)
    found = share_arrays(a_run(tmp_path), "x", SIZES, outer)
    assert len(outer.made) == 1
    assert values(found) == [index + 0.5 for index in range(8)]
    assert len(names(a_run(tmp_path))) == 16, "what came second is gone"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def turn_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("pattern", "spoil"),
    [
        ("*.npy", cut),
        ("*.npy", turn_a_bit),
        ("*.npy", Path.unlink),
        ("*.json", cut),
        ("*.json", Path.unlink),
        ("*.json", lambda path: path.write_text("{}")),
    ],
)
@pytest.mark.parametrize("who", [0.0, 0.5], ids=["same bytes", "other bytes"])
def test_a_spoiled_part_is_made_again(pattern: str, spoil: Callable[[Path], None], who: float, tmp_path: Path) -> None:
    run = a_run(tmp_path)
    share_arrays(run, "x", SIZES, Maker())
    (path,) = run.shared.glob(f"x-00002{pattern}")
    spoil(path)
    again, after = Maker(who), Maker(0.75)
    found = share_arrays(run, "x", SIZES, again)
    assert again.made == [2]
    assert values(found) == [0, 1, 2 + who, 3, 4, 5, 6, 7]
    assert values(share_arrays(run, "x", SIZES, after)) == values(found)
    assert after.made == [], "mended for all"


def test_parts_of_another_size_are_made_again(tmp_path: Path) -> None:
    run, again = a_run(tmp_path), Maker()
    share_arrays(run, "x", [5] * 6, lambda index: np.zeros((5, 3), np.float32))
    assert values(share_arrays(run, "x", SIZES, again)) == list(range(8))
    assert sorted(again.made) == list(range(8))


def test_what_was_made_before_a_stop_is_taken_after_it(tmp_path: Path) -> None:
    def stop(index: int) -> None:
        if len(first.made) == 3:
            raise KeyboardInterrupt

    first, second = Maker(0.0, stop), Maker()
    with pytest.raises(KeyboardInterrupt):
        share_arrays(a_run(tmp_path), "x", SIZES, first)
    assert all(json.loads(path.read_text())["sha256"] for path in a_run(tmp_path).shared.glob("*.json"))
    share_arrays(a_run(tmp_path), "x", SIZES, second)
    assert sorted(first.made + second.made) == list(range(8))


def test_the_last_step_deletes_them_under_those_who_still_read(tmp_path: Path) -> None:
    run = a_run(tmp_path)

    def finish_once(index: int) -> None:
        if len(maker.made) == 4:
            for shard in run.plan.shards:
                if not run.is_committed(shard):
                    run.commit_shard(shard, {"items": ITEMS.empty_table()})
            run.finish("Test", "Test.")
            assert not (tmp_path / "work").exists()

    maker = Maker(0.0, finish_once)
    found = share_arrays(run, "x", SIZES, maker)
    run.finish("Test", "Test.")
    assert not (tmp_path / "work").exists()
    assert values(found) == list(range(8)), "what is mapped stays readable"
