"""ADJSCC: DeepJSCC whose channels are weighted by attention to the SNR, one model for all SNRs.

::

    maps [B, c, ., .] ─► mean of each ─┐
    SNR ───────────────────────────────┴► two layers ─► a weight in 0 to 1 of each of the c maps

Source: Xu, Ai, Chen, Yang, Sun and Rodrigues, "Wireless Image Transmission Using Deep Source Channel Coding With
Attention Modules", IEEE Transactions on Circuits and Systems for Video Technology, 2022, Section III. The paper has 256
channels, 9 × 9 kernels at the ends and GDN; this has DeepJSCC's convolutions, so that both differ by attention alone.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sclmkb.common.models.lam.codecs.base import CODECS, SNR_SCALE_DB
from sclmkb.common.models.lam.codecs.deepjscc import DeepJscc, PlainCodecSettings


class AdjsccSettings(PlainCodecSettings):
    """ADJSCC: DeepJSCC with attention to the SNR."""

    kind: Literal["adjscc"] = Field(default="adjscc", description="the codec: adjscc")


@CODECS.register(AdjsccSettings)
class Adjscc(DeepJscc):
    """See the module; arguments as :class:`DeepJscc`."""

    def between(self, channels: int) -> nn.Module:
        """Return PReLU and attention."""
        return _Attention(channels)


class _Attention(nn.Module):
    """PReLU and the attention feature module."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.act = nn.PReLU(channels)
        hidden = max(channels // 4, 4)
        self.weights = nn.Sequential(
            nn.Linear(channels + 1, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor, snr_db: Tensor) -> Tensor:
        x = self.act(x)
        known = torch.cat([x.mean((2, 3)), snr_db[:, None] / SNR_SCALE_DB], dim=1)
        y: Tensor = x * self.weights(known)[:, :, None, None]
        return y
