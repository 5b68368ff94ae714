"""Frozen encoders of media: what turns a picture, a sound or a clip into tokens and is never trained.

============ ================================ ===================================================
media        pre-trained                      the control without one
============ ================================ ===================================================
pictures     EfficientNet-Lite0, over a grid  ``patches``: the pixels of squares
sounds       Whisper's encoder, over time     ``spectrogram``: the log-mel bands, over time
clips        the encoder of pictures, a token per frame
============ ================================ ===================================================

Any other name is a folder, see :mod:`folder_encoders`.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from sclmkb.common.errors import UserError
from sclmkb.common.modalities.audio import AudioForm, WhisperForm
from sclmkb.common.modalities.base import MediaBatch
from sclmkb.common.modalities.image import PictureForm
from sclmkb.common.modalities.video import VideoForm
from sclmkb.common.models.lam.folder_encoders import PicturesByFolder, SoundsByFolder
from sclmkb.common.models.lam.frozen_base import FrozenEncoder
from sclmkb.common.models.lam.settings import MtscModelSettings
from sclmkb.common.models.parts.convert import part_folder
from sclmkb.common.models.parts.efficientnet import EfficientNetLite0

_PATCH = 8
"""Height and width of what one token of ``patches`` covers [pixels]."""


class Patches(FrozenEncoder):
    """The pixels of squares: no pre-trained encoder."""

    def __init__(self, settings: MtscModelSettings) -> None:
        self.form = PictureForm(size=_PATCH * settings.picture_grid)
        self.key = f"patches-{settings.picture_grid}"

    def tokens(self, batch: MediaBatch) -> Float[Tensor, "B F f"]:
        """See :meth:`FrozenEncoder.tokens`."""
        return nn.functional.unfold(batch.values.float() / 255, _PATCH, stride=_PATCH).transpose(1, 2)


class EfficientNet(FrozenEncoder):
    """EfficientNet-Lite0, pre-trained on ImageNet; its last map, averaged over a grid."""

    def __init__(self, settings: MtscModelSettings) -> None:
        self.form = PictureForm(size=settings.picture_size)
        self.key = f"efficientnet-lite0-{settings.picture_size}-{settings.picture_grid}"
        self._grid = settings.picture_grid

    @cached_property
    def _model(self) -> EfficientNetLite0:
        """Loaded when there is something to compute."""
        return EfficientNetLite0.load(part_folder("efficientnet-lite0"))

    def tokens(self, batch: MediaBatch) -> Float[Tensor, "B F f"]:
        """See :meth:`FrozenEncoder.tokens`."""
        maps = self._model(batch.values)
        return nn.functional.adaptive_avg_pool2d(maps, self._grid).flatten(2).transpose(1, 2)


class Spectrogram(FrozenEncoder):
    """The log-mel bands of a sound, averaged over equal parts of it: no pre-trained encoder."""

    def __init__(self, settings: MtscModelSettings) -> None:
        self.form = AudioForm(seconds=settings.sound_seconds)
        self.key = f"spectrogram-{settings.sound_seconds:g}-{settings.sound_tokens}"
        self._tokens = settings.sound_tokens

    def tokens(self, batch: MediaBatch) -> Float[Tensor, "B F f"]:
        """See :meth:`FrozenEncoder.tokens`."""
        return nn.functional.adaptive_avg_pool1d(batch.values.transpose(1, 2), self._tokens).transpose(1, 2)


class WhisperEncoder(FrozenEncoder):
    """The encoder of Whisper base, averaged over equal parts of a sound.

    Its positions are cut to the length of the sounds: 250 for 5 s.
    """

    def __init__(self, settings: MtscModelSettings) -> None:
        self._sound = WhisperForm(seconds=settings.sound_seconds)
        self.form = self._sound
        self.key = f"whisper-base-{settings.sound_seconds:g}-{settings.sound_tokens}"
        self._tokens = settings.sound_tokens

    @cached_property
    def _model(self) -> Any:
        """Loaded when there is something to compute."""
        from transformers import WhisperModel

        encoder = WhisperModel.from_pretrained(part_folder("whisper-base")).get_encoder().eval()
        positions = self._sound.num_frames // 2
        weight = encoder.embed_positions.weight[:positions].detach()
        encoder.embed_positions = nn.Embedding(positions, weight.shape[1], _weight=weight)
        encoder.config.max_source_positions = positions
        return encoder

    def tokens(self, batch: MediaBatch) -> Float[Tensor, "B F f"]:
        """See :meth:`FrozenEncoder.tokens`."""
        states = self._model(batch.values.transpose(1, 2)).last_hidden_state
        return nn.functional.adaptive_avg_pool1d(states.transpose(1, 2), self._tokens).transpose(1, 2)


class Frames(FrozenEncoder):
    """Frames spread over a clip, each the mean of what the encoder of pictures makes of it."""

    def __init__(self, settings: MtscModelSettings) -> None:
        self._pictures = _pictures(settings)
        self._count = settings.video_frames
        size = self._pictures.form.shape[-1]
        assert size is not None
        self.form = VideoForm(num_frames=self._count, size=size)
        self.key = f"frames-{self._count}-{self._pictures.key}"

    def tokens(self, batch: MediaBatch) -> Float[Tensor, "B F f"]:
        """See :meth:`FrozenEncoder.tokens`."""
        frames = batch.values.flatten(0, 1).movedim(-1, 1)
        of_each = self._pictures.tokens(MediaBatch(frames, batch.length)).mean(1)
        return of_each.reshape(len(batch.values), self._count, -1)


Build = Callable[[MtscModelSettings], FrozenEncoder]
_PICTURES: Mapping[str, Build] = {"efficientnet-lite0": EfficientNet, "patches": Patches}
_SOUNDS: Mapping[str, Build] = {"whisper-base": WhisperEncoder, "spectrogram": Spectrogram}


def _pictures(settings: MtscModelSettings) -> FrozenEncoder:
    return _PICTURES.get(settings.picture_encoder, PicturesByFolder)(settings)


def _sounds(settings: MtscModelSettings) -> FrozenEncoder:
    return _SOUNDS.get(settings.sound_encoder, SoundsByFolder)(settings)


_ENCODERS: Mapping[str, Build] = {"pictures": _pictures, "audio": _sounds, "video": lambda given: Frames(given)}


def frozen_encoder(settings: MtscModelSettings, modality: str) -> FrozenEncoder:
    """Return the encoder that settings name for a kind of media.

    Raises:
        UserError: if there is no model of that name, or none for that kind of media.
    """
    if modality not in _ENCODERS:
        raise UserError(f"media of the kind {modality} have no encoder: {', '.join(_ENCODERS)} have one")
    return _ENCODERS[modality](settings)
