"""Wiener prediction of a beam from its Doppler spectrum.

::

    spectrum over Doppler words p [M, K] ─► autocorrelation r(τ) ─► Toeplitz R + noise ─► predicted samples
                                                                          ▲
                                        series x [M, T], turned to its central frequency

The result is always the best linear prediction of a stationary process with this spectrum. It turns with the phase of
the series. Its trust in old samples follows from the noise.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Complex, Complex64, Float
from torch import Tensor, nn

_FINENESS = 4.0


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What whitened series hold of each Doppler word.

    Attributes:
        found: power of the word in the whitened series.
        expected: what it should be if the spectrum were true.
        share: that times the word's share of the spectrum: how far the word matters.
    """

    found: Float[Tensor, "M K"]
    expected: Float[Tensor, "M K"]
    share: Float[Tensor, "M K"]


class SpectralWiener(nn.Module):
    """Predicts series of T samples by P more from their spectra and noise.

    A *Doppler word* is a band of frequencies around the central one. The middle word is a line. The others are as wide
    as their distance, which grows away from the centre like sinh. All matrices are real: a Hermitian Toeplitz matrix
    in the basis of symmetric and antisymmetric vectors.

    Attributes:
        frequencies: centre of each word [cycles per sample].
    """

    frequencies: Tensor
    autocorrelation: Tensor
    toeplitz: Tensor
    basis: Tensor
    tones: Tensor
    tone_products: Tensor

    def __init__(self, num_history: int, num_future: int, num_words: int) -> None:
        super().__init__()
        if num_words % 2 == 0:
            raise ValueError(f"the number of Doppler words must be odd, not {num_words}")
        self.num_history, self.num_future = num_history, num_future
        u = torch.linspace(-1, 1, num_words, dtype=torch.float64)
        frequencies = 0.5 * torch.sinh(_FINENESS * u) / math.sinh(_FINENESS)
        widths = torch.gradient(frequencies)[0]
        widths[num_words // 2] = 0
        lags = torch.arange(num_history + num_future, dtype=torch.float64)
        words = torch.polar(torch.sinc(widths[:, None] * lags), 2 * math.pi * frequencies[:, None] * lags)
        basis = _symmetric_basis(num_history)
        tones = torch.polar(
            torch.ones(num_words, num_history, dtype=torch.float64),
            2 * math.pi * frequencies[:, None] * torch.arange(num_history, dtype=torch.float64),
        )
        tones = tones @ basis.conj()  # Q^H a for each word
        products = torch.einsum("kt,ks->kts", tones, tones.conj()).real
        buffers = {
            "frequencies": frequencies.float(),
            "autocorrelation": torch.cat([words.real, words.imag], 1).float(),
            "toeplitz": _toeplitz_map(num_history, basis).float(),
            "basis": basis.to(torch.complex64),
            "tones": tones.to(torch.complex64),
            "tone_products": products.flatten(1).float(),
        }
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer, persistent=False)

    def forward(
        self,
        series: Complex64[Tensor, "M T"],
        spectrum: Float[Tensor, "M K"],
        noise: Float[Tensor, " M"],
        centre: Float[Tensor, " M"],
        *,
        evidence: bool = False,
    ) -> tuple[Complex64[Tensor, "M P"], Evidence | None]:
        """Predict, and say which words the series has more of than the spectrum says.

        Args:
            series: noisy samples, scaled so that their signal has unit power.
            spectrum: share of each word, of sum 1.
            noise: noise power over signal power.
            centre: central frequency of each series [cycles per sample].
            evidence: whether to compute the second result, which has no gradients.
        """
        size = self.num_history + self.num_future
        turned = series * turning(-centre, torch.arange(self.num_history, device=series.device))
        r = spectrum @ self.autocorrelation  # [M, 2 (T + P)]
        real, imag = r[:, :size], r[:, size:]
        matrix = torch.cat([real[:, : self.num_history], imag[:, : self.num_history]], 1) @ self.toeplitz
        matrix = matrix.view(-1, self.num_history, self.num_history)
        matrix = matrix + noise[:, None, None] * torch.eye(self.num_history, device=matrix.device)
        factor = torch.linalg.cholesky_ex(matrix.detach())[0]
        rotated = turned @ self.basis.conj()  # Q^H x
        whitened: Tensor = _Solve.apply(  # type: ignore[no-untyped-call]
            matrix, torch.stack([rotated.real, rotated.imag], -1), factor
        )
        z = torch.complex(whitened[..., 0], whitened[..., 1])
        ahead = torch.arange(self.num_history, size, device=series.device)
        lag = ahead[:, None] - torch.arange(self.num_history, device=series.device)  # [P, T]
        cross = torch.complex(real[:, lag], imag[:, lag])  # E y(p) x(t)*
        predicted = torch.einsum("mpt,mt->mp", cross, z @ self.basis.mT) * turning(centre, ahead)
        return predicted, self._evidence(z.detach(), factor, spectrum.detach()) if evidence else None

    @torch.no_grad()
    def _evidence(self, whitened: Tensor, factor: Tensor, spectrum: Tensor) -> Evidence:
        found = (whitened @ self.tones.mH).abs().square()
        expected = (torch.cholesky_inverse(factor).flatten(1) @ self.tone_products.mT).clamp(min=1e-6)
        return Evidence(found=found, expected=expected, share=expected * spectrum)


class _Solve(torch.autograd.Function):
    """x = A^-1 b for symmetric A whose Cholesky factor is known."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, right: Tensor, factor: Tensor) -> Tensor:
        solution = torch.cholesky_solve(right, factor)
        ctx.save_for_backward(factor, solution)
        return solution

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor, None]:
        factor, solution = ctx.saved_tensors
        right = torch.cholesky_solve(gradients[0], factor)
        return -right @ solution.mT, right, None


def turning(frequency: Float[Tensor, "*B"], times: Tensor) -> Complex[Tensor, "*B times"]:
    """Return exp(2πi f t) of frequencies [cycles per sample] at some times [samples]."""
    phase = 2 * math.pi * frequency.unsqueeze(-1) * times
    return torch.complex(phase.cos(), phase.sin())


def _symmetric_basis(size: int) -> Tensor:
    """Return the unitary Q in which Hermitian Toeplitz matrices are real: Q^H R Q."""
    half, odd = divmod(size, 2)
    eye, flipped = torch.eye(half, dtype=torch.complex128), torch.eye(half, dtype=torch.complex128).flip(0)
    q = torch.zeros(size, size, dtype=torch.complex128)
    q[:half, :half], q[:half, size - half :] = eye, 1j * eye
    q[size - half :, :half], q[size - half :, size - half :] = flipped, -1j * flipped
    if odd:
        q[half, half] = 2**0.5
    return q / 2**0.5


def _toeplitz_map(size: int, basis: Tensor) -> Tensor:
    """Return the matrix ``[2T, T·T]`` from (Re r, Im r) to the real form of the Toeplitz matrix of r."""
    lag = torch.arange(size)[:, None] - torch.arange(size)
    rows = []
    for factor in (1.0, 1j):
        for tau in range(size):
            value = torch.tensor(factor, dtype=torch.complex128)
            matrix = torch.where(lag == tau, value, 0) + torch.where((lag == -tau) & (lag != 0), value.conj(), 0)
            if tau == 0 and factor == 1j:
                matrix = torch.zeros_like(matrix)
            rows.append((basis.mH @ matrix @ basis).real.flatten())
    return torch.stack(rows)
