from itertools import groupby

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sclmkb.common.artifacts.plan import SavedRowIds, make_row_id, make_shards


@given(st.lists(st.sampled_from("abc"), max_size=30), st.integers(1, 8))
def test_shards_hold_every_row_once_and_divide_no_run_of_a_group(groups: list[str], size: int) -> None:
    ids = [str(i) for i in range(len(groups))]
    shards = make_shards("train", ids, size, groups)
    assert [row for shard in shards for row in shard.row_ids] == ids
    assert [s.name for s in shards] == [f"train-{i:05d}-of-{len(shards):05d}" for i in range(len(shards))]
    longest = max((len(list(run)) for _, run in groupby(groups)), default=0)
    for shard in shards[:-1]:
        last = int(shard.row_ids[-1])
        assert groups[last] != groups[last + 1]
        assert size <= len(shard.row_ids) < size + longest


@given(st.integers(0, 30), st.integers(1, 8))
def test_without_groups_all_shards_but_the_last_are_full(count: int, size: int) -> None:
    shards = make_shards("train", [str(i) for i in range(count)], size)
    assert len(shards) == max(1, -(-count // size))
    assert all(len(shard.row_ids) == size for shard in shards[:-1])


def test_row_ids_depend_on_place() -> None:
    ids = {make_row_id(d, s, i, c) for d in "ab" for s in ("train", "test") for i in "xy" for c in (0, 1)}
    assert len(ids) == 16


def test_saved_row_ids_are_read_like_a_list() -> None:
    saved = SavedRowIds(lambda: pa.chunked_array([["a", "b"], ["c", "d", "e"]]), 1, 3)
    assert [saved[0], saved[2], saved[-1]] == ["b", "d", "d"]
    assert saved[1:] == ("c", "d")
    assert list(saved) == ["b", "c", "d"]
    with pytest.raises(IndexError):
        saved[3]
