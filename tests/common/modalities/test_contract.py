"""What every kind of media keeps to."""

import io

import numpy as np
import pytest
import torch
from media_files import animation, npy, sound
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from sclmkb.common.errors import UserError
from sclmkb.common.modalities.audio import AudioForm
from sclmkb.common.modalities.base import (
    DRAWN_HEIGHT,
    MODALITIES,
    MediaBatch,
    MediaForm,
    UnreadableError,
    media_problem,
    modality_of,
    recognise,
)
from sclmkb.common.modalities.image import PictureForm
from sclmkb.common.modalities.motion import MotionForm
from sclmkb.common.modalities.video import VideoForm
from sclmkb.common.models.encoders.base import AnyMediaEncoderSettings, MediaEncoderSettings

DRAW = np.random.default_rng(0)


def picture(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(DRAW.integers(0, 256, (32, 16, 3), dtype=np.uint8)).save(file, kind)
    return file.getvalue()


FILES = {
    "pictures": picture("PNG"),
    "motion": npy(DRAW.random((9, 4, 3))),
    "audio": sound(DRAW.random(9000)),
    "video": animation(DRAW.integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)),
}
FORMS: dict[str, MediaForm] = {
    "pictures": PictureForm(size=16),
    "motion": MotionForm(num_frames=16),
    "audio": AudioForm(seconds=1, num_mels=8),
    "video": VideoForm(num_frames=4, size=16),
}


def test_every_kind_is_tested_here() -> None:
    assert set(MODALITIES) == FILES.keys() == FORMS.keys()


def test_a_suffix_belongs_to_one_kind() -> None:
    suffixes = [suffix for kind in MODALITIES for suffix in modality_of(kind).suffixes]
    assert len(set(suffixes)) == len(suffixes)


def test_an_unknown_kind_is_a_clear_error() -> None:
    with pytest.raises(UserError, match="no kind of media 'smell': known are audio, motion, pictures, video"):
        modality_of("smell")


@pytest.mark.parametrize("kind", FILES)
def test_a_file_is_recognised_decoded_augmented_and_drawn(kind: str) -> None:
    modality, form, data = modality_of(kind), FORMS[kind], FILES[kind]
    assert type(recognise("", data)) is type(recognise(f"x{modality.suffixes[0].upper()}", b"")) is type(modality)
    assert modality.problem(data, "") == ""
    assert modality.form.model_validate(form.model_dump(mode="json")) == form
    values, length = modality.decode(data, form)
    assert values.shape == form.complete(values.shape)
    assert values.dtype == form.dtype
    drawn = modality.draw(values, length, form, {})
    assert drawn.height == DRAWN_HEIGHT
    whole = MediaBatch(torch.from_numpy(np.stack([values] * 4)), torch.tensor([length, max(length // 2, 1), 1, 1]))
    chance = torch.rand(4, 5)
    changed = modality.augment(whole, chance)
    part = modality.augment(MediaBatch(*(t[2:] for t in whole)), chance[2:])
    assert torch.equal(changed.values[2:], part.values), "a sample depends on its own chance alone"
    assert torch.equal(changed.length[2:], part.length)
    assert changed.values.shape == whole.values.shape
    assert changed.values.dtype == whole.values.dtype
    assert not torch.equal(changed.values, whole.values)


@pytest.mark.parametrize("kind", FILES)
def test_the_encoder_that_is_proposed_takes_the_kind(kind: str) -> None:
    encoder: MediaEncoderSettings = TypeAdapter(AnyMediaEncoderSettings).validate_python(
        {"kind": modality_of(kind).encoder}
    )
    assert encoder.form().kind == kind


def test_a_form_must_hold_a_frame() -> None:
    with pytest.raises(ValidationError, match="at least one window"):
        AudioForm(seconds=0.01)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.png", picture("PNG"), ""),
        ("a.png", picture("PNG")[:-200], "no readable picture"),
        ("no suffix", picture("PNG")[:-200], "no readable picture"),
        ("a.jpg", picture("JPEG")[:-200], "no readable picture"),
        ("a.jpg", b"text", "no readable picture"),
        ("a.wav", sound(np.zeros(200)), ""),
        ("a.wav", sound(np.zeros(200))[:-100], "breaks off"),
        ("a.wav", b"text", "no wave file"),
        ("a.npy", npy(np.zeros((4, 251))), ""),
        ("a.npy", npy(np.zeros((4, 251)))[:-8], "no NumPy array"),
        ("a.npy", npy(np.full((4, 251), np.nan)), "not all finite"),
        ("a.npy", npy(np.zeros(4)), "shape"),
        ("a.npy", npy(np.array([{"a": 1}], dtype=object)), "no NumPy array"),
        ("no suffix", npy(np.full((4, 251), np.nan)), "not all finite"),
        ("a.ogg", sound(np.zeros(200), kind="OGG"), ""),
        ("a.ogg", b"text", "no readable sound"),
        ("a.ogg", sound(np.zeros(200), kind="OGG")[:20], "no readable sound"),
        ("a.apng", animation(np.zeros((2, 8, 8, 3), np.uint8)), ""),
        ("a.apng", animation(np.arange(384, dtype=np.uint8).reshape(2, 8, 8, 3))[:-60], "no readable picture"),
        ("no suffix", animation(np.arange(384, dtype=np.uint8).reshape(2, 8, 8, 3))[:-60], "no readable picture"),
        ("a.mp4", b"text", "no readable video"),
        ("a.bin", b"anything", ""),
        ("a.bin", b"", "empty"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # bytes differ from process to process
)
def test_whole_and_broken_media(name: str, data: bytes, reason: str) -> None:
    assert reason in media_problem(name, data)
    assert bool(media_problem(name, data)) == bool(reason)
    if reason and (modality := recognise(name, data)):
        with pytest.raises(UnreadableError):
            modality.decode(data, FORMS[modality.name])
