"""Beams of one Doppler frequency each, as far as antennas can tell them apart.

A path that reaches the terminal from one direction has one Doppler frequency. Eigen-beams mix directions of equal
power. The correlation matrices over the antennas at several lags tell them apart::

    C(τ) = Σ_t x(t + τ) x(t)^H = Σ_paths p a a^H exp(2πi f τ)

They share their eigenvectors only where a beam holds one f. So one unitary matrix is computed that makes all of them
as diagonal as possible. This is approximate joint diagonalisation by Givens rotations (Cardoso and Souloumiac, Jacobi
angles for simultaneous diagonalization, 1996). The series of its beams have little correlation with each other at any
lag, and narrow spectra. A filter for each beam predicts such series best.

A history is short, though. Where many directions are about equally strong, it says little about which mixture of them
is right. Then the array decides. :func:`array_beams` are the beams that part the Doppler frequencies of many drops as
well as one unitary matrix can, such as a uniform array's DFT beams. A prior draws the beams of a history towards
these: matrices that are diagonal in them are diagonalised together with those of the history.
"""

import math

import torch
from jaxtyping import Complex
from torch import Tensor

from sclmkb.common.csi.tensors import EigenBeams

NUM_LAGS, NUM_SWEEPS, MOST = 8, 2, 16
"""Lags that are looked at, sweeps over all pairs of beams, and how many of the strongest beams are turned."""
_ARRAY_SWEEPS, _ARRAY_VALUES = 12, 2_000_000


@torch.no_grad()
def doppler_beams(
    history: Complex[Tensor, "B T Nr Nt"], array: Complex[Tensor, "Nr Nr"] | None = None, weight: float = 1.0
) -> EigenBeams:
    """Return the eigen-beams of histories, turned until they part Doppler frequencies; strongest first.

    Only the strongest :data:`MOST` directions of each end are turned; the others stay what they were before.

    Args:
        history: the histories.
        array: beams to start from at the receive end, and to be drawn to, instead of the eigen-beams.
        weight: how much these count, in units of the mean power of a beam.
    """
    eigen = EigenBeams.of(history)
    # h^T instead of h^H: the lags must keep their sense for the transmit side.
    v = _turn(history.mT, eigen.v.conj(), 0.0).conj()
    if array is None:
        return EigenBeams(_turn(history, eigen.u, 0.0), v)
    power = torch.einsum("ri,btrs->btis", array.conj(), history).abs().square().sum((1, 3))
    start = array[:, power.argsort(-1, descending=True)].transpose(0, 1)
    return EigenBeams(_turn(history, start, weight), v)


