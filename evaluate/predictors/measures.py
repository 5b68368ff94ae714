"""What ``sclmkb-eval csi`` measures of each predicted drop.

A matrix is ``[rows, Nt]``. Wideband CSI has rows = subcarriers × receive antennas, subcarriers outermost. Measures of
beams are then taken on each subcarrier's own ``[Nr, Nt]`` matrix and averaged.
"""

import torch
from jaxtyping import Complex64, Float
from torch import Tensor

from sclmkb.common.link.mimo import leading_beams
from sclmkb.common.metrics import nmse, spectral_efficiency


def step_nmse(
    truth: Complex64[Tensor, "B P rows Nt"], predicted: Complex64[Tensor, "B P rows Nt"]
) -> Float[Tensor, "B P"]:
    """Return ‖H_p - H^_p‖²_F / ‖H_p‖²_F of each step p."""
    count, num_steps = truth.shape[:2]
    return nmse(truth.flatten(0, 1), predicted.flatten(0, 1)).view(count, num_steps)


def link_nmse(
    truth: Complex64[Tensor, "B P rows Nt"], predicted: Complex64[Tensor, "B P rows Nt"], num_subcarriers: int
) -> Float[Tensor, " B"]:
    """Return the mean over steps and antenna pairs of the NMSE over the subcarriers of that step and pair.

    This is how CSI-4CAST (arXiv 2510.12996) and others count wideband CSI. A weak antenna pair weighs as much as a
    strong one, so the number differs from :func:`~sclmkb.common.metrics.nmse`. Narrowband CSI gives NaN, since the
    ratio of two single coefficients has no mean.
    """
    if num_subcarriers == 1:
        return torch.full((len(truth),), torch.nan)
    wanted, error = (_split_rows(h, num_subcarriers).abs().square().sum(2) for h in (truth, truth - predicted))
    ratios: Tensor = error / wanted
    return ratios.flatten(1).mean(1)


def beam_measures(
    truth: Complex64[Tensor, "B P rows Nt"],
    predicted: Complex64[Tensor, "B P rows Nt"],
    *,
    num_subcarriers: int,
    num_streams: int,
    link_snr_db: float,
    max_subcarriers: int,
) -> dict[str, Float[Tensor, " B"]]:
    """Return subspace similarity and spectral efficiency of each drop, means over its steps and subcarriers.

    Subspace similarity is ‖V_k^H V^_k‖²_F / k of the k strongest right singular vectors of truth and prediction: the
    mean squared cosine of the principal angles between the two transmit subspaces. It is 1 if precoding with the
    prediction reaches the k strongest directions, and k/Nt on average for a random subspace. Neither the scale of the
    prediction nor a phase changes it, nor the order of the vectors within the subspace.

    The precoder of a step is the k strongest right singular vectors of its *predicted* matrix, with equal power on the
    k streams and total power 1. The receiver knows the channel that this meets: log2 det(I + ρ/k V^^H H^H H V^). Each
    drop's true window is scaled to E|h|² = 1 first, so that ρ is the link SNR before array gain.

    Args:
        truth: true future.
        predicted: predicted future.
        num_subcarriers: subcarriers among the rows.
        num_streams: k; fewer where a matrix has fewer rows or columns.
        link_snr_db: ρ [dB].
        max_subcarriers: of more subcarriers, this many are taken, evenly spaced.

    Returns:
        ``subspace`` in [0, 1], ``efficiency`` with the prediction and ``efficiency_perfect`` with the truth
        [bit per channel use].
    """
    scale = truth.abs().square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-20)
    chosen = torch.linspace(0, num_subcarriers - 1, min(num_subcarriers, max_subcarriers)).round().long()
    h, guess = (_split_rows(x / scale, num_subcarriers)[:, :, chosen] for x in (truth, predicted))
    streams = min(num_streams, *h.shape[-2:])
    shape = h.shape[:3]
    h, guess = h.flatten(0, 2), guess.flatten(0, 2)
    best, used = leading_beams(h, streams).v, leading_beams(guess, streams).v
    snr_db = torch.full((len(h),), link_snr_db)
    found = {
        "subspace": _overlap(best, used),
        "efficiency": spectral_efficiency(h, used, snr_db),
        "efficiency_perfect": spectral_efficiency(h, best, snr_db),
    }
    return {name: values.view(shape).mean((1, 2)) for name, values in found.items()}


def _split_rows(h: Tensor, num_subcarriers: int) -> Tensor:
    count, num_steps, rows, num_tx = h.shape
    return h.reshape(count, num_steps, num_subcarriers, rows // num_subcarriers, num_tx)


def _overlap(v: Tensor, v_hat: Tensor) -> Tensor:
    return (v.mH @ v_hat).abs().square().sum((-2, -1)) / v.shape[-1]
