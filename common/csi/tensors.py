"""CSI tensors: pilot noise, power normalisation, eigen-beams.

Layout everywhere: batch first, ``h [B, T, Nr, Nt]`` complex64, E|h_ij|² = 1, SNR = 1/σ².
"""

from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor


def normalise_power(
    h: Complex[Tensor, "B T Nr Nt"], num_samples: int | None = None
) -> tuple[Complex[Tensor, "B T Nr Nt"], Float[Tensor, "B 1 1 1"]]:
    """Divide each drop by its root mean square over time and antennas.

    Args:
        h: channels.
        num_samples: take the power of this many first samples only (a history); default all.

    Returns:
        The scaled channels, and the scale that undoes it (scaled · scale = h). A drop of zeros stays as it is.
    """
    power = h[:, :num_samples].abs().square().mean((1, 2, 3), keepdim=True)
    scale = power.sqrt()
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return h / scale, scale


def add_pilot_noise(
    h: Complex[Tensor, "B T Nr Nt"], pilot_snr_db: Float[Tensor, " B"], generator: torch.Generator
) -> Complex[Tensor, "B T Nr Nt"]:
    """Add circular complex Gaussian noise of variance 10^(-SNR/10) to channels of unit power."""
    sigma = noise_power(pilot_snr_db).sqrt().to(h.real.dtype).view(-1, 1, 1, 1)
    parts = torch.randn(*h.shape, 2, generator=generator, dtype=h.real.dtype, device=h.device)
    return h + sigma * torch.view_as_complex(parts) / 2**0.5


def hold_unsounded(h: Complex[Tensor, "B S Nr Nt"], period: int) -> Complex[Tensor, "B T Nr Nt"]:
    """Sound every ``period``-th transmit antenna at a time, and hold the others from their last sounding.

    At sample t the antennas a with a ≡ t (mod period) are sounded, so that each is once in ``period`` samples, as in
    staggered sounding. What is held keeps the noise of its sounding.

    Args:
        h: noisy channels, ``period - 1`` samples before the history first, so that all antennas have been sounded.
        period: samples between two soundings of an antenna.

    Returns:
        The last T = S - period + 1 samples, as they are known.
    """
    time = torch.arange(period - 1, h.shape[1], device=h.device).view(-1, 1)
    antenna = torch.arange(h.shape[3], device=h.device).view(1, -1)
    sounded = time - (time - antenna) % period  # [T, Nt]
    index = sounded.view(1, -1, 1, h.shape[3]).expand(h.shape[0], -1, h.shape[2], -1)
    return h.gather(1, index)


def noise_power(snr_db: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """Return σ² = 10^(-SNR/10) of SNRs in dB, for unit signal power."""
    return torch.pow(10.0, -snr_db / 10)


@dataclass(frozen=True)
class EigenBeams:
    """The unitary transform into the receive and transmit eigenvectors of a drop's own history.

    b = U^H h V, with U the eigenvectors of Σ_t h h^H and V those of Σ_t h^H h, strongest first. All Nr·Nt beams are
    kept, so that nothing is lost, and a loss is the same in beams as in antennas. The phase of an eigenvector is
    arbitrary, so what works on beams must be equivariant to a phase for each of them, as linear filters are.

    Attributes:
        u: receive eigenvectors, in columns.
        v: transmit eigenvectors, in columns.
    """

    u: Complex[Tensor, "B Nr Nr"]
    v: Complex[Tensor, "B Nt Nt"]

    @classmethod
    def of(cls, history: Complex[Tensor, "B T Nr Nt"]) -> "EigenBeams":
        """Return the eigen-beams of histories."""
        with torch.no_grad():
            receive = torch.einsum("btij,btkj->bik", history, history.conj())
            transmit = torch.einsum("btji,btjk->bik", history.conj(), history)
            u, v = (torch.linalg.eigh(m).eigenvectors.flip(-1) for m in (receive, transmit))
        return cls(u, v)

    def to_beams(self, h: Complex[Tensor, "B T Nr Nt"]) -> Complex[Tensor, "B T Nr Nt"]:
        """Return b = U^H h V."""
        return torch.einsum("bri,btrs,bsj->btij", self.u.conj(), h, self.v)

    def from_beams(self, beams: Complex[Tensor, "B T Nr Nt"]) -> Complex[Tensor, "B T Nr Nt"]:
        """Return h = U b V^H."""
        return torch.einsum("bri,btij,bsj->btrs", self.u, beams, self.v.conj())
