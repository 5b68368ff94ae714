"""CSI feedback of B bits per report: transform coding of one whole channel matrix.

::

    h [Nr, Nt] ─► KLT ─► 2·Nr·Nt real coefficients ─► scalar quantisers, B bits in all ─► inverse KLT ─► ĥ

The KLT (eigenvectors of the covariance), the division of the bits and the Lloyd-Max quantisers are fitted to training
channels; terminal and base station both know them. B bits describe the whole matrix at one time; histories are reported
sample by sample. The scale of a history (its unit power) is taken as known and costs no bits.

Sources: reverse water-filling, Cover and Thomas, Elements of Information Theory, section 10.3.3; quantisers, Lloyd 1982
and Max 1960.
"""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Complex64, Float, Int
from torch import Tensor

from sclmkb.common.errors import UserError

MAX_BITS = 8
"""Most bits that a coefficient gets: 256 levels."""

MAX_ENTRIES = 2048
"""Largest number of matrix entries that a covariance is computed for."""

_MOST_SAMPLES = 400_000
"""About how many samples a quantiser is fitted to."""


def check_report(entries: int, num_bits: int, where: str) -> None:
    """Refuse reports of B bits on matrices of so many entries that no code book can be made for."""
    if entries > MAX_ENTRIES:
        raise UserError(f"a report of the {entries} entries in {where} is too large, {MAX_ENTRIES} are the most")
    if num_bits > (most := 2 * entries * MAX_BITS):
        raise UserError(
            f"feedback_bits = {num_bits} are more than the {entries} entries in {where} can take: set at most {most}"
        )


def allocate_bits(variances: Float[Tensor, " N"], num_bits: int) -> Int[Tensor, " N"]:
    """Return whole bits for each component, :data:`MAX_BITS` at most: reverse water-filling in integers.

    Each bit goes where it lowers Σ σ_i² 4^(-b_i) most, which is the least sum that whole numbers reach.

    Raises:
        ValueError: if there are more bits than the components can take.
    """
    if num_bits > MAX_BITS * len(variances):
        raise ValueError(f"{num_bits} bits are more than {len(variances)} components of {MAX_BITS} bits take")
    bits = [0] * len(variances)
    heap = [(-float(variance), i) for i, variance in enumerate(variances)]
    heapq.heapify(heap)
    for _ in range(num_bits):
        remaining, i = heapq.heappop(heap)
        bits[i] += 1
        if bits[i] < MAX_BITS:
            heapq.heappush(heap, (remaining / 4, i))
    return torch.tensor(bits)


def lloyd_max(samples: Float[Tensor, " M"], num_levels: int) -> Float[Tensor, " L"]:
    """Return the ascending levels of a scalar quantiser with a locally least mean squared error on the samples.

    Starts at quantiles; a level that no sample is nearest to stays where it is.
    """
    ordered = samples.double().sort().values
    sums = torch.cat([ordered.new_zeros(1), ordered.cumsum(0)])
    places = ((torch.arange(num_levels, device=samples.device) + 0.5) / num_levels * len(ordered)).long()
    levels = ordered[places.clamp(max=len(ordered) - 1)]
    for _ in range(200):
        inner = torch.searchsorted(ordered, (levels[1:] + levels[:-1]) / 2)
        edges = torch.cat([inner.new_zeros(1), inner, inner.new_tensor([len(ordered)])])
        count = edges.diff()
        means = (sums[edges[1:]] - sums[edges[:-1]]) / count.clamp(min=1)
        moved = torch.where(count > 0, means, levels)
        if torch.allclose(moved, levels, rtol=1e-6, atol=1e-9):
            break
        levels = moved
    return levels.float()


@dataclass(frozen=True, kw_only=True)
class FeedbackCodebook:
    """What both ends know of the quantiser of channel matrices.

    D = Nr · Nt entries; the real and the imaginary part of each coefficient are components, 2 · D of them.

    Attributes:
        basis: eigenvectors of the covariance, in columns, strongest first.
        scale: standard deviation of each component in training.
        bits: bits of each component; those with none are taken as zero.
        levels: the quantiser for each number of bits, of components of unit variance.
    """

    basis: Complex64[Tensor, "D D"]
    scale: Float[Tensor, " C"]
    bits: Int[Tensor, " C"]
    levels: Mapping[int, Tensor]

    @classmethod
    def fit(cls, h: Complex64[Tensor, "M Nr Nt"], num_bits: int) -> "FeedbackCodebook":
        """Fit transform, bits and quantisers for reports of B bits to training channels.

        Raises:
            ValueError: if B is more than a matrix can take.
        """
        x = h.flatten(1)
        covariance = x.mT.to(torch.complex128) @ x.conj().to(torch.complex128) / len(x)
        basis = torch.linalg.eigh(covariance).eigenvectors.flip(-1).to(torch.complex64)
        components = _components(x @ basis.conj())
        variances = components.double().square().mean(0)
        bits = allocate_bits(variances.clamp(min=1e-20), num_bits)
        scale = variances.sqrt().float()
        levels = {}
        for count in sorted(set(bits.tolist()) - {0}):
            chosen = components[:, bits == count] / scale[bits == count].clamp(min=1e-10)
            values = chosen.flatten()
            levels[count] = lloyd_max(values[:: max(1, len(values) // _MOST_SAMPLES)], 2**count)
        return cls(basis=basis, scale=scale, bits=bits, levels=levels)

    def quantise(self, h: Complex[Tensor, "*batch Nr Nt"]) -> Complex64[Tensor, "*batch Nr Nt"]:
        """Return channels as the receiver of the reports reconstructs them."""
        x = h.flatten(-2)
        if x.shape[-1] != len(self.basis):
            raise ValueError(f"the codebook is for matrices of {len(self.basis)} entries, not {x.shape[-1]}")
        components = _components(x.to(torch.complex64) @ self.basis.conj())
        restored = torch.zeros_like(components)
        for count, levels in self.levels.items():
            chosen = self.bits == count
            unit = components[..., chosen] / self.scale[chosen].clamp(min=1e-10)
            nearest = torch.bucketize(unit.contiguous(), (levels[1:] + levels[:-1]) / 2)
            restored[..., chosen] = levels[nearest] * self.scale[chosen]
        real, imag = restored.chunk(2, -1)
        return (torch.complex(real, imag) @ self.basis.mT).unflatten(-1, h.shape[-2:])  # type: ignore[no-untyped-call, no-any-return]


def _components(coefficients: Tensor) -> Tensor:
    return torch.cat([coefficients.real, coefficients.imag], -1)