@torch.no_grad()
def array_beams(history: Complex[Tensor, "N T Nr Nt"]) -> Complex[Tensor, "Nr Nr"]:
    """Return the receive beams that part the Doppler frequencies of all drops as well as one unitary matrix can.

    Only part of the drops is used, so that this takes seconds. Mirrored drops (conjugates) count as much: arrays see
    them alike.
    """
    num_drops = min(len(history), max(1, _ARRAY_VALUES // (2 * (NUM_LAGS + 1) * history.shape[2] ** 2)))
    chosen = history[torch.arange(num_drops) * len(history) // num_drops]
    correlations = _correlations(torch.cat([chosen, chosen.conj()]))
    power = correlations[:, :1].diagonal(dim1=-2, dim2=-1).real.sum(-1)[..., None, None].clamp(min=1e-30)
    return jointly_diagonalise((correlations / power).flatten(0, 1)[None], _ARRAY_SWEEPS)[0]


def _correlations(series: Complex[Tensor, "B T n s"]) -> Complex[Tensor, "B K n n"]:
    """Return Σ_t x(t + τ) x(t)^H for each lag τ from 0."""
    num_samples = series.shape[1]
    lags = range(min(NUM_LAGS, num_samples - 1) + 1)
    return torch.stack(
        [torch.einsum("btis,btks->bik", series[:, lag:], series[:, : num_samples - lag].conj()) for lag in lags], 1
    )


def _turn(history: Tensor, start: Tensor, weight: float) -> Tensor:
    """Turn the strongest columns of ``start``; with a weight, not far unless the history says so."""
    strongest = start[..., :MOST]
    correlations = _correlations(torch.einsum("bri,btrs->btis", strongest.conj(), history))
    wanted = correlations
    if weight:
        mean = correlations[:, 0].diagonal(dim1=-2, dim2=-1).real.mean(-1)
        prior = weight * mean[:, None, None, None] * _distinct(correlations.shape[-1]).to(correlations.device)
        wanted = torch.cat([correlations, prior], 1)
    rotation = jointly_diagonalise(wanted, NUM_SWEEPS)
    power = torch.einsum("bik,bij,bjk->bk", rotation.conj(), correlations[:, 0], rotation).real
    order = power.argsort(-1, descending=True)
    rotation = rotation.gather(2, order.unsqueeze(1).expand_as(rotation))
    return torch.cat([strongest @ rotation, start[..., MOST:]], -1)


def _distinct(size: int) -> Complex[Tensor, "n size size"]:
    """Return diagonal matrices whose eigenvalues differ as much, all in all, between any two columns."""
    turns = torch.arange(1, size // 2 + 1)[:, None] * torch.arange(size) / size
    return torch.diag_embed(torch.polar(torch.ones(turns.shape), 2 * math.pi * turns))


def jointly_diagonalise(matrices: Complex[Tensor, "B K n n"], num_sweeps: int = NUM_SWEEPS) -> Complex[Tensor, "B n n"]:
    """Return for each set of K matrices the unitary V that makes V^H A_k V nearly diagonal for all k.

    Pairs of columns that do not meet are turned together, in the order of a round-robin tournament.
    """
    a = matrices.clone()
    size = a.shape[-1]
    v = torch.eye(size, dtype=a.dtype, device=a.device).expand(len(a), -1, -1).clone()
    rounds = [
        tuple(torch.tensor(side, device=a.device) for side in zip(*pairs, strict=True)) for pairs in _rounds(size)
    ]
    for p, q in num_sweeps * rounds:
        here = torch.stack([a[..., p, p] - a[..., q, q], a[..., p, q] + a[..., q, p]], -1)
        third = 1j * (a[..., q, p] - a[..., p, q])
        here = torch.cat([here, third.unsqueeze(-1)], -1)  # [B, K, pairs, 3]
        axis = torch.linalg.eigh(torch.einsum("bkmx,bkmy->bmxy", here.conj(), here).real).eigenvectors[..., -1]
        axis = axis * torch.where(axis[..., :1] < 0, -1.0, 1.0)
        cosine = ((axis[..., 0] + 1) / 2).sqrt()
        sine = torch.complex(axis[..., 1], -axis[..., 2]) / (2 * cosine)
        cosine = cosine.to(sine.dtype)
        v[..., p], v[..., q] = _rotate(v[..., p], v[..., q], cosine[:, None], sine[:, None])
        a[..., p], a[..., q] = _rotate(a[..., p], a[..., q], cosine[:, None, None], sine[:, None, None])
        c, s = cosine[:, None, :, None], sine[:, None, :, None]
        a[..., p, :], a[..., q, :] = _rotate(a[..., p, :], a[..., q, :], c, s.conj())
    return v


def _rotate(x: Tensor, y: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
    return cosine * x + sine * y, cosine * y - sine.conj() * x


def _rounds(size: int) -> list[list[tuple[int, int]]]:
    """Return rounds of disjoint pairs in which everybody meets everybody once."""
    around = list(range(size + size % 2))
    rounds = []
    for _ in range(len(around) - 1):
        pairs = [(around[i], around[-1 - i]) for i in range(len(around) // 2)]
        rounds.append([(min(pair), max(pair)) for pair in pairs if max(pair) < size])
        around = [around[0], around[-1], *around[1:-1]]
    return [pairs for pairs in rounds if pairs]
