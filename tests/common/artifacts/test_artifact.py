"""An artifact in a folder; tests/storage/test_contract.py has what holds wherever it is."""

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
from tiny import caption_table

from sclmkb.common.artifacts import files, run_folder
from sclmkb.common.artifacts.artifact import Artifact, open_all
from sclmkb.common.artifacts.chunks import Chunks, ShardCommittedError
from sclmkb.common.artifacts.plan import Plan, make_row_id, make_shards
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.artifacts.schemas import CAPTIONS, SCHEMA_VERSION
from sclmkb.common.errors import UserError


def make_plan(rows: int = 5) -> Plan:
    ids = [make_row_id("test", "train", str(i), 0) for i in range(rows)]
    shards = [*make_shards("train", ids, 2), *make_shards("test", ["only"], 2)]
    return Plan(kind="corpus", tables={"captions": CAPTIONS}, settings={}, shards=shards, inputs={})


def write_all(root: Path, plan: Plan) -> Artifact:
    run = Run.open(root, plan)
    for shard in run.pending():
        table = caption_table(shard.row_ids, split=shard.split)
        run.commit_shard(shard, {"captions": table}, counts={"ok": len(shard.row_ids)})
    return run.finish("Test", "A test artifact.")


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    write_all(tmp_path / "a", make_plan())
    return tmp_path / "a"


def test_what_was_written_is_read_back_also_by_datasets(finished: Path, tmp_path: Path) -> None:
    artifact = Artifact.open(finished, "corpus")
    assert artifact.splits == ["train", "test"]
    assert artifact.counts() == {"ok": 6}
    train = artifact.table("captions", "train")
    assert train.column("row_id").to_pylist() == [row for s in make_plan().shards[:-1] for row in s.row_ids]
    assert artifact.table("captions", columns=["text"]).column_names == ["text"]
    with pytest.raises(UserError, match="no split 'val', it has train, test"):
        artifact.table("captions", "val")
    loaded = datasets.load_dataset(str(finished), "captions", cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 5, "test": 1}


def test_the_fingerprint_is_that_of_the_contents(tmp_path: Path) -> None:
    same = [write_all(tmp_path / name, make_plan()).fingerprint for name in "ab"]
    other = write_all(tmp_path / "c", make_plan(rows=4)).fingerprint
    assert same[0] == same[1] != other


def test_finishing_tidies_up_after_the_killed(finished: Path) -> None:
    run = Run.open(finished, make_plan())
    name = run.plan.shards[0].name
    old, young, killed = (
        finished / "captions" / f for f in (f"{name}-00000000.parquet", f"{name}-11111111.parquet", ".x.tmp")
    )
    for path in (old, young, killed):
        path.touch()
    for path in (old, killed):
        os.utime(path, (1, 1))
    (finished / "work" / name).mkdir(parents=True)
    run.finish("Test", "")
    assert not [path for path in (old, young, killed, finished / "work") if path.exists()]
    assert young.name not in (finished / "README.md").read_text()


def test_who_loses_a_shard_drops_its_own_file_at_once(tmp_path: Path) -> None:
    one, other = (Run.open(tmp_path / "a", make_plan()) for _ in range(2))
    shard = one.plan.shards[0]
    assert one.commit_shard(shard, {"captions": caption_table(shard.row_ids)})
    (kept,) = (tmp_path / "a" / "captions").iterdir()
    assert not other.commit_shard(shard, {"captions": caption_table(shard.row_ids[:1])})
    assert not other.commit_shard(shard, {"captions": caption_table(shard.row_ids)}), "the same file, which counts"
    assert list((tmp_path / "a" / "captions").iterdir()) == [kept]


def test_nobody_lists_a_table_once_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, listed = Run.open(tmp_path / "a", make_plan(rows=20)), list[str]()

    def counting(real: Callable[..., Any]) -> Callable[..., Any]:
        return lambda path=".": (listed.append(str(path)), real(path))[1]

    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, counting(getattr(os, name)))
    for shard in run.pending():
        run.commit_shard(shard, {"captions": caption_table(shard.row_ids, split=shard.split)})
    assert str(tmp_path / "a" / "captions") not in listed
    run.finish("Test", "")
    assert 1 <= listed.count(str(tmp_path / "a" / "captions")) <= 3


