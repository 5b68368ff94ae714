"""Frozen encoders: what their tokens are, and that they depend on the medium."""

import io
import json
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


@pytest.mark.parametrize("kind", ["clip", "vit", "resnet"])
def test_a_folder_is_an_encoder_of_pictures(tmp_path: Path, kind: str) -> None:
    folder = write_vision_model(tmp_path / kind, kind)
    encoder = frozen_encoder(
        SETTINGS.model_copy(update={"picture_encoder": str(folder), "picture_grid": 2}), "pictures"
    )
    assert encoder.form.shape == (3, 32, 32)
    pictures = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    pictures[1, :, :16, :16] = 255
    with torch.no_grad():
        tokens = encoder.tokens(MediaBatch(pictures, torch.ones(2, dtype=torch.long)))
    assert tokens.shape[:2] == (2, 4)
    change = (tokens[1] - tokens[0]).square().sum(1)
    assert change.argmax() == 0, "the token of the corner that changed changes most"


def test_a_folder_is_an_encoder_of_sounds(tmp_path: Path) -> None:
    from transformers import ASTConfig, ASTModel

    torch.manual_seed(0)
    config = ASTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, patch_size=16,
        frequency_stride=16, time_stride=16, max_length=256, num_mel_bins=64,
    )  # fmt: skip
    ASTModel(config).save_pretrained(tmp_path)
    named = {"sound_encoder": str(tmp_path), "sound_seconds": 2.0, "sound_tokens": 2}
    encoder = frozen_encoder(SETTINGS.model_copy(update=named), "audio")
    tone = np.sin(2 * np.pi * 440 * np.arange(32000) / 16000)
    late = np.where(np.arange(32000) < 16000, tone, np.random.default_rng(0).normal(0, 0.3, 32000))
    values = torch.from_numpy(np.stack([Audio().decode(_wave(sound), encoder.form)[0] for sound in (tone, late)]))
    with torch.no_grad():
        tokens = encoder.tokens(MediaBatch(values, torch.full((2,), 198)))
    assert tokens.shape == (2, 2, 16)
    change = (tokens[1] - tokens[0]).square().sum(1)
    assert change[1] > 3 * change[0], "the token of the half that changed changes most"


@pytest.mark.parametrize(
    ("change", "kind"), [({"sound_encoder": "/nowhere/ears"}, "audio"), ({"picture_encoder": "/nowhere/x"}, "video")]
)
def test_an_unknown_encoder_is_refused(tmp_path: Path, change: dict[str, str], kind: str) -> None:
    with pytest.raises(UserError, match="/nowhere"):
        frozen_encoder(SETTINGS.model_copy(update=change), kind)
    with pytest.raises(UserError, match="motion have no encoder"):
        frozen_encoder(SETTINGS, "motion")
    folder = write_vision_model(tmp_path / "vit", "vit")
    with pytest.raises(UserError, match="of the kind vit"):
        frozen_encoder(SETTINGS.model_copy(update={"sound_encoder": str(folder)}), "audio")


def write_vision_model(folder: Path, kind: str) -> Path:
    """Write a small vision model with random weights for pictures of 32 × 32 pixels."""
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    tiny = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    vision = {**tiny, "image_size": 32, "patch_size": 8}
    options = {
        "clip": {"vision_config": vision, "text_config": {**tiny, "vocab_size": 20}, "projection_dim": 8},
        "vit": vision,
        "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
    }
    AutoModel.from_config(AutoConfig.for_model(kind, **options[kind])).save_pretrained(folder)
    notes = {"image_mean": [0.4] * 3, "image_std": [0.3] * 3, "size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(notes))
    return folder


def _wave(samples: NDArray[np.floating[Any]]) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 16000, format="WAV", subtype="FLOAT")
    return file.getvalue()
