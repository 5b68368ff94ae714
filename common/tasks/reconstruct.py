"""Reconstruction: the picture itself shall arrive."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from sclmkb.common.tasks.media.base import ItemScores, MediaTask
from sclmkb.common.tasks.media.quality import ms_ssim, psnr_db

_LEAST_ERROR = 1e-5
"""Mean squared error of values of 0 to 1 below which a picture is as good as perfect: 50 dB."""


class Reconstruct(MediaTask):
    """Peak signal-to-noise ratio and multi-scale structural similarity, for values of 0 to 255 after rounding."""

    name = "reconstruct"
    measures: ClassVar[Mapping[str, str]] = {"psnr": "PSNR [dB]", "ms_ssim": "MS-SSIM"}
    scale = 40.0

    def score(self, outputs: Sequence[Tensor], references: Sequence[Tensor]) -> ItemScores:
        """Return PSNR and MS-SSIM of every picture ``[3, S, S]`` of 8 bits."""
        pairs = torch.stack(list(outputs)), torch.stack(list(references))
        return {"psnr": psnr_db(*pairs).double().numpy(), "ms_ssim": ms_ssim(*pairs).double().numpy()}


def picture_loss(got: Float[Tensor, "B 3 S S"], pictures: Float[Tensor, "B 3 S S"]) -> Float[Tensor, " B"]:
    """Return the logarithm of each picture's mean squared error: a tenth of minus its PSNR."""
    return ((got.float() - pictures).square().flatten(1).mean(1) + _LEAST_ERROR).log10()


def to_bytes(pictures: Float[Tensor, "B 3 S S"]) -> Tensor:
    """Return pictures of 0 to 1 as 8-bit values, what lies outside cut off."""
    return (pictures.clamp(0, 1) * 255).round().to(torch.uint8)
