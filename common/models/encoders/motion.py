"""A small transformer for motion, trained from scratch."""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from sclmkb.common.modalities.base import MediaBatch
from sclmkb.common.modalities.motion import MotionForm
from sclmkb.common.models.encoders.base import (
    ENCODERS,
    MediaEncoder,
    MediaEncoderSettings,
    Standardise,
    check_heads,
    pool_frames,
    real_frames,
)


class MotionTransformerSettings(MediaEncoderSettings):
    """A small transformer for motion, from scratch."""

    kind: Literal["motion-transformer"] = Field(
        default="motion-transformer", description="the encoder: motion-transformer"
    )
    num_frames: PositiveInt = Field(default=80, description="frames; longer motions are cut to their middle")
    frames_per_second: PositiveFloat | None = Field(
        default=10.0, description="rate that motions are resampled to; null: as recorded"
    )
    width: PositiveInt = Field(default=128, description="width of a token")
    num_layers: PositiveInt = Field(default=3, description="layers")
    num_heads: PositiveInt = Field(default=4, description="heads of each attention")

    @model_validator(mode="after")
    def _check(self) -> "MotionTransformerSettings":
        check_heads(self.width, self.num_heads)
        return self

    def form(self) -> MotionForm:
        """Return what motions must look like."""
        return MotionForm(num_frames=self.num_frames, frames_per_second=self.frames_per_second)


@ENCODERS.register(MotionTransformerSettings)
class MotionTransformer(MediaEncoder):
    """A small transformer, trained from scratch.

    ::

        joints or features [B, F, D] ─► standardise ─► conv 5 / 2 ─► GELU ─► conv 3 / 2 ─► [B, F/4, w]
            ─► + learned positions ─► transformer layers, padding masked ─► norm
            ─► mean and maximum over the frames that are real ─► linear [B, d] ─► x / ‖x‖
    """

    def __init__(self, settings: MotionTransformerSettings, shape: Sequence[int], embedding_width: int) -> None:
        super().__init__(2 * settings.width, embedding_width)
        width, num_values = settings.width, shape[1]
        self.scale = Standardise(num_values)
        self.first = nn.Conv1d(num_values, width, 5, 2, 2)
        self.second = nn.Conv1d(width, width, 3, 2, 1)
        self.positions = nn.Parameter(0.02 * torch.randn(-(-settings.num_frames // 4), width))
        layer = nn.TransformerEncoderLayer(
            width, settings.num_heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, settings.num_layers, nn.LayerNorm(width), enable_nested_tensor=False)

    def features(self, batch: MediaBatch) -> Tensor:
        """Return mean and maximum of the last states ``[B, 2w]``."""
        x = nn.functional.gelu(self.first(self.scale(batch).transpose(1, 2)))
        length = batch.length.add(1).div(2, rounding_mode="floor")
        x = self.second(x * real_frames(length, x.shape[2])[:, None]).transpose(1, 2)
        real = real_frames(length.add(1).div(2, rounding_mode="floor"), x.shape[1])
        x = self.layers(x + self.positions[: x.shape[1]], src_key_padding_mask=~real)
        return pool_frames(x.float(), real)
