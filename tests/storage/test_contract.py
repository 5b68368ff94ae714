"""The artifact contract wherever the folder is: same bytes, first commit wins, what was killed goes on."""

import json
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chunked_run import CHUNK_ROWS, ROW_IDS, check_whole, make_plan, work
from fsspec.implementations.memory import MemoryFileSystem
from tiny import caption_table

from sclmkb.common.artifacts import chunks, files, storage
from sclmkb.common.artifacts.artifact import Artifact, UnfinishedError
from sclmkb.common.artifacts.files import cache_dir
from sclmkb.common.artifacts.plan import Shard
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.artifacts.storage import ObjectPath, parse_folder, parse_local
from sclmkb.common.errors import UserError
from sclmkb.generate.captions.shared_arrays import Array, share_arrays
from sclmkb.generate.runs.verify import find_problems

Store = Any  # of conftest.py


class Dead(BaseException):
    """The process was killed."""


def contents(store: Store, root: Path) -> dict[str, bytes]:
    """Return all files of a run, without the time at which its shards were finished."""
    found = {}
    for name, data in store.files(root).items():
        if name.startswith("manifests/"):
            data = json.dumps({k: v for k, v in json.loads(data).items() if k != "finished"}).encode()
        found[name] = data
    return found


@pytest.fixture
def expected(tmp_path: Path, store: Store) -> dict[str, bytes]:
    """Return the files of an undisturbed local run."""
    work(tmp_path / "expected")
    return contents(store, tmp_path / "expected")


def test_a_run_is_the_same_byte_for_byte_wherever_it_is(store: Store, expected: dict[str, bytes]) -> None:
    work(store.root / "a")
    assert contents(store, store.root / "a") == expected
    assert Artifact.open(store.root / "a", "corpus").table("captions")["row_id"].to_pylist() == ROW_IDS
    assert list(find_problems(store.root / "a")) == []
    work(store.root / "a")  # nothing is left to do
    assert contents(store, store.root / "a") == expected


