"""A small residual CNN for videos, frame by frame, trained from scratch."""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from sclmkb.common.modalities.base import MediaBatch
from sclmkb.common.modalities.video import VideoForm
from sclmkb.common.models.encoders.base import (
    ENCODERS,
    MediaEncoder,
    MediaEncoderSettings,
    pool_frames,
    real_frames,
    residual_stages,
)


class VideoCnnSettings(MediaEncoderSettings):
    """A small residual CNN for videos, from scratch."""

    kind: Literal["video-cnn"] = Field(default="video-cnn", description="the encoder: video-cnn")
    num_frames: PositiveInt = Field(default=8, description="frames, spread evenly over the clip")
    size: PositiveInt = Field(default=64, description="height and width that frames are scaled to, in pixels")
    widths: tuple[PositiveInt, ...] = Field(default=(32, 64, 128), min_length=1, description="channels of each stage")

    def form(self) -> VideoForm:
        """Return what videos must look like."""
        return VideoForm(num_frames=self.num_frames, size=self.size)


@ENCODERS.register(VideoCnnSettings)
class VideoCnn(MediaEncoder):
    """A small residual CNN, the same for every frame, trained from scratch.

    ::

        uint8 [B, F, S, S, 3] ─► scale ─► conv 3×3 / 2 ─► { conv 3×3 / 2 ─► residual block } ... per frame
            ─► mean over places [B, F, w] ─► mean and maximum over the real frames ─► linear [B, d] ─► x / ‖x‖
    """

    def __init__(self, settings: VideoCnnSettings, shape: Sequence[int], embedding_width: int) -> None:
        body = residual_stages(3, settings.widths)
        super().__init__(2 * settings.widths[-1], embedding_width)
        self.body = body

    def features(self, batch: MediaBatch) -> Tensor:
        """Return mean and maximum over time of the last channels ``[B, 2w]``."""
        real = real_frames(batch.length, batch.values.shape[1])
        frames = batch.values[real].movedim(-1, 1).to(torch.float32) / 127.5 - 1
        seen: Tensor = self.body(frames.contiguous(memory_format=torch.channels_last)).float().mean((2, 3))
        states = seen.new_zeros(*real.shape, seen.shape[-1])
        states[real] = seen
        return pool_frames(states, real)
