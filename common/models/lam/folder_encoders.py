"""Frozen encoders out of a user's folder, in transformers' layout: CLIP, SigLIP, ViT, ResNet; Whisper, AST.

A folder takes the place of the embedded encoder: ``--set model.picture_encoder=FOLDER`` or ``model.sound_encoder``.
"""

from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sclmkb.common.errors import UserError
from sclmkb.common.modalities.audio import AudioForm
from sclmkb.common.modalities.base import MediaBatch
from sclmkb.common.modalities.image import PictureForm
from sclmkb.common.models.encoders.base import read_preprocessor
from sclmkb.common.models.lam.frozen_base import FrozenEncoder
from sclmkb.common.models.lam.settings import MtscModelSettings
from sclmkb.common.models.pretrained import content_fingerprint, load_weights, read_config, resolve_encoder


class PicturesByFolder(FrozenEncoder):
    """A vision model: the tokens of its patches, or its last map, averaged over a grid.

    Pictures are scaled to the model's side; mean and deviation are those of its ``preprocessor_config.json``, or 1/2.

    Args:
        settings: name the folder and the grid.

    Raises:
        UserError: if there is no model, or it does not say how large its pictures are.
    """

    def __init__(self, settings: MtscModelSettings) -> None:
        self._name, self._grid = settings.picture_encoder, settings.picture_grid
        self._resolved = resolve_encoder(self._name)
        self._config = read_config("encoder of pictures", self._name, self._resolved)
        notes = read_preprocessor(self._name, self._resolved)
        half = getattr(self._config, "vision_config", self._config)
        side = getattr(half, "image_size", None) or _side(notes)
        if not isinstance(side, int):
            raise UserError(f"the encoder of pictures '{self._name}' does not say how large its pictures are")
        self.form = PictureForm(size=side)
        self.key = f"folder-{content_fingerprint(self._resolved)}-{self._grid}"
        self._mean, self._deviation = (
            torch.tensor(notes.get(name, [0.5] * 3))[:, None, None] for name in ("image_mean", "image_std")
        )

    @cached_property
    def _model(self) -> Any:
        model = _load("encoder of pictures", self._name, self._resolved, self._config)
        return getattr(model, "vision_model", model)

    def tokens(self, batch: MediaBatch) -> Float[Tensor, "B F f"]:
        """Return the tokens of pictures."""
        pixels = (batch.values.float() / 255 - self._mean) / self._deviation
        states = self._model(pixel_values=pixels).last_hidden_state
        if states.ndim == 3:  # class and register tokens come first
            side = int((states.shape[1]) ** 0.5)
            states = states[:, states.shape[1] - side**2 :].mT.reshape(len(states), -1, side, side)
        return nn.functional.adaptive_avg_pool2d(states, self._grid).flatten(2).mT


class SoundsByFolder(FrozenEncoder):
    """The audio spectrogram transformer (AST): its patches, averaged over frequency and over equal parts of a sound.

    Args:
        settings: name the folder, the length of the sounds and the number of tokens.

    Raises:
        UserError: if there is no model, or it is of another kind.
    """

    def __init__(self, settings: MtscModelSettings) -> None:
        self._name, self._tokens = settings.sound_encoder, settings.sound_tokens
        self._resolved = resolve_encoder(self._name)
        self._config = read_config("encoder of sounds", self._name, self._resolved)
        if self._config.model_type != "audio-spectrogram-transformer":
            raise UserError(
                f"the encoder of sounds '{self._name}' is of the kind {self._config.model_type}: name whisper-base,"
                " spectrogram, or a folder with an audio spectrogram transformer"
            )
        self._sound = AudioForm(seconds=settings.sound_seconds, num_mels=self._config.num_mel_bins)
        self.form = self._sound
        self.key = f"folder-{content_fingerprint(self._resolved)}-{settings.sound_seconds:g}-{self._tokens}"
        notes = read_preprocessor(self._name, self._resolved)
        self._mean, self._deviation = notes.get("mean", -4.2677393), notes.get("std", 4.5689974)

    @cached_property
    def _model(self) -> Any:
        return _load("encoder of sounds", self._name, self._resolved, self._config)

    def tokens(self, batch: MediaBatch) -> Float[Tensor, "B F f"]:
        """Return the tokens of sounds; behind their end, and the model's, there is silence of the model's mean."""
        config, frames = self._config, batch.values.shape[1]
        real = torch.arange(frames) < batch.length[:, None]
        x = ((batch.values - self._mean) / (2 * self._deviation)) * real[:, :, None]
        x = nn.functional.pad(x, (0, 0, 0, max(config.max_length - frames, 0)))[:, : config.max_length]
        states = self._model(input_values=x).last_hidden_state[:, 2:]
        bands = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
        in_time = states.reshape(len(states), bands, -1, states.shape[2]).mean(1)
        heard = max(min(frames, config.max_length) // config.time_stride, 1)
        return nn.functional.adaptive_avg_pool1d(in_time[:, :heard].mT, self._tokens).mT


def _load(what: str, name: str, resolved: str, config: Any) -> Any:
    """Return a model in evaluation mode; what only pools its tokens may be missing."""
    from transformers import AutoModel

    model, missing = load_weights(AutoModel, what, name, resolved, config)
    if lost := [weight for weight in missing if "pooler" not in weight]:
        raise UserError(
            f"the {what} '{name}' lacks the weights '{lost[0]}' (and {len(lost) - 1} more): name a whole one"
        )
    return model.eval()


def _side(notes: dict[str, Any]) -> Any:
    """Return the side of pictures by a preprocessor's notes."""
    size = notes.get("crop_size") or notes.get("size")
    return size.get("height") or size.get("shortest_edge") if isinstance(size, dict) else size
