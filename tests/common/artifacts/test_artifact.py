"""The artifact contract: whole or absent, resumable, verified, and loud about what is wrong."""

import errno
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sclmkb.common.artifacts import files, run_folder
from sclmkb.common.artifacts.artifact import Artifact, UnfinishedError
from sclmkb.common.artifacts.chunks import ShardCommittedError
from sclmkb.common.artifacts.plan import Plan, make_row_id, make_shards
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.artifacts.schemas import CAPTIONS, SCHEMA_VERSION
from sclmkb.common.errors import UserError


def make_plan(rows: int = 5, shard_size: int = 2, **settings: object) -> Plan:
    ids = [make_row_id("test", "train", str(i), 0) for i in range(rows)]
    return Plan(
        kind="corpus",
        tables={"captions": CAPTIONS},
        settings={"seed": 0, **settings},
        shards=[*make_shards("train", ids, shard_size), *make_shards("test", ["only"], shard_size)],
        inputs={},
    )


def rows_of(row_ids: Sequence[str], split: str = "train") -> pa.Table:
    rows = [
        {
            "row_id": row_id,
            "identity": f"i{row_id}",
            "group": "g",
            "split": split,
            "caption_index": 0,
            "wording": "label",
            "role": "caption",
            "text": f"text of {row_id}",
        }
        for row_id in row_ids
    ]
    return pa.Table.from_pylist(rows, schema=CAPTIONS)


def write_all(root: Path, plan: Plan) -> Artifact:
    run = Run.open(root, plan)
    for shard in run.pending():
        run.commit_shard(shard, {"captions": rows_of(shard.row_ids, shard.split)}, counts={"ok": len(shard.row_ids)})
    return run.finish("Test", "A test artifact.")


def test_shards_cover_every_row_once() -> None:
    shards = make_shards("train", [str(i) for i in range(7)], 3)
    assert [s.name for s in shards] == [f"train-{i:05d}-of-00003" for i in range(3)]
    assert [row for s in shards for row in s.row_ids] == [str(i) for i in range(7)]


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    plan = make_plan()
    write_all(tmp_path / "a", plan)
    artifact = Artifact.open(tmp_path / "a", "corpus")
    assert artifact.splits == ["train", "test"]
    assert artifact.counts() == {"ok": 6}
    train = artifact.table("captions", "train")
    assert train.column("row_id").to_pylist() == [row for s in plan.shards[:-1] for row in s.row_ids]
    assert artifact.table("captions", columns=["text"]).column_names == ["text"]
    with pytest.raises(UserError, match="no split 'val', it has train, test"):
        artifact.table("captions", "val")


def test_it_loads_with_datasets_by_folder_name(tmp_path: Path) -> None:
    write_all(tmp_path / "a", make_plan())
    loaded = datasets.load_dataset(str(tmp_path / "a"), "captions", cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 5, "test": 1}


def test_the_fingerprint_is_that_of_the_contents(tmp_path: Path) -> None:
    same = [write_all(tmp_path / name, make_plan()).fingerprint for name in "ab"]
    other = write_all(tmp_path / "c", make_plan(rows=4)).fingerprint
    assert same[0] == same[1] != other


def test_a_run_resumes_with_its_own_plan_only(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "a", make_plan())
    first = run.pending()[0]
    run.commit_shard(first, {"captions": rows_of(first.row_ids)})
    assert len(Run.open(tmp_path / "a", make_plan()).pending()) == 3
    with pytest.raises(UserError, match=r"seed: 0 there, 1 now.*--new-run"):
        Run.open(tmp_path / "a", make_plan(seed=1))
    assert len(Run.open(tmp_path / "a", make_plan(seed=1), new_run=True).pending()) == 4
    assert list((tmp_path / "a.old-1" / "captions").glob(f"{first.name}-*.parquet")), "nothing is deleted"


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="not empty"):
        Run.open(tmp_path, make_plan())
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_chunks_survive_until_their_shard_is_committed(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "a", make_plan())
    shard = run.pending()[0]
    for index, row_id in enumerate(shard.row_ids):
        run.chunks(shard).commit(index, {"captions": rows_of((row_id,))})
    again = Run.open(tmp_path / "a", make_plan())
    assert again.chunks(shard).indices() == [0, 1]
    merged = again.chunks(shard).read_all("captions")
    assert merged.equals(rows_of(shard.row_ids))
    again.commit_shard(shard, {"captions": merged})
    assert again.chunks(shard).indices() == []
    assert again.chunks(shard).read_all("captions").num_rows == 0


