"""Stores of items, and the cache of what was decoded."""

import os
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from media_files import npy, png, sound

from sclmkb.common.artifacts import schemas
from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.plan import Plan, make_shards
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.errors import UserError
from sclmkb.common.modalities import cache as media_cache
from sclmkb.common.modalities.base import recognise
from sclmkb.common.modalities.image import PictureForm, Pictures
from sclmkb.common.modalities.motion import MotionForm
from sclmkb.common.modalities.store import MediaStore, media_kind


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Artifact]:
    """Write a corpus of one split out of cells: bytes, or a name below ``tmp_path / "data"``."""

    def run(cells: Mapping[str, bytes | str | None], name: str = "corpus", **notes: Any) -> Artifact:
        rows, given = [], notes.pop("modality", "")
        for item, cell in cells.items():
            media = {
                "bytes": cell if isinstance(cell, bytes) else None,
                "path": cell if isinstance(cell, str) else None,
            }
            known = recognise(media["path"] or "", media["bytes"] or b"")
            kind = given or (known.name if known else "")
            row = {"item_id": item, "identity": item, "group": item, "split": "test", "source": "", "modality": kind}
            rows.append({**row, "media": media})
        if any(isinstance(cell, str) for cell in cells.values()):
            notes["root"] = str(tmp_path / "data")
        shards = make_shards("test", list(cells), 2)
        plan = Plan(kind="corpus", tables={"items": schemas.ITEMS}, settings={}, shards=shards, inputs={}, notes=notes)
        opened = Run.open(tmp_path / name, plan)
        for shard in shards:
            chosen = [row for row in rows if row["item_id"] in shard.row_ids]
            opened.commit_shard(shard, {"items": pa.Table.from_pylist(chosen, schema=schemas.ITEMS)})
        return opened.finish("Tiny", "For tests.")

    return run


def all_of(store: MediaStore) -> torch.Tensor:
    return store.take(torch.arange(len(store))).values


def test_items_are_read_in_any_order(write: Callable[..., Artifact], tmp_path: Path) -> None:
    corpus = write({f"p{i}": png((i, 0, 0)) for i in range(7)})
    store = MediaStore.open(corpus, "test", PictureForm(size=8), tmp_path / "cache")
    assert (store.form.kind, store.shape, len(store)) == ("pictures", (3, 8, 8), 7)
    assert store.item_ids == [f"p{i}" for i in range(7)]
    batch = store.take(torch.tensor([6, 0, 3, 3]))
    assert batch.values[:, 0, 4, 4].tolist() == [6, 0, 3, 3]
    assert batch.length.tolist() == [1, 1, 1, 1]
    batch.values.zero_()
    assert all_of(store)[6].any(), "batches are copies"


