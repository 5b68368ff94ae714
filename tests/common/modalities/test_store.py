"""Decoding of pictures, motion and sound, and the cache of what was decoded."""

import io
import os
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from sclmkb.common.artifacts import schemas
from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.plan import Plan, make_shards
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.errors import UserError
from sclmkb.common.modalities import cache as media_cache
from sclmkb.common.modalities.audio import Audio, AudioForm, log_mel
from sclmkb.common.modalities.base import UnreadableError, modality_of
from sclmkb.common.modalities.image import PictureForm, Pictures
from sclmkb.common.modalities.motion import Motion, MotionForm
from sclmkb.common.modalities.store import MediaStore, media_kind


def png(color: tuple[int, ...], size: int = 8, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (size, size), color).save(file, "PNG")
    return file.getvalue()


def npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def sound(samples: np.ndarray, rate: int = 16000, kind: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind)
    return file.getvalue()


def tone(hz: float, seconds: float, rate: int) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Artifact]:
    """Write a corpus of one split out of cells: bytes, or a name below ``tmp_path / "data"``."""

    def run(cells: Mapping[str, bytes | str | None], name: str = "corpus", **notes: Any) -> Artifact:
        rows = []
        for item, cell in cells.items():
            media = {
                "bytes": cell if isinstance(cell, bytes) else None,
                "path": cell if isinstance(cell, str) else None,
            }
            rows.append(
                {"item_id": item, "identity": item, "group": item, "split": "test", "source": "", "media": media}
            )
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


# Pictures


def test_transparency_shows_white_and_pictures_get_the_size_asked_for() -> None:
    form = PictureForm(size=8)
    files = [
        png((10, 20, 30)),
        png((10, 20, 30, 0), mode="RGBA"),
        png((10, 20, 30, 255), size=32, mode="RGBA"),
    ]
    pictures = np.stack([Pictures().decode(data, form)[0] for data in files])
    assert pictures.shape == (3, 3, 8, 8)
    assert pictures[:, :, 3, 3].tolist() == [[10, 20, 30], [255, 255, 255], [10, 20, 30]]


# Motion


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 20), st.integers(0, 100))
def test_joints_are_seen_from_the_root_and_nothing_is_lost(frames: int, joints: int, kept: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(frames, joints, 3)).astype(np.float32)
    values, length = Motion().decode(npy(x), MotionForm(num_frames=kept), None)
    assert values.shape == (kept, 3 * joints)
    assert length == min(frames, kept)
    assert not values[length:].any()
    start = max(frames - kept, 0) // 2
    found = values[:length].reshape(length, joints, 3)
    root = found[:, :1] + x[:1, :1]
    expected = x[start : start + length]
    np.testing.assert_allclose(root[:, 0], expected[:, 0], atol=1e-5)
    np.testing.assert_allclose(found[:, 1:] + root, expected[:, 1:], atol=1e-5)


@given(st.sampled_from([5.0, 10.0, 12.5, 30.0, 60.0]), st.integers(2, 90))
@settings(max_examples=40, deadline=None)
def test_another_frame_rate_keeps_a_steady_movement(rate: float, frames: int) -> None:
    seconds = np.arange(frames, dtype=np.float32)[:, None] / 30
    values, length = Motion().decode(npy(seconds), MotionForm(num_frames=200, frames_per_second=rate), 30.0)
    assert length == int((frames - 1) / 30 * rate + 1e-6) + 1
    np.testing.assert_allclose(values[:length, 0], np.arange(length) / rate, atol=1e-5)


@pytest.mark.parametrize("width", [251, 263])
def test_official_features_stay_as_they_are(width: int) -> None:
    x = np.random.default_rng(0).normal(size=(10, width)).astype(np.float32)
    values, length = Motion().decode(npy(x), MotionForm(num_frames=16), None)
    assert length == 10
    np.testing.assert_array_equal(values[:10], x)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"nothing", "no NumPy array"),
        (npy(np.zeros((4, 5, 2))), "neither joints"),
        (npy(np.full((4, 6), np.nan)), "finite"),
        (npy(np.zeros(4)), "shape"),
        (npy(np.zeros((4, 6)))[:-9], "no NumPy array"),
    ],
)
def test_unreadable_motion_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason):
        Motion().decode(data, MotionForm(), None)


# Sound


