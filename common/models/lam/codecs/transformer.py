"""Pictures as patches through transformer blocks: the way of U-DeepSC.

::

    picture [B, 3, S, S] ─► patches of 4 × 4 ─► blocks ─► linear map of each patch ─► u complex uses ─► power 1 per use
    arrived [B, u]       ─► linear map of each patch ─► blocks ─► patches ─► picture

Source: Zhang et al., "A Unified Multi-Task Semantic Communication System for Multimodal Data", IEEE TCOM 2024,
Section III. There the receiver's blocks are a decoder that reads a query of the task, which is one vector for all
pictures; here the places of the patches are that query. The SNR is added to the patches at both ends.
"""

from typing import Literal

import torch
from jaxtyping import Complex, Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from sclmkb.common.models.lam.codecs.base import CODECS, SCALES, SNR_SCALE_DB, CodecSettings, PictureCodec


class TransformerCodecSettings(CodecSettings):
    """A codec of patches."""

    kind: Literal["transformer"] = Field(default="transformer", description="the codec: transformer")
    width: PositiveInt = Field(default=64, description="width of a patch's token")
    num_blocks: PositiveInt = Field(default=3, description="transformer blocks at each end")
    num_heads: PositiveInt = Field(default=4, description="attention heads; they divide the width")


@CODECS.register(TransformerCodecSettings)
class TransformerCodec(PictureCodec):
    """See the module; arguments as :class:`DeepJscc`."""

    learning_rate = 3e-3

    def __init__(self, settings: TransformerCodecSettings, size: int, num_uses: int, context_width: int) -> None:
        super().__init__(size, num_uses)
        values = 3 * SCALES**2
        self.sender = _End(settings, self.side**2, values, self.depth)
        self.receiver = _End(settings, self.side**2, self.depth, values)

    def encode(
        self, pictures: Float[Tensor, "B 3 S S"], snr_db: Float[Tensor, " B"], context: Float[Tensor, "B w"] | None
    ) -> Complex[Tensor, "B u"]:
        """See :meth:`PictureCodec.encode`."""
        patches = pixel_unshuffle(2 * pictures - 1, SCALES).flatten(2).transpose(1, 2)
        return self.to_uses(self.sender(patches, snr_db).transpose(1, 2))

    def decode(self, arrived: Complex[Tensor, "B u"], snr_db: Float[Tensor, " B"]) -> Float[Tensor, "B 3 S S"]:
        """See :meth:`PictureCodec.decode`."""
        patches = self.receiver(self.to_planes(arrived).flatten(2).transpose(1, 2), snr_db).transpose(1, 2)
        return 0.5 + 0.5 * pixel_shuffle(patches.unflatten(2, (self.side, self.side)), SCALES)


class _End(nn.Module):
    """Blocks over tokens ``[B, P, .]``, with a linear map before and after them."""

    def __init__(self, settings: TransformerCodecSettings, places: int, given: int, wanted: int) -> None:
        super().__init__()
        width = settings.width
        block = nn.TransformerEncoderLayer(
            width, settings.num_heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.into, self.snr = nn.Linear(given, width), nn.Linear(1, width)
        self.places = nn.Parameter(torch.randn(places, width) * 0.02)
        self.blocks = nn.TransformerEncoder(block, settings.num_blocks, nn.LayerNorm(width), enable_nested_tensor=False)
        self.out = nn.Linear(width, wanted)

    def forward(self, tokens: Tensor, snr_db: Tensor) -> Tensor:
        tokens = self.into(tokens) + self.places + self.snr(snr_db[:, None] / SNR_SCALE_DB)[:, None]
        wanted: Tensor = self.out(self.blocks(tokens))
        return wanted
