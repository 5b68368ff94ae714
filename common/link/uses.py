"""The channel of the second paper: the complex uses of each sample, every one counted, over AWGN or Rician fading.

::

    symbols [B, n], sent [B, n] ─► normalise_uses ─► transmit: y = h s + n, equalised with h ─► received [B, n]

Conventions: a complex use that is sent has power 1 on average over its sample, and the noise has variance 1/SNR per
complex use, 0.5/SNR per real part. So the SNR is that of one use before fading. h is one value a sample (block
fading) with E|h|² = 1, and does not scale the noise. A use that is not sent has no influence and arrives as 0.

It is the link of one antenna at each end (:mod:`link`, :mod:`mimo`), so that a MIMO link can take its place.

Shapes: B samples, n complex uses that a sample may send.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Complex, Float
from pydantic import Field, PositiveInt
from torch import Tensor

from sclmkb.common.config import Settings
from sclmkb.common.errors import UserError
from sclmkb.common.link import link
from sclmkb.common.link.fading import FadingSettings, draw_channels
from sclmkb.common.link.mimo import Beams, detect_literal, normalise_symbols
from sclmkb.common.link.state import LinkState
from sclmkb.common.seeds import make_generator

Draws = torch.Generator | Sequence[torch.Generator]
"""One generator for a batch, or one for each sample, which then meets the same channel and noise in every batch."""


class UsesChannelSettings(Settings):
    """What complex uses go over."""

    kind: Literal["awgn", "rician", "mimo"] = Field(
        default="awgn",
        description="awgn: noise alone; rician: also fading, one gain for all uses of a sample; mimo: the MIMO link of "
        "a CSI artifact (--csi)",
    )
    k_factor: float = Field(
        default=4.0,
        gt=0,
        allow_inf_nan=False,
        description="Rician K-factor: power of the direct path over the power of the scattered paths, not in dB",
    )
    csi_source: Literal["perfect", "stale", "predicted"] = Field(
        default="perfect", description="CSI that the transmitter has, for mimo"
    )
    num_streams: PositiveInt = Field(default=4, description="streams k of mimo: symbols per use")
    receiver: Literal["literal", "dmrs"] = Field(
        default="dmrs", description="receiver of mimo: literal knows the transmitter's CSI, dmrs has pilots"
    )

    @property
    def name(self) -> str:
        """How tables call it: ``awgn``, ``rician-4`` or ``mimo-predicted``."""
        beside = {"rician": f"-{self.k_factor:g}", "mimo": f"-{self.csi_source}"}
        return self.kind + beside.get(self.kind, "")

    @property
    def symbols_per_use(self) -> int:
        """Complex symbols that one use carries."""
        return self.num_streams if self.kind == "mimo" else 1

    def convey(
        self,
        symbols: Complex[Tensor, "B n"],
        sent: Bool[Tensor, "B n"],
        snr_db: Float[Tensor, "B"],
        draws: Draws,
    ) -> Complex[Tensor, "B n"]:
        """Return what arrives of symbols between one antenna at each end, see :func:`transmit`."""
        gains = draw_gains(self, len(symbols), draws).to(symbols.device)
        return transmit(symbols, sent, gains, snr_db, draws)


def sample_draws(seed: int, samples: Sequence[int | str]) -> list[torch.Generator]:
    """Return a generator for each sample that depends on the seed and the sample's name alone.

    Measurements draw from these: all systems then meet the same gains and noise, whatever the size of a batch.
    """
    return [make_generator(seed, "uses", sample) for sample in samples]


def normalise_uses(symbols: Complex[Tensor, "B n"], sent: Bool[Tensor, "B n"]) -> Complex[Tensor, "B n"]:
    """Scale each sample to a mean power of 1 over the uses that it sends; the others become 0, whatever they hold.

    A sample of zeros, and one that sends nothing, stays zero.
    """
    kept = torch.where(sent, symbols, torch.zeros_like(symbols))
    share = sent.sum(1, keepdim=True) / sent.shape[1]
    return normalise_symbols(kept[:, None])[:, 0] * share.sqrt()


def draw_gains(settings: UsesChannelSettings, num: int, draws: Draws) -> Complex[Tensor, "B"]:
    """Draw the gain h of each sample, with E|h|² = 1.

    Of ``awgn`` it is 1. Of ``rician`` it is √(K / (K + 1)) + √(1 / (K + 1)) w with w from CN(0, 1).

    Raises:
        ValueError: if there are several generators, and not ``num``.
        UserError: of ``mimo``, which has no one gain.
    """
    if settings.kind == "mimo":
        raise UserError("channel mimo has many antennas: this link takes awgn and rician")
    if not isinstance(draws, torch.Generator):
        _check_count(draws, num)
        return torch.cat([draw_gains(settings, 1, one) for one in draws])
    sizes = FadingSettings(num_rx=1, num_tx=1, num_drops=num, rician_k_db=10 * math.log10(settings.k_factor))
    return draw_channels(settings.kind, sizes, 1, 1, draws)[:, 0, 0, 0].expand(num)


def single_antenna(gains: Complex[Tensor, "B"], snr_db: Float[Tensor, "B"]) -> LinkState:
    """Return the link of gains h between one antenna at each end, which both know; its stream SNR is |h|² SNR.

    The SNR is of double precision: in single precision, powers of 10 depend on the size of the batch.
    """
    size = gains.abs().clamp(min=1e-12)
    beams = Beams(u=(gains / size)[:, None, None], s=size[:, None], v=torch.ones_like(gains)[:, None, None])
    return LinkState(gains[:, None, None], beams, snr_db.double(), is_precoded=True)


def transmit(
    symbols: Complex[Tensor, "B n"],
    sent: Bool[Tensor, "B n"],
    gains: Complex[Tensor, "B"],
    snr_db: Float[Tensor, "B"],
    draws: Draws,
) -> Complex[Tensor, "B n"]:
    """Return what the receiver has of symbols after equalisation: h* (h s + n) / (|h|² + 1/SNR).

    This is MMSE, as both receivers of :mod:`mimo` do. Zero forcing, y / h, has the same SNR, but values without bound
    where the channel fades, on which a decoder cannot be trained.

    Args:
        symbols: of power 1 a use, see :func:`normalise_uses`.
        sent: which uses are sent; the receiver knows it, and has 0 in place of the others.
        gains: h of each sample, which the receiver knows.
        snr_db: of each sample, before fading.
        draws: what the noise comes from.

    Raises:
        ValueError: if there are several generators, and not one for each sample.
    """
    state, size = single_antenna(gains, snr_db), (1, symbols.shape[1])
    if isinstance(draws, torch.Generator):
        noise = link.white_noise((len(symbols), *size), symbols.device, draws)
    else:
        _check_count(draws, len(symbols))
        noise = torch.cat([link.white_noise((1, *size), symbols.device, one) for one in draws])
    arrived = link.transmit(state, symbols[:, None], noise)
    received = detect_literal(arrived, state.beams, state.snr_db).symbols[:, 0].to(symbols.dtype)
    return torch.where(sent, received, torch.zeros_like(received))


def _check_count(draws: Sequence[torch.Generator], num: int) -> None:
    if len(draws) != num:
        raise ValueError(f"{len(draws)} generators for {num} samples")
