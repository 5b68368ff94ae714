"""The noise power of a CSI history, estimated from the history itself."""

import math

import torch
from jaxtyping import Complex64, Float
from torch import Tensor

LEAST_NOISE = 1e-4
"""Estimates stay above this share of the history's power: the model cannot tell less noise from none."""


@torch.no_grad()
def estimate_noise_power(history: Complex64[Tensor, "B T Nr Nt"]) -> Float[Tensor, " B"]:
    """Estimate the power of white noise on each history, in the units of its power.

    A moving terminal occupies a band of Doppler frequencies, and with it some of the T dimensions that T samples
    have; noise occupies all. The Nr·Nt antenna pairs give the eigenvalues of the T × T correlation over time, and the
    estimate is the mean of the smallest ones that are alike: those a test of sphericity in noise keeps together
    (minimum description length, Wax and Kailath 1985, with as many observations as antenna pairs).

    Returns:
        Noise power of each history, at least :data:`LEAST_NOISE` of its power.
    """
    series = history.flatten(2)  # [B, T, N]
    length = series.shape[1]
    if series.shape[2] < 4 * length:  # few antenna pairs: shorter windows, more of them
        length = max(2, length // 2)
    windows = series.unfold(1, length, 1).permute(0, 3, 1, 2).flatten(2)  # [B, length, observations]
    observations = windows.shape[2]
    values = torch.linalg.eigvalsh(windows @ windows.mH / observations).double().clamp(min=0)  # ascending
    power = values.mean(-1)
    values = torch.maximum(values, 1e-6 * power[:, None]) + torch.finfo(values.dtype).tiny
    sizes = torch.arange(1, length + 1, dtype=values.dtype, device=values.device)  # how many are noise
    arithmetic = values.cumsum(-1) / sizes
    spread = arithmetic.log() - values.log().cumsum(-1) / sizes  # 0 where all are alike
    signals = length - sizes
    penalty = 0.5 * signals * (2 * length - signals) * math.log(observations)
    best = (observations * sizes * spread + penalty).argmin(-1, keepdim=True)
    noise = arithmetic.gather(-1, best).squeeze(-1)
    return torch.maximum(noise, LEAST_NOISE * power).float()
