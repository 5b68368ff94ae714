"""The first paper's MIMO link in the place of the second paper's channel.

::

    symbols [B, n] ─► k streams [B, k, ⌈n/k⌉], power 1 per use in all ─► precode, channel, detect ─► [B, n]

Each sample meets one drop and one future step of a CSI artifact. The transmitter has perfect, stale or predicted CSI of
it. A use of this link carries k symbols. The SNR is that of the link: the power of all antennas together over the
noise of one receive antenna.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from sclmkb.common.link import link
from sclmkb.common.link.link import Noise
from sclmkb.common.link.sources import LinkSettings, load_link_csi
from sclmkb.common.link.state import LinkCsi
from sclmkb.common.link.uses import Draws, UsesChannelSettings


@runtime_checkable
class UsesChannel(Protocol):
    """What complex uses go over: :class:`UsesChannelSettings` for one antenna at each end, or :class:`MimoUses`."""

    def convey(self, symbols: Tensor, sent: Tensor, snr_db: Tensor, draws: Draws) -> Tensor:
        """Return what arrives of symbols ``[B, n]`` of power 1 per use that is sent."""


@dataclass(frozen=True, kw_only=True)
class MimoUses:
    """The MIMO link of one split.

    Attributes:
        settings: of the channel.
        csi: true channels, and what the transmitter knows of them.
    """

    settings: UsesChannelSettings
    csi: LinkCsi

    def convey(
        self,
        symbols: Complex[Tensor, "B n"],
        sent: Bool[Tensor, "B n"],
        snr_db: Float[Tensor, "B"],
        draws: Draws,
    ) -> Complex[Tensor, "B n"]:
        """Return what the receiver has of symbols; what was not sent arrives as 0.

        Args:
            symbols: of power 1 per symbol that is sent.
            sent: which are sent.
            snr_db: of each sample.
            draws: what drops, steps and noise come from.
        """
        num, count = symbols.shape
        streams = self.settings.num_streams
        padded = torch.nn.functional.pad(symbols, (0, -count % streams))
        f = padded.reshape(num, -1, streams).mT * streams**-0.5
        drop, step, noise = self._draw(num, f.shape[2], draws)
        state = self.csi.state(drop, step, snr_db.float().cpu()).to(symbols.device)
        noise = Noise(*(part.to(symbols.device) for part in noise if part is not None))
        arrived = link.detect(state, link.transmit(state, f, noise.antennas), self.settings.receiver, noise).symbols
        received = (arrived.mT * streams**0.5).flatten(1)[:, :count].to(symbols.dtype)
        return torch.where(sent, received, torch.zeros_like(received))

    def _draw(self, num: int, uses: int, draws: Draws) -> tuple[Tensor, Tensor, Noise]:
        """Return the drop, the future step and the noise of each sample."""
        if not isinstance(draws, torch.Generator):
            drops, steps, noises = zip(*(self._draw(1, uses, one) for one in draws), strict=True)
            return torch.cat(drops), torch.cat(steps), Noise(*(torch.cat(parts) for parts in zip(*noises, strict=True)))
        drop = torch.randint(self.csi.num_drops, (num,), generator=draws)
        step = torch.randint(self.csi.num_steps, (num,), generator=draws)
        return drop, step, Noise.draw(self.csi.unallocated(drop, step), uses, draws)


def open_uses_channel(
    settings: UsesChannelSettings, csi: Path | None, predicted: Path | None, split: str
) -> UsesChannel:
    """Return the channel that settings name.

    Args:
        settings: of the channel.
        csi: CSI artifact, for ``mimo``.
        predicted: predictions for its drops, for the CSI source ``predicted``.
        split: of the CSI.

    Raises:
        UserError: if CSI or predictions are needed and missing, see :func:`load_link_csi`.
    """
    if settings.kind != "mimo":
        return settings
    found = load_link_csi(csi, predicted, split, settings.csi_source, settings.num_streams, LinkSettings())
    return MimoUses(settings=settings, csi=found)
