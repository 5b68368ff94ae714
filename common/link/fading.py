"""Textbook channels beside CSI shards: AWGN, Rayleigh and Rician fading.

Conventions as everywhere: E|h_ij|² = 1, SNR before array gain. Fading is constant over the channel uses of a caption
(block fading). From step to step it changes as a first-order Gauss-Markov process, h_{t+1} = ρ h_t + √(1-ρ²) w. With ρ
= J0(2π f_D Δt) the correlation of neighbouring steps is that of Jakes' spectrum.
"""

import math
from typing import Literal

import torch
from jaxtyping import Complex64
from pydantic import Field, PositiveInt
from torch import Tensor

from sclmkb.common.config import Settings
from sclmkb.common.seeds import make_generator

FadingModel = Literal["awgn", "rayleigh", "rician"]


class FadingSettings(Settings):
    """Sizes and statistics of drawn channels."""

    num_rx: PositiveInt = Field(default=16, description="receive antennas Nr of the channels rayleigh and rician")
    num_tx: PositiveInt = Field(default=16, description="transmit antennas Nt of the channels rayleigh and rician")
    rician_k_db: float = Field(
        default=10.0, description="Rician K-factor: power of the direct path over the power of the scattered paths [dB]"
    )
    step_correlation: float = Field(
        default=0.977,
        ge=0,
        le=1,
        description="correlation ρ between two time steps; 0.977 is 30 km/h at 3.5 GHz with steps of 0.5 ms",
    )
    pilot_snr_db: float = Field(
        default=15.0, description="SNR of the pilots behind the transmitter's stale or fed-back CSI [dB]"
    )
    num_drops: PositiveInt = Field(default=1000, description="channels drawn per split")
    num_steps: PositiveInt = Field(default=4, description="future steps P per drop")
    seed: int = Field(default=0, description="seed of the channels, together with the name of the split")


def draw_channels(
    model: FadingModel, settings: FadingSettings, num_streams: int, num_steps: int, generator: torch.Generator
) -> Complex64[Tensor, "N S Nr Nt"]:
    """Draw channels of a number of steps.

    ``awgn`` is √k I for k streams, which all have the stated SNR: mean |h_ij|² = 1 and equal singular values.
    ``rayleigh`` has independent entries CN(0, 1). ``rician`` adds the direct path a_r a_t^H between two linear arrays
    of half a wavelength, at directions drawn for each drop, K times as strong as the Rayleigh part.

    Returns:
        ``settings.num_drops`` channels; of ``awgn`` one.
    """
    if model == "awgn":
        eye = torch.eye(num_streams, dtype=torch.complex64, device=generator.device) * math.sqrt(num_streams)
        return eye.expand(1, num_steps, -1, -1).clone()
    size = (settings.num_drops, settings.num_rx, settings.num_tx)

    def white() -> Tensor:
        return torch.randn(size, dtype=torch.complex64, generator=generator, device=generator.device)

    steps, rho = [white()], settings.step_correlation
    for _ in range(num_steps - 1):
        steps.append(rho * steps[-1] + math.sqrt(1 - rho**2) * white())
    h = torch.stack(steps, dim=1)
    if model == "rayleigh":
        return h
    receive, transmit = (
        _steering(count, settings.num_drops, generator) for count in (settings.num_rx, settings.num_tx)
    )
    direct = receive[:, None, :, None] * transmit.conj()[:, None, None, :]
    k = 10 ** (settings.rician_k_db / 10)
    return math.sqrt(k / (k + 1)) * direct + math.sqrt(1 / (k + 1)) * h


def draw_drops(
    model: FadingModel, settings: FadingSettings, num_streams: int, num_history: int, split: str
) -> tuple[Complex64[Tensor, "N T Nr Nt"], Complex64[Tensor, "N P Nr Nt"]]:
    """Draw the drops of a split: histories of T steps with pilot noise, and the P steps after them without noise."""
    generator = make_generator(settings.seed, "fading", model, split)
    h = draw_channels(model, settings, num_streams, num_history + settings.num_steps, generator)
    history = h[:, :num_history]
    noise = torch.randn(history.shape, dtype=h.dtype, generator=generator, device=h.device)
    return history + 10 ** (-settings.pilot_snr_db / 20) * noise, h[:, num_history:].clone()


def _steering(num_antennas: int, num_drops: int, generator: torch.Generator) -> Tensor:
    """Return responses of a linear array to directions with a uniform sine, ``[N, antennas]``."""
    sine = 2 * torch.rand(num_drops, 1, generator=generator, device=generator.device) - 1
    phase = math.pi * sine * torch.arange(num_antennas, device=generator.device)
    return torch.polar(torch.ones_like(phase), phase)