def test_it_stays_the_same_when_a_tenth_of_the_calls_fail_and_some_hang(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    for name in ("memory", "s3"):
        store = request.getfixturevalue(name)
        store.faults.set(0.1, slow=0.02 if name == "s3" else 0.0)
        for number in range(3):
            work(store.root / str(number))
        assert store.faults.failed > 10
        assert name == "memory" or store.faults.delayed
        store.faults.set(0.0)
        work(tmp_path / name)
        for number in range(3):
            assert contents(store, store.root / str(number)) == contents(store, tmp_path / name)


@pytest.mark.parametrize("step", range(17))
def test_who_is_killed_between_any_two_steps_loses_nothing(
    step: int, memory: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps are what changes something: data and what makes them count, chunks and shards, and deletions."""
    count = 0

    def mortal(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            if count == step:
                raise Dead
            count += 1
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in ("put_new", "put_file", "remove_below"):
            patch.setattr(storage, name, mortal(getattr(storage, name)))
        with pytest.raises(Dead):
            work(memory.root / "a")
    work(memory.root / "a")
    work(tmp_path / "expected")
    assert contents(memory, memory.root / "a") == contents(memory, tmp_path / "expected")


def test_data_without_a_manifest_do_not_count(store: Store, expected: dict[str, bytes]) -> None:
    run = Run.open(store.root / "a", make_plan())
    shard = run.plan.shards[0]

    def die(*_: Any) -> bool:
        raise Dead

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "create_json", die)
        with pytest.raises(Dead):
            run.commit_shard(shard, {"captions": caption_table(shard.row_ids)})
    assert any(name.startswith("captions/") for name in store.files(store.root / "a"))
    again = Run.open(store.root / "a", make_plan())
    assert again.pending() == list(again.plan.shards)
    work(store.root / "a")
    assert contents(store, store.root / "a") == expected


def test_of_writers_at_once_the_first_counts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    together, runs = threading.Barrier(4), [Run.open(store.root / "a", make_plan()) for _ in range(4)]
    looked, look = threading.Barrier(4), storage._read_if_there

    def look_together(path: ObjectPath) -> bytes | None:
        found = look(path)
        looked.wait()  # nobody puts before all have seen that there is none
        return found

    monkeypatch.setattr(storage, "_read_if_there", look_together)

    def commit(number: int, shard: Shard) -> bool:
        together.wait()
        return runs[number].commit_shard(shard, {"captions": caption_table(shard.row_ids, f"text {number}")})

    for shard in runs[0].plan.shards:
        with ThreadPoolExecutor(4) as pool:
            won = list(pool.map(lambda number, shard=shard: commit(number, shard), range(4)))
        assert won.count(True) == 1
        artifact_text = f"text {won.index(True)}"
        manifest = runs[0].manifest(shard)
        assert manifest is not None
        (name,) = manifest["files"]
        assert [p for p in store.files(store.root / "a") if p.startswith(f"captions/{shard.name}")] == [name]
        local = files.local_copy(store.root / "a" / name, manifest["files"][name]["sha256"])
        assert set(files.read_parquet(local)["text"].to_pylist()) == {artifact_text}


def test_chunks_of_processes_on_one_shard_never_mix(store: Store) -> None:
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda text: work(store.root / "a", text), "abc"))
    work(store.root / "a", "d")
    check_whole(store.root / "a")


def test_another_plan_is_refused(store: Store) -> None:
    work(store.root / "a")
    with pytest.raises(UserError, match=r"seed: 0 there, 1 now"):
        Run.open(store.root / "a", make_plan(seed=1))
    with pytest.raises(UserError, match="no run to join"):
        Run.open(store.root / "b", make_plan(), join=True)
    files.write_bytes(store.root / "c" / "thesis.tex", b"years of work")
    with pytest.raises(UserError, match="not empty and holds no plan"):
        Run.open(store.root / "c", make_plan())


def test_what_is_wrong_is_named(store: Store) -> None:
    with pytest.raises(UserError, match=r"no corpus artifact at .*nowhere: sclmkb-gen corpus"):
        Artifact.open(store.root / "nowhere", "corpus")
    work(store.root / "a")
    name = next(name for name in store.files(store.root / "a") if name.startswith("captions/"))
    whole = store.files(store.root / "a")[name]
    files.write_bytes(store.root / "a" / name, whole[: len(whole) // 2])
    for cached in (Path(files.cache_dir()) / "artifacts").glob("*"):
        cached.unlink()
    with pytest.raises(UserError, match=f"corrupt shard file .*{name}.*delete its manifest"):
        Artifact.open(store.root / "a", "corpus")
    assert [name in problem for problem in find_problems(store.root / "a")] == [True]
    (store.root / "a" / name).unlink()
    with pytest.raises(UserError, match=f"missing shard file .*{name}"):
        Artifact.open(store.root / "a", "corpus", verify=False)
    (store.root / "a" / "manifests" / "train-00001-of-00002.json").unlink()
    with pytest.raises(UnfinishedError, match="train-00001"):
        Artifact.open(store.root / "a", "corpus")


def test_nothing_is_concluded_from_a_listing(memory: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.open(memory.root / "a", make_plan())
    shard = run.plan.shards[0]
    run.chunks(shard).commit(0, {"captions": caption_table(shard.row_ids[:CHUNK_ROWS])})
    for name in ("ls", "find"):
        monkeypatch.setattr(MemoryFileSystem, name, lambda *_, **__: [])
    assert Run.open(memory.root / "a", make_plan()).chunks(shard).indices() == [0]
    work(memory.root / "a")
    assert Artifact.open(memory.root / "a", "corpus").table("captions")["row_id"].to_pylist() == ROW_IDS


def test_shards_are_fetched_once_and_kept_by_hash(
    memory: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    work(memory.root / "a")
    monkeypatch.setenv("SCLMKB_CACHE", str(tmp_path / "other machine"))
    fetched: list[str] = []
    real = storage.get_file
    monkeypatch.setattr(storage, "get_file", lambda path, local: (fetched.append(path.name), real(path, local)))
    for _ in range(2):
        artifact = Artifact.open(memory.root / "a", "corpus")
        artifact.table("captions")
        assert len(fetched) == 2
    kept = sorted((tmp_path / "other machine" / "artifacts").iterdir())
    hashes = [entry["sha256"] for m in artifact.manifests for entry in m["files"].values()]
    assert [p.name for p in kept] == sorted(hashes)
    kept[0].write_bytes(b"spoiled")
    assert artifact.table("captions")["row_id"].to_pylist() == ROW_IDS
    assert len(fetched) == 3


def test_a_store_that_overwrites_is_told_and_what_is_there_is_whole(
    memory: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work(memory.root / "a")
    assert "overwrites" not in capsys.readouterr().err
    real = MemoryFileSystem.pipe_file
    monkeypatch.setattr(MemoryFileSystem, "pipe_file", lambda self, url, data, mode="": real(self, url, data))
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda text: work(memory.root / "b", text), "abc"))
    work(memory.root / "b")
    assert "this store overwrites what is there" in capsys.readouterr().err
    rows = Artifact.open(memory.root / "b", "corpus").table("captions").to_pylist()
    assert [row["row_id"] for row in rows] == ROW_IDS


@pytest.mark.parametrize("error", [NotImplementedError(), ValueError("mode"), OSError(38, "501")])
def test_a_store_that_knows_no_conditions_is_asked_before(
    memory: Store, error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = MemoryFileSystem.pipe_file

    def refuse(self: Any, url: str, data: bytes, mode: str = "overwrite") -> None:
        if mode == "create":
            raise error
        real(self, url, data)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", refuse)
    assert work(memory.root / "a") is not None
    assert "this store overwrites" in capsys.readouterr().err
    assert not files.create_json(memory.root / "a" / "plan.json", {})


def test_no_bucket_is_one_line(s3: Store) -> None:
    nowhere = parse_folder("s3://no-such-bucket-anywhere/a")
    for attempt in (lambda: Run.open(nowhere, make_plan()), lambda: Artifact.open(nowhere, "corpus")):
        with pytest.raises(UserError, match="there is no s3://no-such-bucket-anywhere: make that bucket first"):
            attempt()


def test_no_credentials_are_one_line(s3: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import s3fs

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "absent"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(UserError, match=r"no credentials .*AWS_ACCESS_KEY_ID"):
        Run.open(s3.root / "a", make_plan())
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def absent(*_: Any, **__: Any) -> Any:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "filesystem", absent)
    with pytest.raises(UserError, match=r"s3://b/a.* not installed: pip install 'sclmkb\[s3\]'"):
        Run.open(parse_folder("s3://b/a"), make_plan())


def test_folders_are_read_as_written(tmp_path: Path) -> None:
    assert parse_folder("runs/a") == Path("runs/a")
    assert not isinstance(parse_folder(f"file://{tmp_path}/a"), ObjectPath)
    assert parse_folder(f"file://{tmp_path}/a") == tmp_path / "a"
    far = parse_folder("s3://bucket/runs//a/")
    assert str(far / "plan.json") == "s3://bucket/runs/a/plan.json"
    assert str(far.parent) == "s3://bucket/runs"
    assert isinstance(far.with_name("b"), ObjectPath)
    with pytest.raises(UserError, match="nothing is known of s4://"):
        parse_folder("s4://bucket/a")
    with pytest.raises(UserError, match="s3://bucket/a is in object storage, and this option takes local paths only"):
        parse_local("s3://bucket/a")
    assert parse_local("runs/a") == Path("runs/a")
    for forbidden in (lambda: far.open(), lambda: far.mkdir(), lambda: list(far.glob("*")), lambda: far.rename("x")):
        with pytest.raises(UserError, match="needs a local folder"):
            forbidden()


def test_what_processes_share_is_shared_in_every_place_and_goes_with_the_last_step(store: Store) -> None:
    made: list[int] = []

    def make(index: int) -> Array:
        made.append(index)
        return np.full((4, 2), index, np.float32)

    for _ in range(2):
        parts = share_arrays(Run.open(store.root / "run", make_plan()), "x", [4] * 5, make)
        assert [float(part[0, 0]) for part in parts] == [0, 1, 2, 3, 4]
    assert sorted(made) == [0, 1, 2, 3, 4]
    name = next(n for n in sorted(store.files(store.root / "run")) if n.startswith("work/shared/x-00003-"))
    (store.root / "run" / name).write_bytes(b"spoiled")
    shutil.rmtree(cache_dir(), ignore_errors=True)
    parts = share_arrays(Run.open(store.root / "run", make_plan()), "x", [4] * 5, make)
    assert [float(part[0, 0]) for part in parts] == [0, 1, 2, 3, 4]
    assert made[5:] == [3]
    assert work(store.root / "run") is not None
    assert [n for n in store.files(store.root / "run") if n.startswith("work/")] == []