def test_finishing_tidies_up_after_the_killed(tmp_path: Path) -> None:
    write_all(tmp_path / "a", make_plan())
    run = Run.open(tmp_path / "a", make_plan())
    name = run.plan.shards[0].name
    old, young = (tmp_path / "a" / "captions" / f"{name}-{digits}.parquet" for digits in ("00000000", "11111111"))
    old.write_bytes(b"")
    young.write_bytes(b"")
    os.utime(old, (1, 1))
    (tmp_path / "a" / "work" / name).mkdir(parents=True)
    killed = tmp_path / "a" / "captions" / ".x.tmp"
    killed.write_bytes(b"")
    os.utime(killed, (1, 1))
    run.finish("Test", "")
    assert (old.exists(), young.exists(), killed.exists()) == (False, False, False)
    assert not (tmp_path / "a" / "work").exists()
    assert young.name not in (tmp_path / "a" / "README.md").read_text()


def test_who_loses_a_shard_drops_its_own_file_at_once(tmp_path: Path) -> None:
    one, other = (Run.open(tmp_path / "a", make_plan()) for _ in range(2))
    shard = one.plan.shards[0]
    assert one.commit_shard(shard, {"captions": rows_of(shard.row_ids)})
    (kept,) = (tmp_path / "a" / "captions").iterdir()
    assert not other.commit_shard(shard, {"captions": rows_of(shard.row_ids[:1])})
    assert not other.commit_shard(shard, {"captions": rows_of(shard.row_ids)}), "the same file, which counts"
    assert list((tmp_path / "a" / "captions").iterdir()) == [kept]


def test_nobody_lists_a_table_once_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, listed = Run.open(tmp_path / "a", make_plan(rows=20)), list[str]()

    def counting(real: Callable[..., Any]) -> Callable[..., Any]:
        return lambda path=".": (listed.append(str(path)), real(path))[1]

    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, counting(getattr(os, name)))
    for shard in run.pending():
        run.commit_shard(shard, {"captions": rows_of(shard.row_ids, shard.split)})
    assert str(tmp_path / "a" / "captions") not in listed
    run.finish("Test", "")
    assert 1 <= listed.count(str(tmp_path / "a" / "captions")) <= 3


def test_counts_must_add_up(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "a", make_plan())
    shard = run.pending()[0]
    with pytest.raises(ValueError, match="does not add up to 2 rows"):
        run.commit_shard(shard, {"captions": rows_of(shard.row_ids)}, counts={"ok": 1})
    assert run.pending()[0] == shard


def test_finish_refuses_an_unfinished_run(tmp_path: Path) -> None:
    with pytest.raises(UnfinishedError, match="4 shards"):
        Run.open(tmp_path / "a", make_plan()).finish("Test", "")


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    write_all(tmp_path / "a", make_plan())
    return tmp_path / "a"


def first(root: Path, pattern: str) -> Path:
    return sorted(root.glob(pattern))[0]


