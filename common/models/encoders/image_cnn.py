"""A small residual CNN for pictures, trained from scratch."""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from sclmkb.common.modalities.base import MediaBatch
from sclmkb.common.modalities.image import PictureForm
from sclmkb.common.models.encoders.base import ENCODERS, EncoderSettings, MediaEncoder, residual_stages


class CnnSettings(EncoderSettings):
    """A small residual CNN for pictures, from scratch."""

    kind: Literal["cnn"] = "cnn"
    size: PositiveInt = Field(default=64, description="pictures are brought to this side in pixels")
    widths: tuple[PositiveInt, ...] = Field(default=(32, 64, 128), min_length=1, description="channels of each stage")

    def form(self) -> PictureForm:
        """Return what pictures must look like."""
        return PictureForm(size=self.size)

    def build(self, shape: Sequence[int], embedding_width: int) -> MediaEncoder:
        """Return the encoder, to embeddings of width d."""
        return PictureEncoder(self.widths, embedding_width)


class PictureEncoder(MediaEncoder):
    """A small residual CNN, trained from scratch.

    ::

        uint8 [B, 3, S, S] ─► scale ─► conv 3×3 / 2 ─► { conv 3×3 / 2 ─► residual block } ...
            ─► mean and maximum over places ─► linear [B, d] ─► x / ‖x‖

    Args:
        widths: channels of each stage; each stage has half the side of the one before, the first S / 4.
        embedding_width: d.
    """

    def __init__(self, widths: Sequence[int], embedding_width: int) -> None:
        body = residual_stages(3, widths)
        super().__init__(2 * widths[-1], embedding_width)
        self.body = body

    def features(self, batch: MediaBatch) -> Tensor:
        """Return mean and maximum of the last channels ``[B, 2w]``."""
        x = (batch.values.to(torch.float32) / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        x = self.body(x).float()
        return torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)


ENCODERS.add("cnn", CnnSettings)