def test_counts_must_add_up(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "a", make_plan())
    shard = run.pending()[0]
    with pytest.raises(ValueError, match="does not add up to 2 rows"):
        run.commit_shard(shard, {"captions": caption_table(shard.row_ids)}, counts={"ok": 1})
    assert run.pending()[0] == shard


def test_row_ids_lie_beside_the_plan_and_are_read_when_asked_for(finished: Path) -> None:
    plan, (rows,) = make_plan(), finished.glob("plan-rows-*.parquet")
    assert not any(row_id in (finished / "plan.json").read_text() for row_id in plan.shards[0].row_ids)
    saved = Artifact.open(finished, "corpus").plan
    assert [(s.name, s.split, list(s.row_ids)) for s in saved.shards] == [
        (s.name, s.split, list(s.row_ids)) for s in plan.shards
    ]
    assert pq.read_table(rows).column("shard").to_pylist() == [s.name for s in plan.shards for _ in s.row_ids]
    rows.write_bytes(rows.read_bytes()[:-9])
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


def test_a_reader_names_another_kind_another_version_and_a_broken_plan(finished: Path) -> None:
    with pytest.raises(UserError, match="holds a 'corpus' artifact where a 'csi' one is needed"):
        Artifact.open(finished, "csi")
    path = finished / "plan.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": "0"}))
    message = f"schema version 0, this program reads {SCHEMA_VERSION}: make it again \\(sclmkb-gen corpus\\)"
    with pytest.raises(UserError, match=message):
        Artifact.open(finished, "corpus")
    with pytest.raises(UserError, match=r"schema_version: '0' there, .*--new-run"):
        Run.open(finished, make_plan())
    path.write_text('{"kind": "cor')
    with pytest.raises(UserError, match=r"plan\.json cannot be read"):
        Artifact.open(finished, "corpus")


@pytest.mark.parametrize(
    ("owner", "name", "look"),
    [
        (files, "sha256_file", lambda chunks: chunks.read(0, "captions")),
        (Path, "glob", lambda chunks: chunks.indices()),
    ],
)
def test_a_shard_that_another_process_commits_between_two_looks_is_left(
    owner: Any, name: str, look: Callable[[Chunks], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (Run.open(tmp_path / "run", make_plan()) for _ in range(2))
    shard = one.plan.shards[0]
    table = caption_table(shard.row_ids)
    one.chunks(shard).commit(0, {"captions": table})

    def committed_meanwhile(path: Path, *_: object) -> None:
        monkeypatch.undo()
        other.commit_shard(shard, {"captions": table})
        raise FileNotFoundError(path)

    monkeypatch.setattr(owner, name, committed_meanwhile)
    with pytest.raises(ShardCommittedError):
        look(one.chunks(shard))


@pytest.mark.parametrize("error", [FileNotFoundError, FileExistsError])
def test_a_folder_that_another_process_deletes_just_then_is_made_again(
    error: type[OSError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deleted_meanwhile(*_: object, **__: object) -> None:
        monkeypatch.undo()
        raise error

    monkeypatch.setattr(Path, "mkdir", deleted_meanwhile)
    files.write_json(tmp_path / "shard" / "chunk.json", {})
    assert (tmp_path / "shard" / "chunk.json").exists()


def test_a_folder_stands_for_the_finished_artifacts_in_it(tmp_path: Path) -> None:
    for name in ("b", "a", "a.old-1"):
        write_all(tmp_path / "in" / name, make_plan())
    Run.open(tmp_path / "in" / "begun", make_plan())
    found = open_all([tmp_path / "in", tmp_path / "in" / "b"], "corpus")
    assert [artifact.root.name for artifact in found] == ["a", "b", "b"]
    with pytest.raises(UserError, match="no corpus artifact at"):
        open_all([tmp_path], "corpus")


def test_one_process_at_a_time_makes_a_file(tmp_path: Path) -> None:
    path, made = tmp_path / "cache" / "file", []

    def make(name: str) -> None:
        with files.one_at_a_time(path):
            if not path.exists():
                time.sleep(0.1)
                path.write_text(name)
                made.append(name)

    threads = [threading.Thread(target=make, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
