"""Beams of one Doppler frequency each, as far as antennas can tell them apart.

A path that reaches the terminal from one direction has one Doppler frequency. Eigen-beams mix directions of equal
power; what tells them apart is that the correlation matrices over the antennas at several lags,
C(τ) = Σ_t x(t + τ) x(t)^H = Σ_paths p a a^H exp(2πi f τ), share their eigenvectors only where a beam holds one f.
The unitary matrix that makes all of them as diagonal as can be (approximate joint diagonalisation by Givens rotations:
Cardoso and Souloumiac, Jacobi angles for simultaneous diagonalization, 1996) therefore gives beams whose series have
little to do with each other, at any lag, and narrow spectra: those a filter for each beam predicts best.
"""

import torch
from jaxtyping import Complex
from torch import Tensor

from sclmkb.common.channel.csi import EigenBeams

NUM_LAGS, NUM_SWEEPS, MOST = 8, 2, 16
"""Lags that are looked at, sweeps over all pairs of beams, and how many of the strongest beams are turned."""


@torch.no_grad()
def doppler_beams(history: Complex[Tensor, "B T Nr Nt"]) -> EigenBeams:
    """Return the eigen-beams of histories, turned until they part Doppler frequencies; strongest first.

    Only the strongest :data:`MOST` directions of each end are turned; the others stay eigen-beams.
    """
    eigen = EigenBeams.of(history)
    # h^T instead of h^H: the lags must keep their sense for the transmit side.
    return EigenBeams(_turn(history, eigen.u), _turn(history.mT, eigen.v.conj()).conj())


def _turn(history: Tensor, start: Tensor) -> Tensor:
    strongest = start[..., :MOST]
    inside = torch.einsum("bri,btrs->btis", strongest.conj(), history)
    num_samples = inside.shape[1]
    lags = range(min(NUM_LAGS, num_samples - 1) + 1)
    correlations = torch.stack(
        [torch.einsum("btis,btks->bik", inside[:, lag:], inside[:, : num_samples - lag].conj()) for lag in lags], 1
    )
    rotation = jointly_diagonalise(correlations, NUM_SWEEPS)
    power = torch.einsum("bik,bij,bjk->bk", rotation.conj(), correlations[:, 0], rotation).real
    order = power.argsort(-1, descending=True)
    rotation = rotation.gather(2, order.unsqueeze(1).expand_as(rotation))
    return torch.cat([strongest @ rotation, start[..., MOST:]], -1)


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
