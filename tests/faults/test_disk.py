"""A disk that is full, and files that rot."""

import errno
import gc
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from commands import Done, run_command
from sdg_fakes import FakeEngine, InterruptedEngine, Job, fake_settings, files, make_backend

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.errors import UserError
from sclmkb.generate.captions.sdg import SdgSettings
from sclmkb.generate.runs.verify import find_problems


@pytest.fixture
def run(corpus: Path, tmp_path: Path) -> Callable[..., Artifact | None]:
    """Return what runs SDG into the folder ``run``, with an engine."""
    return lambda *engine: Job(tmp_path, corpus)("run", *engine)


@pytest.fixture
def command(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Done]:
    """Return what runs ``sclmkb-gen sdg`` with the fake engine."""
    settings = fake_settings()
    backend = make_backend(settings, FakeEngine())
    monkeypatch.setattr("sclmkb.generate.captions.backend.make_backend", lambda _: backend)
    monkeypatch.setattr(SdgSettings, "resolve", lambda **_: settings)
    return lambda out: run_command(["sclmkb-gen", "sdg", "--corpus", corpus, "--out", out])


@pytest.mark.parametrize("nth", [0, 1, 5, 12, 20, 27])
def test_a_full_disk_is_one_line_and_the_run_goes_on_afterwards(
    command: Callable[[Path], Done], whole: Path, tmp_path: Path, nth: int
) -> None:
    real, count = pq.write_table, 0

    def fails(table: Any, where: Path, **kwargs: Any) -> None:
        nonlocal count
        real(table, where, **kwargs)
        count += 1
        if count > nth:
            with open(where, "r+b") as file:  # noqa: PTH123
                file.truncate(10)
            raise OSError(errno.ENOSPC, "No space left on device", str(where))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pq, "write_table", fails)
        done = command(tmp_path / "run")
    assert done.code == 2
    assert done.err.count("error: no space left on the device") == 1
    assert "Traceback" not in done.err
    assert not list((tmp_path / "run").rglob("*.tmp"))
    assert command(tmp_path / "run").code == 0
    assert files(tmp_path / "run") == files(whole)


@pytest.fixture(params=["24k", "96k"], ids=["no room for the source features", "no room for all shards"])
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Mount a file system of some KiB, where this user may."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={request.param}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    gc.collect()  # source features are mapped until then
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full(command: Callable[[Path], Done], whole: Path, small_disk: Path) -> None:
    done = command(small_disk / "run")
    assert done.code == 2
    assert "no space left on the device" in done.err
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    assert command(small_disk / "run").code == 0
    assert files(small_disk / "run") == files(whole)
    assert list(find_problems(small_disk / "run")) == []


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "cut":
        del data[len(data) // 2 :]
    elif how == "emptied":
        data.clear()
    else:
        data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["cut", "emptied", "flipped"])
@pytest.mark.parametrize("table", ["rows", "attempts"])
def test_a_corrupt_shard_is_named_and_made_again_as_it_was(
    run: Callable[..., Artifact | None], whole: Path, tmp_path: Path, table: str, how: str
) -> None:
    out = tmp_path / "run"
    run()
    path = sorted((out / table).glob("*.parquet"))[1]
    damage(path, how)
    with pytest.raises(UserError, match=f"corrupt shard file .*{path.name}.*delete its manifest"):
        Artifact.open(out, "sdg")
    assert [path.name in problem for problem in find_problems(out)] == [True]
    (out / "manifests" / "train-00001-of-00003.json").unlink()
    run()
    assert files(out) == files(whole)


@pytest.mark.parametrize("how", ["cut", "emptied", "flipped"])
@pytest.mark.parametrize("pattern", ["work/*/attempts-00001-*.parquet", "work/*/chunk-00001.json"])
def test_a_corrupt_chunk_is_named_and_made_again_as_it_was(
    run: Callable[..., Artifact | None], whole: Path, tmp_path: Path, pattern: str, how: str
) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(InterruptedEngine(4))
    (path,) = out.glob(pattern)
    damage(path, how)
    with pytest.raises(UserError, match=path.name) as raised:
        run()
    assert "delete" in str(raised.value)
    for left in path.parent.iterdir():
        left.unlink()
    path.parent.rmdir()
    run()
    assert files(out) == files(whole)


def test_a_corrupt_manifest_is_named(run: Callable[..., Artifact | None], whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run()
    path = out / "manifests" / "train-00001-of-00003.json"
    path.write_text(json.dumps(json.loads(path.read_text()))[:-20])
    with pytest.raises(UserError, match=f"{path.name} cannot be read as JSON: delete it"):
        Artifact.open(out, "sdg")
    path.unlink()
    run()
    assert files(out) == files(whole)
