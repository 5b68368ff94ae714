"""A small residual CNN for spectrograms, trained from scratch."""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from sclmkb.common.modalities.audio import AudioForm
from sclmkb.common.modalities.base import MediaBatch
from sclmkb.common.models.encoders.base import (
    ENCODERS,
    MediaEncoder,
    MediaEncoderSettings,
    Standardise,
    pool_frames,
    real_frames,
    residual_stages,
)


class AudioCnnSettings(MediaEncoderSettings):
    """A small residual CNN for spectrograms, from scratch."""

    kind: Literal["audio-cnn"] = Field(default="audio-cnn", description="the encoder: audio-cnn")
    sample_rate: PositiveInt = Field(default=16000, description="sample rate [Hz]")
    seconds: PositiveFloat = Field(default=5.0, description="length [s]; longer sounds are cut to their middle")
    num_mels: PositiveInt = Field(default=64, description="mel bands")
    widths: tuple[PositiveInt, ...] = Field(
        default=(16, 32, 64, 128), min_length=1, description="channels of each stage"
    )

    def form(self) -> AudioForm:
        """Return what sounds must look like."""
        return AudioForm(sample_rate=self.sample_rate, seconds=self.seconds, num_mels=self.num_mels)


@ENCODERS.register(AudioCnnSettings)
class AudioCnn(MediaEncoder):
    """A small residual CNN, trained from scratch.

    ::

        log-mel [B, F, M] ─► standardise ─► conv 3×3 / 2 ─► { conv 3×3 / 2 ─► residual block } ... [B, w, F', M']
            ─► mean over M' ─► mean and maximum over the frames that are real ─► linear [B, d] ─► x / ‖x‖
    """

    def __init__(self, settings: AudioCnnSettings, shape: Sequence[int], embedding_width: int) -> None:
        super().__init__(2 * settings.widths[-1], embedding_width)
        self.scale = Standardise(shape[1])
        self.body = residual_stages(1, settings.widths)
        self.stride = 2 ** (1 + len(settings.widths))

    def features(self, batch: MediaBatch) -> Tensor:
        """Return mean and maximum of the last channels over time ``[B, 2w]``."""
        x = self.scale(batch)[:, None].contiguous(memory_format=torch.channels_last)
        x = self.body(x).float().mean(3).transpose(1, 2)
        length = batch.length.div(self.stride, rounding_mode="floor").clamp(min=1)
        return pool_frames(x, real_frames(length, x.shape[1]))
