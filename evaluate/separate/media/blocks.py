"""Bits over counted complex uses: 5G LDPC blocks with QAM, and the measured share of blocks that fail."""

import math
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from pydantic import Field

from sclmkb.common.config import Settings
from sclmkb.common.link.link import convey
from sclmkb.common.link.uses import UsesChannelSettings, single_antenna
from sclmkb.common.seeds import derive_seed, make_generator
from sclmkb.evaluate.separate.classical import Order, unbiased
from sclmkb.evaluate.separate.modern import LEAST_MESSAGE, LdpcModem, ModernScheme

MOST_MESSAGE = 3824
"""Bits of message of a block; longer ones take 5G's base graph 1, whose rate is at least 1/3."""

_RATES: dict[Order, tuple[float, ...]] = {
    4: (0.21, 0.33, 0.5, 0.66, 0.8),
    16: (0.4, 0.5, 0.6, 0.75, 0.85),
    64: (0.5, 0.6, 0.7, 0.8, 0.9),
    256: (0.67, 0.75, 0.85, 0.92),
}

SCHEMES = tuple(chain(*([ModernScheme(qam=qam, rate=rate) for rate in rates] for qam, rates in _RATES.items())))
"""About the ladder of TS 38.214, table 5.1.3.1-2: 0.42 to 7.36 bits a complex use."""


class DigitalChannelSettings(Settings):
    """Modulations and codes that a digital link chooses from, and its channel."""

    schemes: tuple[ModernScheme, ...] = Field(
        default=SCHEMES, min_length=1, description="pairs of QAM order and rate of the LDPC code"
    )
    channel: UsesChannelSettings = Field(default=UsesChannelSettings(), description="what the uses go over")
    seed: int = Field(default=0, description="seed of gains, noise and failures, together with the name of each item")

    @property
    def densest_first(self) -> list[ModernScheme]:
        """The schemes, most bits per use first."""
        return sorted(self.schemes, key=lambda scheme: -scheme.rate * scheme.bits_per_symbol)


class Blocks(NamedTuple):
    """How the bits of something are divided among LDPC blocks.

    Attributes:
        scheme: modulation and rate of all of them.
        num: of blocks.
        uses: complex uses of each.
        capacity: bits of message of all of them together.
    """

    scheme: ModernScheme
    num: int
    uses: int
    capacity: int


def divide(scheme: ModernScheme, num_uses: int) -> Blocks | None:
    """Return as few blocks of equal length as num_uses complex uses take; None if the message is too short for any."""
    per_use = scheme.rate * scheme.bits_per_symbol
    num = max(1, math.ceil(per_use * num_uses / MOST_MESSAGE))
    uses = num_uses // num
    message = round(scheme.rate * (uses * scheme.bits_per_symbol))
    return Blocks(scheme, num, uses, num * message) if message >= LEAST_MESSAGE else None


class BlockErrors:
    """The share of blocks that fail over AWGN, each measured when it is first asked for.

    Blocks of random bits go over the link (:mod:`sclmkb.common.link.uses`) with soft decisions and belief propagation.
    A block that the parity checks pass with wrong bits counts as failed too. SNRs are rounded down to half a dB.

    Args:
        num_words: blocks sent for one share.
    """

    def __init__(self, num_words: int = 100) -> None:
        self.num_words = num_words
        self._modems: dict[tuple[ModernScheme, int], LdpcModem] = {}
        self._failures: dict[tuple[ModernScheme, int, int], int] = {}
        self._faultless: dict[tuple[ModernScheme, int], int] = {}

    def share(self, scheme: ModernScheme, uses: int, snr_db: float) -> float:
        """Return the share of blocks of so many uses that fail at an SNR.

        If no block failed here but some did half a dB below, it is half a block. If none failed there either, it is 0.
        """
        code, step = (scheme, uses), math.floor(2 * snr_db + 1e-6)
        if step >= self._faultless.get(code, step + 1):
            return 0.0
        failures = self._count(code, step)
        if failures:
            return failures / self.num_words
        if self._count(code, step - 1):
            return 0.5 / self.num_words
        self._faultless[code] = step
        return 0.0

    def any_share(self, blocks: Blocks, snr_db: float) -> float:
        """Return the share of what is divided into blocks of which at least one fails."""
        return 1 - (1 - self.share(blocks.scheme, blocks.uses, snr_db)) ** blocks.num

    def _count(self, code: tuple[ModernScheme, int], step: int) -> int:
        """Return how many of the blocks fail at an SNR of step / 2 dB."""
        if (*code, step) not in self._failures:
            scheme, uses = code
            if code not in self._modems:
                self._modems[code] = LdpcModem(scheme, 1, uses)
            modem = self._modems[code]
            draw = np.random.default_rng(derive_seed("blocks", scheme.name, uses))
            message = draw.integers(0, 2, (self.num_words, modem.capacity), dtype=np.uint8)
            gains = torch.ones(self.num_words, dtype=torch.complex64)
            link = single_antenna(gains, torch.full((self.num_words,), step / 2))
            noise = make_generator("blocks", scheme.name, uses)
            detected = convey(link, modem.encode(message), "literal", noise)
            found = modem.decode(unbiased(detected), detected.stream_snr_db)
            right = found.ok & (found.message == message).all(1)
            self._failures[*code, step] = int((~right).sum())
        return self._failures[*code, step]
