"""The noise power of a CSI history, estimated from the history itself."""

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
    (minimum description length, Wax and Kailath 1985, with N = Nr·Nt observations).

    Returns:
        Noise power of each history, at least :data:`LEAST_NOISE` of its power.
    """
    series = history.flatten(2)  # [B, T, N]
    num_history, count = series.shape[1:]
    gram = series @ series.mH / count
    values = torch.linalg.eigvalsh(gram).double().clamp(min=0)  # ascending
    power = values.mean(-1)
    values = values + 1e-9 * power.clamp(min=1e-30)[:, None]
    sizes = torch.arange(1, num_history + 1, dtype=values.dtype, device=values.device)  # how many are noise
    arithmetic = values.cumsum(-1) / sizes
    geometric = values.log().cumsum(-1) / sizes
    observations = min(count, 64 * num_history)
    likelihood = observations * sizes * (arithmetic.log() - geometric)
    signals = num_history - sizes
    penalty = 0.5 * signals * (2 * num_history - signals) * torch.log(torch.tensor(float(observations)))
    best = (likelihood + penalty).argmin(-1, keepdim=True)
    noise = arithmetic.gather(-1, best).squeeze(-1)
    # The signal's dimensions take some noise along: the smallest m of T eigenvalues are biased low by m / N and more.
    return torch.maximum(noise, LEAST_NOISE * power).float()
