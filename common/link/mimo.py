"""Beams, power and the two receivers of the MIMO link, equations (2) and (5); :mod:`link` sends over it.

::

    H  = U Σ V^H                        (2)
    F~ = U_k^H Y = Σ_k F + U_k^H N      (5)

The second form of (5) holds for the CSI of the channel itself.

Conventions, everywhere: E|h_ij|² = 1. The total transmit power is 1 per channel use, whatever the number of streams.
SNR = 1/σ² with σ² the noise power at each receive antenna, so the SNR is stated *before* array gain.

Power is put on the beams themselves: :func:`allocate_power` scales v_i and σ_i by √(k p_i), with p_i the share of
stream i. Everything here then holds for any allocation. With ``equal``, p_i = 1/k, beams stay as they are.

Shapes: B batch, Nt and Nr antennas, k spatial streams, m channel uses.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from sclmkb.common.csi.tensors import noise_power
from sclmkb.common.errors import UserError

Power = Literal["equal", "water_filling"]


class Beams(NamedTuple):
    """The leading part of an SVD, (2): what one side of the link knows of the channel.

    Attributes:
        u: left singular vectors ``[..., Nr, k]``.
        s: singular values ``[..., k]``, descending.
        v: right singular vectors ``[..., Nt, k]``.
    """

    u: Tensor
    s: Tensor
    v: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> "Beams":
        """Return beams with each of the three tensors changed alike."""
        return Beams(*map(change, self))

    def scaled(self, amplitude: Tensor) -> "Beams":
        """Return the beams with σ_i and v_i times amplitudes ``[..., k]``."""
        return Beams(self.u, self.s * amplitude, self.v * amplitude.unsqueeze(-2))


class Detected(NamedTuple):
    """What a receiver hands to the decoder.

    Attributes:
        symbols: equalised estimate of F, complex ``[B, k, m]``.
        stream_snr_db: the SNR in dB that the receiver believes each stream to have, ``[B, k]``.
    """

    symbols: Tensor
    stream_snr_db: Tensor


def leading_beams(h: Complex[Tensor, "*B Nr Nt"], num_streams: int) -> Beams:
    """Return the leading singular vectors and values of H, (2).

    Raises:
        UserError: if there are fewer antennas than streams.
    """
    num_rx, num_tx = h.shape[-2:]
    if num_streams > min(num_rx, num_tx):
        raise UserError(
            f"num_streams = {num_streams} is more than the rank of a {num_rx} × {num_tx} channel: set at most"
            f" {min(num_rx, num_tx)}"
        )
    u, s, vh = torch.linalg.svd(h, full_matrices=False)
    return Beams(
        u[..., :num_streams].contiguous(),
        s[..., :num_streams].contiguous(),
        vh[..., :num_streams, :].mH.contiguous(),
    )


def normalise_symbols(f: Complex[Tensor, "B k m"]) -> Complex[Tensor, "B k m"]:
    """Scale each sample's symbols to a total power of 1 per channel use (mean over its own m uses, not the batch)."""
    power = torch.view_as_real(f).square().sum(dim=(-3, -2, -1)) / f.shape[-1]
    return f / power.clamp(min=1e-12).sqrt()[:, None, None]


def normalise_streams(f: Complex[Tensor, "B k m"]) -> Complex[Tensor, "B k m"]:
    """Scale each stream of each sample to a power of 1/k per channel use: what an allocation of power starts from."""
    power = torch.view_as_real(f).square().sum(dim=(-2, -1)) / f.shape[-1]
    return f / (power * f.shape[-2]).clamp(min=1e-12).sqrt()[..., None]


def water_filling(gain: Float[Tensor, "*B k"], noise: Float[Tensor, "*B"]) -> Float[Tensor, "*B k"]:
    """Return the shares of a power of 1 that carry most information over parallel channels.

    p_i = max(0, μ - σ² / g_i) with Σ p_i = 1, for gains g_i = s_i², descending. A noise σ² of 0 fills all alike.
    Source: Cover and Thomas, Elements of Information Theory, section 9.4.
    """
    floor = noise[..., None].double() / gain.double().clamp(min=torch.finfo(torch.float64).tiny)
    floor = floor.clamp(max=1e30)
    count = torch.arange(1, gain.shape[-1] + 1, dtype=torch.float64, device=gain.device)
    level = (1 + floor.cumsum(-1)) / count  # μ if the first n channels get power
    # floors ascend, so the channels with power come first
    last = (level > floor).sum(-1, keepdim=True).clamp(min=1) - 1
    return (level.gather(-1, last) - floor).clamp(min=0).to(gain.dtype)