def test_spectrograms_are_those_of_the_audio_spectrogram_transformer() -> None:
    from transformers import ASTFeatureExtractor

    samples = np.random.default_rng(0).normal(size=16000).astype(np.float32) / 10
    theirs = ASTFeatureExtractor(max_length=98, do_normalize=False)(samples, sampling_rate=16000)["input_values"][0]
    ours = log_mel(samples, AudioForm(num_mels=128, seconds=1))
    assert ours.shape == (98, 128)
    np.testing.assert_allclose(ours, np.asarray(theirs), atol=1e-4)


@pytest.mark.parametrize("kind", ["WAV", "OGG", "FLAC"])
@pytest.mark.parametrize("rate", [8000, 44100])
def test_a_tone_is_found_in_its_band_whatever_the_file(kind: str, rate: int) -> None:
    form = AudioForm(seconds=1)
    stereo = np.stack([tone(1000, 0.6, rate)] * 2, axis=1)
    values, length = Audio().decode(sound(stereo, rate, kind), form)
    assert values.shape == (form.num_frames, 64) == (98, 64)
    assert length == 1 + (9600 - 400) // 160
    assert not values[length:].any()
    reference = log_mel(tone(1000, 0.6, 16000).astype(np.float32), form)
    assert values[5:50].mean(0).argmax() == reference.mean(0).argmax()


def test_of_a_long_sound_the_middle_is_taken_and_a_short_one_has_one_frame() -> None:
    rate = 16000
    quiet, loud = np.zeros(2 * rate), tone(500, 1, rate)
    values, length = Audio().decode(sound(np.concatenate([quiet, loud, quiet])), AudioForm(seconds=1))
    assert length == 98
    assert values.max(1).min() > 0
    assert Audio().decode(sound(tone(500, 0.001, rate)), AudioForm(seconds=1))[1] == 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"no sound at all", "no readable sound"),
        (sound(tone(500, 1, 16000))[:-1000], "breaks off"),
        (sound(np.zeros(0)), "empty"),
        (sound(tone(500, 1, 16000), kind="OGG")[:20], "no readable sound"),
    ],
)
def test_unreadable_sound_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason):
        Audio().decode(data, AudioForm())


def test_forms_are_told_apart_by_their_kind() -> None:
    for form in (PictureForm(size=8), MotionForm(num_frames=3), AudioForm(num_mels=5)):
        assert modality_of(form.kind).form.model_validate(form.model_dump(mode="json")) == form
    with pytest.raises(ValidationError, match="at least one window"):
        AudioForm(seconds=0.01)


# The store


def test_items_are_read_in_any_order(write: Callable[..., Artifact], tmp_path: Path) -> None:
    corpus = write({f"p{i}": png((i, 0, 0)) for i in range(7)})
    store = MediaStore.open(corpus, "test", PictureForm(size=8), tmp_path / "cache")
    assert (store.kind, store.shape, len(store)) == ("pictures", (3, 8, 8), 7)
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
        media_kind="motion",
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
    assert not list((tmp_path / "cache").iterdir())
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


@pytest.mark.parametrize("damage", ["cut", "flip", "no values", "no notes", "other notes"])
def test_a_corrupt_cache_is_made_again(write: Callable[..., Artifact], tmp_path: Path, damage: str) -> None:
    corpus = write({f"p{i}": png((i, 0, 0)) for i in range(3)})
    form, cache = PictureForm(size=8), tmp_path / "cache"
    before = all_of(MediaStore.open(corpus, "test", form, cache))
    values, notes = next(cache.glob("*.values")), next(cache.glob("*.json"))
    data = bytearray(values.read_bytes())
    if damage == "cut":
        values.write_bytes(data[:-1])
    elif damage == "flip":
        data[5] ^= 1
        values.write_bytes(data)
    elif damage == "no values":
        values.unlink()
    elif damage == "no notes":
        notes.unlink()
    else:
        notes.write_text('{"shape": 3}')
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


def test_kinds_are_told_by_the_first_item_where_the_corpus_does_not_say(write: Callable[..., Artifact]) -> None:
    pictures, motion, audio = png((0, 0, 0)), npy(np.zeros((2, 3))), sound(np.zeros(9), kind="OGG")
    assert [media_kind(write({"a": data}, str(i))) for i, data in enumerate((pictures, motion, audio))] == [
        "pictures",
        "motion",
        "audio",
    ]
    with pytest.raises(UserError, match=r"no known kind of media \(audio, motion, pictures\)"):
        media_kind(write({"a": b"text"}, "text"))