def test_reader_names_a_missing_artifact(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no corpus artifact at .*nowhere: sclmkb-gen corpus"):
        Artifact.open(tmp_path / "nowhere", "corpus")


def test_row_ids_lie_beside_the_plan_and_are_read_when_asked_for(finished: Path) -> None:
    plan, rows = make_plan(), first(finished, "plan-rows-*.parquet")
    assert not any(row_id in (finished / "plan.json").read_text() for row_id in plan.shards[0].row_ids)
    saved = Artifact.open(finished, "corpus").plan
    assert [(s.name, s.split, list(s.row_ids)) for s in saved.shards] == [
        (s.name, s.split, list(s.row_ids)) for s in plan.shards
    ]
    assert pq.read_table(rows).column("shard").to_pylist() == [s.name for s in plan.shards for _ in s.row_ids]
    data = rows.read_bytes()
    rows.write_bytes(data[:-9])
    artifact = Artifact.open(finished, "corpus")
    assert artifact.splits == ["train", "test"]
    with pytest.raises(UserError, match=f"row ids of the plan are corrupt: .*{rows.name}"):
        list(artifact.plan.shards[0].row_ids)
    rows.unlink()
    with pytest.raises(UserError, match=f"row ids of the plan are missing, .*{rows.name}"):
        list(Artifact.open(finished, "corpus").plan.shards[0].row_ids)
    Run.open(finished, plan)
    assert pq.read_table(rows).num_rows == 6, "the same command writes them again"


def test_who_starts_with_another_plan_leaves_no_row_ids_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = run_folder.create_json

    def second(path: Path, value: Any) -> bool:
        monkeypatch.undo()
        Run.open(tmp_path / "a", make_plan(rows=4))
        return real(path, value)

    monkeypatch.setattr(run_folder, "create_json", second)
    with pytest.raises(UserError, match="row_ids differ"):
        Run.open(tmp_path / "a", make_plan())
    assert len(list((tmp_path / "a").glob("plan-rows-*"))) == 1
    assert sum(len(s.row_ids) for s in Run.look(tmp_path / "a", "corpus").plan.shards) == len(make_plan(rows=4).rows())


def test_reader_names_the_wrong_kind(finished: Path) -> None:
    with pytest.raises(UserError, match="holds a 'corpus' artifact where a 'csi' one is needed"):
        Artifact.open(finished, "csi")


def test_reader_names_another_schema_version(finished: Path) -> None:
    plan = json.loads((finished / "plan.json").read_text())
    (finished / "plan.json").write_text(json.dumps({**plan, "schema_version": "0"}))
    message = f"schema version 0, this program reads {SCHEMA_VERSION}: make it again \\(sclmkb-gen corpus\\)"
    with pytest.raises(UserError, match=message):
        Artifact.open(finished, "corpus")
    with pytest.raises(UserError, match=r"schema_version: '0' there, .*--new-run"):
        Run.open(finished, make_plan())


def test_reader_names_an_unfinished_shard(finished: Path) -> None:
    first(finished, "manifests/*.json").unlink()
    with pytest.raises(UserError, match="unfinished: shard"):
        Artifact.open(finished, "corpus")


def test_reader_names_a_missing_file(finished: Path) -> None:
    gone = first(finished, "captions/*.parquet")
    gone.unlink()
    with pytest.raises(UserError, match=f"missing shard file .*{gone.name}"):
        Artifact.open(finished, "corpus", verify=False)


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_reader_names_a_corrupt_file(finished: Path, damage: str) -> None:
    broken = first(finished, "captions/*.parquet")
    data = bytearray(broken.read_bytes())
    if damage == "truncate":
        del data[len(data) // 2 :]
    else:
        data[len(data) // 2] ^= 0xFF
    broken.write_bytes(data)
    with pytest.raises(UserError, match=f"corrupt shard file .*{broken.name}"):
        Artifact.open(finished, "corpus")


def test_reader_names_a_broken_plan(finished: Path) -> None:
    (finished / "plan.json").write_text('{"kind": "cor')
    with pytest.raises(UserError, match=r"plan\.json cannot be read"):
        Artifact.open(finished, "corpus")


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.open(tmp_path / "a", make_plan())
    shard = run.pending()[0]
    before = [p.name for p in (tmp_path / "a").rglob("*") if p.is_file()]
    real = pq.write_table

    def fails(table: pa.Table, where: Path, **kwargs: object) -> None:
        real(table, where, **kwargs)
        raise OSError(errno.ENOSPC, "No space left on device", str(where))

    monkeypatch.setattr(pq, "write_table", fails)
    with pytest.raises(OSError, match="No space left"):
        run.commit_shard(shard, {"captions": rows_of(shard.row_ids)})
    assert [p.name for p in (tmp_path / "a").rglob("*") if p.is_file()] == before
    monkeypatch.undo()
    run.commit_shard(shard, {"captions": rows_of(shard.row_ids)})
    assert shard not in Run.open(tmp_path / "a", make_plan()).pending()


def test_row_ids_depend_on_place_not_on_text() -> None:
    ids = {make_row_id(d, s, i, c) for d in "ab" for s in ("train", "test") for i in "xy" for c in (0, 1)}
    assert len(ids) == 16


def test_a_shard_that_another_process_commits_between_two_looks_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan()
    one, other = Run.open(tmp_path / "run", plan), Run.open(tmp_path / "run", plan)
    shard = plan.shards[0]
    table = rows_of(shard.row_ids)
    one.chunks(shard).commit(0, {"captions": table})

    def committed_meanwhile(path: Path) -> str:
        monkeypatch.undo()
        other.commit_shard(shard, {"captions": table})
        return files.sha256_file(path)

    monkeypatch.setattr(files, "sha256_file", committed_meanwhile)
    with pytest.raises(ShardCommittedError):
        one.chunks(shard).read(0, "captions")


def test_a_shard_whose_folder_goes_while_it_is_listed_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan()
    one, other = Run.open(tmp_path / "run", plan), Run.open(tmp_path / "run", plan)
    shard = plan.shards[0]
    one.chunks(shard).commit(0, {"captions": rows_of(shard.row_ids)})

    def committed_meanwhile(folder: Path, pattern: str) -> list[Path]:
        monkeypatch.undo()
        other.commit_shard(shard, {"captions": rows_of(shard.row_ids)})
        raise FileNotFoundError(folder)

    monkeypatch.setattr(Path, "glob", committed_meanwhile)
    with pytest.raises(ShardCommittedError):
        one.chunks(shard).indices()
