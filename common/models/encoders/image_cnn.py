"""A small residual CNN for pictures, trained from scratch."""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from sclmkb.common.modalities.base import MediaBatch
from sclmkb.common.modalities.image import PictureForm
from sclmkb.common.models.encoders.base import ENCODERS, MediaEncoder, MediaEncoderSettings, residual_stages


class CnnSettings(MediaEncoderSettings):
    """A small residual CNN for pictures, from scratch."""

    kind: Literal["cnn"] = Field(default="cnn", description="the encoder: cnn")
    size: PositiveInt = Field(default=64, description="height and width that pictures are scaled to, in pixels")
    widths: tuple[PositiveInt, ...] = Field(default=(32, 64, 128), min_length=1, description="channels of each stage")

    def form(self) -> PictureForm:
        """Return what pictures must look like."""
        return PictureForm(size=self.size)


@ENCODERS.register(CnnSettings)
class PictureEncoder(MediaEncoder):
    """A small residual CNN, trained from scratch.

    ::

        uint8 [B, 3, S, S] ─► scale ─► conv 3×3 / 2 ─► { conv 3×3 / 2 ─► residual block } ...
            ─► mean and maximum over places ─► linear [B, d] ─► x / ‖x‖

    Each stage has half the side of the one before, the first S / 4.
    """

    def __init__(self, settings: CnnSettings, shape: Sequence[int], embedding_width: int) -> None:
        body = residual_stages(3, settings.widths)
        super().__init__(2 * settings.widths[-1], embedding_width)
        self.body = body

    def features(self, batch: MediaBatch) -> Tensor:
        """Return mean and maximum of the last channels ``[B, 2w]``."""
        x = (batch.values.to(torch.float32) / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        x = self.body(x).float()
        return torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)