def test_what_cannot_be_read_is_quarantined_and_counted(
    write: Callable[..., Artifact], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = npy(np.ones((5, 2, 3), dtype=np.float32))
    corpus = write(
        {"a": b"\x93NUMPY broken", "b": good, "c": npy(np.ones((5, 3, 3), dtype=np.float32)), "d": good},
        modality="motion",
    )
    for _ in range(2):  # decoded, and from the cache
        store = MediaStore.open(corpus, "test", MotionForm(num_frames=4), tmp_path / "cache")
        assert store.item_ids == ["b", "d"]
        assert [item for item, _ in store.quarantined] == ["a", "c"]
        assert "9 values a frame where others have 6" in store.quarantined[1][1]
        assert store.take(torch.tensor([1])).length.tolist() == [4]
        line = [line for line in capsys.readouterr().err.splitlines() if "cannot be read" in line]
        assert line == [
            "corpus: 2 of 4 motion of split test cannot be read and are left out; the first: 'a': no NumPy array"
        ]


def test_a_corpus_without_one_readable_item_is_refused(write: Callable[..., Artifact], tmp_path: Path) -> None:
    corpus = write({"a-1": b"\x89PNG no picture"})
    with pytest.raises(UserError, match=r"not one of the 1 pictures of split 'test' .* the first, 'a-1': no readable"):
        MediaStore.open(corpus, "test", PictureForm(), tmp_path / "cache")
    left = [path.name for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"]
    assert not left, "nothing is kept but the lock"
    with pytest.raises(UserError, match="captions alone: make it again with --set media=path"):
        MediaStore.open(write({"a": None}, "none"), "test", PictureForm(), tmp_path / "cache")


def test_decoded_once_for_each_form_and_content(
    write: Callable[..., Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    real = Pictures.decode
    monkeypatch.setattr(Pictures, "decode", lambda *args: calls.append(1) or real(*args))
    cells = {f"p{i}": png((i, 0, 0)) for i in range(3)}
    cache = tmp_path / "cache"

    def opened(name: str, cells: Mapping[str, bytes], size: int = 8) -> tuple[int, torch.Tensor]:
        calls.clear()
        store = MediaStore.open(write(cells, name), "test", PictureForm(size=size), cache)
        return len(calls), all_of(store)

    count, values = opened("one", cells)
    assert count == 3
    again, same = opened("two", cells)
    assert again == 0
    assert torch.equal(values, same)
    assert opened("one", cells, size=9)[0] == 3
    assert opened("other", {**cells, "p1": png((77, 0, 0))})[0] == 3


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        ("values", lambda data: data[:-1]),
        ("values", lambda data: bytes([data[0] ^ 1, *data[1:]])),
        ("values", None),
        ("json", None),
        ("json", lambda _: b'{"shape": 3}'),
    ],
    ids=["cut", "flip", "no values", "no notes", "other notes"],
)
def test_a_corrupt_cache_is_made_again(
    write: Callable[..., Artifact], tmp_path: Path, suffix: str, content: Callable[[bytes], bytes] | None
) -> None:
    corpus = write({f"p{i}": png((i, 0, 0)) for i in range(3)})
    form, cache = PictureForm(size=8), tmp_path / "cache"
    before = all_of(MediaStore.open(corpus, "test", form, cache))
    file = next(cache.glob(f"*.{suffix}"))
    spoilt = content(file.read_bytes()) if content else None
    file.unlink()  # it is mapped
    if spoilt is not None:
        file.write_bytes(spoilt)
    assert torch.equal(all_of(MediaStore.open(corpus, "test", form, cache)), before)
    assert not list(cache.glob(".*.tmp"))


def test_files_beside_the_corpus_are_read_again_when_they_change(
    write: Callable[..., Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for i in range(3):
        (data / f"{i}.png").write_bytes(png((i, 0, 0)))
    corpus = write({f"p{i}": f"{i}.png" for i in range(3)})
    assert media_kind(corpus) == "pictures"
    form, cache = PictureForm(size=8), tmp_path / "cache"
    assert all_of(MediaStore.open(corpus, "test", form, cache))[:, 0, 0, 0].tolist() == [0, 1, 2]
    (data / "1.png").write_bytes(png((9, 0, 0)))
    (data / "2.png").unlink()
    store = MediaStore.open(corpus, "test", form, cache)
    assert all_of(store)[:, 0, 0, 0].tolist() == [0, 9]
    assert store.quarantined[0][0] == "p2"
    assert "No such file" in store.quarantined[0][1]
    # Another time of change alone decodes nothing.
    monkeypatch.setattr(media_cache, "_write", None)
    os.utime(data / "1.png", (1, 1))
    assert len(MediaStore.open(corpus, "test", form, cache)) == 2


def test_memory_is_flat_in_the_number_of_items(write: Callable[..., Artifact], tmp_path: Path) -> None:
    def peak(count: int) -> int:
        corpus = write({f"p{i}": png((i % 256, i // 256, 0), size=4) for i in range(count)}, f"c{count}")
        tracemalloc.start()
        try:
            MediaStore.open(corpus, "test", PictureForm(size=256), tmp_path / "cache")
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many = peak(40), peak(160)  # 8 and 31 MB decoded
    assert many - few < 4e6


def test_the_rate_of_motion_comes_from_the_corpus(write: Callable[..., Artifact], tmp_path: Path) -> None:
    motion = {"a": npy(np.arange(31, dtype=np.float32)[:, None] * np.ones(3, dtype=np.float32))}
    form, cache = MotionForm(num_frames=20, frames_per_second=10), tmp_path / "cache"
    slow = MediaStore.open(write(motion, "slow", frames_per_second=10.0), "test", form, cache)
    fast = MediaStore.open(write(motion, "fast", frames_per_second=30.0), "test", form, cache)
    assert slow.take(torch.tensor([0])).length.tolist() == [20]
    assert fast.take(torch.tensor([0])).length.tolist() == [11]
    with pytest.raises(UserError, match="does not say its frames per second"):
        MediaStore.open(write(motion, "unknown"), "test", form, cache)


def test_a_corpus_says_its_kind_or_nobody_can_tell(write: Callable[..., Artifact]) -> None:
    assert media_kind(write({"a": b"text", "b": sound(np.zeros(9), kind="OGG")})) == "audio"
    with pytest.raises(UserError, match=r"no known kind of media \(audio, motion, pictures, video\)"):
        media_kind(write({"a": b"text"}, "text"))
