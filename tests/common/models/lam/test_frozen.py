"""Frozen encoders: what their tokens are, and that they depend on the medium."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from media_corpora import write_clips, write_sounds
from numpy.typing import NDArray

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.errors import UserError
from sclmkb.common.modalities.audio import Audio, WhisperForm
from sclmkb.common.modalities.base import MediaBatch
from sclmkb.common.models.lam import frozen
from sclmkb.common.models.lam.features import open_features
from sclmkb.common.models.lam.frozen import frozen_encoder
from sclmkb.common.models.lam.settings import MtscModelSettings

SETTINGS = MtscModelSettings(picture_encoder="patches", sound_encoder="spectrogram", sound_tokens=3, video_frames=2)


@pytest.mark.parametrize(
    ("write", "kind", "shape"), [(write_sounds, "audio", (3, 64)), (write_clips, "video", (2, 192))]
)
def test_features_of_sounds_and_clips_tell_them_apart(
    tmp_path: Path, write: Callable[..., Path], kind: str, shape: tuple[int, int]
) -> None:
    corpus = Artifact.open(write(tmp_path / kind, {"train": 6}), "corpus")
    features = open_features(corpus, "train", frozen_encoder(SETTINGS, kind), tmp_path / "cache")
    values = features.take(torch.arange(6))
    assert values.shape == (6, *shape)
    flat = values.flatten(1)
    distance = torch.cdist(flat, flat)
    assert distance[0, 3] < distance[0, 1], "two of one caption are nearer than two of different ones"
    assert distance[0, 3] < distance[0, 2]


def test_whisper_hears_the_length_of_the_form_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small Whisper in the place of the real one: its positions are cut, and its tokens are parts of the sound."""
    from transformers import WhisperConfig, WhisperModel

    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, vocab_size=30, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1, max_source_positions=1500,
    )  # fmt: skip
    WhisperModel(config).save_pretrained(tmp_path)
    monkeypatch.setattr(frozen, "part_folder", lambda name: tmp_path)
    encoder = frozen_encoder(SETTINGS.model_copy(update={"sound_encoder": "whisper-base", "sound_seconds": 2}), "audio")
    form = encoder.form
    assert form.shape == (200, 80)
    tone = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    sounds = [Audio().decode(_wave(signal), form) for signal in (tone, 0.1 * tone, tone[::4])]
    assert all(length == 200 for _, length in sounds)
    values = torch.from_numpy(np.stack([values for values, _ in sounds]))
    with torch.no_grad():
        tokens = encoder.tokens(MediaBatch(values, torch.full((3,), 200)))
    assert tokens.shape == (3, 3, 16)
    assert not torch.allclose(tokens[0], tokens[2])


def test_whisper_spectrograms_are_those_of_transformers() -> None:
    from transformers import WhisperFeatureExtractor

    noise = np.random.default_rng(0).normal(0, 0.1, 5 * 16000).astype(np.float32)
    expected = WhisperFeatureExtractor(chunk_length=5)(noise, sampling_rate=16000, return_tensors="np")
    values, _ = Audio().decode(_wave(noise), WhisperForm())
    np.testing.assert_allclose(values, expected["input_features"][0].T, atol=2e-3)


@pytest.mark.parametrize(
    ("change", "kind"), [({"sound_encoder": "ears"}, "audio"), ({"picture_encoder": "x"}, "video")]
)
def test_an_unknown_encoder_is_refused(change: dict[str, str], kind: str) -> None:
    with pytest.raises(UserError, match="choose"):
        frozen_encoder(SETTINGS.model_copy(update=change), kind)
    with pytest.raises(UserError, match="motion have no encoder"):
        frozen_encoder(SETTINGS, "motion")


def _wave(samples: NDArray[np.floating[Any]]) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 16000, format="WAV", subtype="FLOAT")
    return file.getvalue()