def allocate_power(beams: Beams, snr_db: Float[Tensor, "*B"], power: Power) -> Beams:
    """Return beams with v_i and σ_i scaled by √(k p_i), as the CSI of these beams and the SNR say.

    Both ends know p_i: the transmitter from its CSI, receiver ``literal`` from the same, and ``dmrs`` sees it in its
    pilots, which are precoded like the data. A stream with p_i = 0 is silent: its v_i and σ_i are zero.
    """
    return beams if power == "equal" else beams.scaled(stream_amplitudes(beams, snr_db))


def stream_amplitudes(beams: Beams, snr_db: Float[Tensor, "*B"]) -> Float[Tensor, "*B k"]:
    """Return √(k p_i) of water-filling, see :func:`allocate_power`."""
    return (water_filling(beams.s.square(), noise_power(snr_db)) * beams.s.shape[-1]).sqrt()


def detect_literal(y: Complex[Tensor, "B Nr m"], beams: Beams, snr_db: Float[Tensor, "B"]) -> Detected:
    """Detect as (5) reads, F~ = U_k^H Y, with U_k and Σ_k of the transmitter's own CSI.

    Each stream is then scaled by the LMMSE factor for the singular value that both sides believe in. With perfect CSI
    and no noise this returns F; with stale CSI the off-diagonal part of U_k^H H V_k and its phase remain.
    """
    stream_power = 1 / beams.s.shape[-1]
    noise = noise_power(snr_db)[:, None]
    gain = beams.s / (beams.s.square() + noise / stream_power).clamp(min=1e-20)
    symbols = gain.unsqueeze(-1) * (beams.u.mH @ y)
    return Detected(symbols, bounded_db(beams.s.square() * stream_power / noise.clamp(min=1e-20)))


def detect_dmrs(
    y: Complex[Tensor, "B Nr m"],
    effective: Complex[Tensor, "B Nr k"],
    snr_db: Float[Tensor, "B"],
    pilot_snr_db: Float[Tensor, "B"],
) -> Detected:
    """Detect by LMMSE with an estimate of H V_k, as a modem with demodulation pilots does.

    The error of the estimate, white with variance 1 / pilot SNR per unit of transmit power, counts as noise. Streams
    with a column of zeros are silent, and detected as zero.
    """
    num_streams = effective.shape[-1]
    active = (effective.detach() != 0).any(-2).sum(-1)  # power is 1/k on each
    noise = (num_streams * noise_power(snr_db) + active * noise_power(pilot_snr_db)).clamp(min=1e-12)
    gram = effective.mH @ effective
    gram.diagonal(dim1=-2, dim2=-1).add_(noise[:, None])
    inverse = torch.linalg.inv(gram)
    error = noise[:, None] * inverse.diagonal(dim1=-2, dim2=-1).real
    return Detected(inverse @ (effective.mH @ y), bounded_db(1 / error.clamp(min=1e-12) - 1))


def symbol_mse(f: Complex[Tensor, "B k m"], estimate: Complex[Tensor, "B k m"]) -> Float[Tensor, "B"]:
    """Return ‖F - F^‖² / ‖F‖² of each sample (linear; average before taking the logarithm)."""
    error = torch.view_as_real(f - estimate).square().sum(dim=(-3, -2, -1))
    return error / torch.view_as_real(f).square().sum(dim=(-3, -2, -1)).clamp(min=1e-20)


def bounded_db(ratio: Float[Tensor, "B k"]) -> Float[Tensor, "B k"]:
    """Return SNRs in dB of streams, within -50 and 80 dB, so that they can be computed."""
    return 10 * torch.log10(ratio.clamp(min=1e-5, max=1e8))
