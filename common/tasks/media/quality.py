"""How alike pictures are: PSNR and MS-SSIM of each."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

MOST_PSNR_DB = 100.0
"""PSNR of equal pictures, so that means stay finite."""

_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW, _DEVIATION = 11, 1.5


def psnr_db(outputs: UInt8[Tensor, "B 3 H W"], references: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B"]:
    """Return 10 log10(255² / mean squared error) of each picture, at most 100 dB."""
    error = (outputs.float() - references.float()).square().mean((1, 2, 3))
    return (10 * torch.log10(255**2 / error)).clamp(max=MOST_PSNR_DB)


def ms_ssim(outputs: UInt8[Tensor, "B 3 H W"], references: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B"]:
    """Return the multi-scale structural similarity of each picture, the mean of its colours.

    There are five scales, or as many as the window of 11 × 11 fits into: two for 32 × 32. Their weights then have the
    sum 1 again. Negative similarities count as 0.

    Source: Wang, Simoncelli and Bovik 2003, equation (7).

    Raises:
        ValueError: if a picture is smaller than the window.
    """
    least = min(outputs.shape[2:])
    if least < _WINDOW:
        raise ValueError(f"MS-SSIM needs pictures of at least {_WINDOW} pixels, these have {least}")
    num_scales = min(len(_WEIGHTS), (least // _WINDOW).bit_length())
    weights = torch.tensor(_WEIGHTS[:num_scales])
    x, y = outputs.double(), references.double()
    factors = []
    for scale in range(num_scales):
        luminance, contrast = _similarity(x, y)
        last = scale == num_scales - 1
        factors.append((luminance * contrast if last else contrast).mean((2, 3)).clamp(min=0))
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    found = torch.stack(factors).pow((weights / weights.sum())[:, None, None]).prod(0)
    return found.mean(1).float()


def _means(size: int, dtype: torch.dtype) -> Float[Tensor, "P L"]:
    """Return what takes L values to their means under the window, at each place that holds all of it."""
    place = torch.arange(_WINDOW, dtype=dtype) - _WINDOW // 2
    kernel = torch.exp(-place.square() / (2 * _DEVIATION**2))
    means = torch.zeros(size - _WINDOW + 1, size, dtype=dtype)
    for start, row in enumerate(means):
        row[start : start + _WINDOW] = kernel / kernel.sum()
    return means


def _similarity(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the similarity of luminance, and that of contrast and structure, around each place of the window."""
    down, across = (_means(size, x.dtype) for size in x.shape[2:])

    def local(values: Tensor) -> Tensor:
        return down @ values @ across.mT

    mean_x, mean_y = local(x), local(y)
    variance = local(x * x) - mean_x.square() + local(y * y) - mean_y.square()
    covariance = local(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    return luminance, (2 * covariance + c2) / (variance + c2)
