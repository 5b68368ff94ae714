import json
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from sclmkb.common.artifacts.files import create_json
from sclmkb.common.artifacts.plan import Plan, make_shards, saved_fingerprint


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


words = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(['\n "fingerprint": "', "fingerprint"])


@settings(deadline=None)  # it writes a file
@given(st.dictionaries(words, words), st.lists(words, max_size=5))
def test_the_fingerprint_of_a_saved_plan_is_found_whatever_else_it_says(said: dict[str, str], ids: list[str]) -> None:
    shards = make_shards("train", ids, 2)
    plan = Plan(kind="sdg", tables={}, settings=said, shards=shards, inputs=said, notes={"fingerprint": said})
    with TemporaryDirectory() as folder:
        assert create_json(Path(folder) / "plan.json", plan.to_json())
        saved = (Path(folder) / "plan.json").read_bytes()
    assert saved == (json.dumps(plan.to_json(), indent=1, ensure_ascii=False) + "\n").encode()
    assert saved_fingerprint(saved) == plan.to_json()["fingerprint"]


def test_what_is_no_plan_has_no_fingerprint() -> None:
    assert saved_fingerprint(b"{}") is None
