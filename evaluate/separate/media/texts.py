"""The digital link for texts: the model of text, 5G LDPC and QAM over the counted complex uses of each text.

It is the baseline of a transmitter that writes the caption or the answer itself and sends it as text: see
:class:`ModernCoder` for the codes. A text that does not fit, or that the receiver cannot decode, is a failure and
arrives as an empty text. All texts are really sent, each with a gain and noise of its own.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool

from sclmkb.common.errors import UserError
from sclmkb.common.link.mimo import Detected
from sclmkb.common.link.uses import draw_gains, sample_draws, single_antenna, transmit
from sclmkb.evaluate.separate.ldpc import has_sionna
from sclmkb.evaluate.separate.media.blocks import DigitalChannelSettings
from sclmkb.evaluate.separate.modern import ModernCoder
from sclmkb.evaluate.separate.text_model import TextModel


class TextRow(NamedTuple):
    """One text at one SNR.

    Attributes:
        scheme: modulation and rate.
        snr_db: before fading.
        item: name of the text.
        uses: complex uses of it.
        text: what arrived, empty after a failure.
        failed: whether it did not fit or could not be decoded.
    """

    scheme: str
    snr_db: float
    item: int | str
    uses: int
    text: str
    failed: bool


class ArrivedTexts(NamedTuple):
    """What the receiver has of N texts.

    Attributes:
        scheme: modulation and rate.
        texts: as sent, or empty.
        failed: those that did not fit or could not be decoded.
    """

    scheme: str
    texts: list[str]
    failed: Bool[np.ndarray, " N"]


class TextLink:
    """Sends texts, at each SNR with the scheme that delivers most of other texts unchanged.

    Args:
        uses_per_item: complex uses of each text.
        settings: what to choose from, and the channel.
        fit_on: training texts, which the model of text is fitted to.
        choose_on: validation texts, which schemes are chosen on.

    Raises:
        UserError: if Sionna is missing, or no scheme has a code of so few uses.
    """

    def __init__(
        self,
        uses_per_item: int,
        settings: DigitalChannelSettings,
        *,
        fit_on: Sequence[str],
        choose_on: Sequence[str],
    ) -> None:
        if not has_sionna():
            raise UserError("the digital link takes its LDPC codes from Sionna: pip install sionna-no-rt")
        self.settings, self._choose_on = settings, choose_on
        self._coders = _coders(TextModel.fit(fit_on), uses_per_item, settings)

    def send(self, texts: Sequence[str], snr_db: float, items: Sequence[int | str]) -> ArrivedTexts:
        """Return what arrives of texts at an SNR; gains and noise follow from the names of ``items``."""
        coder = _best(self._coders, self._choose_on, snr_db, self.settings)
        return ArrivedTexts(coder.scheme.name, *_send(coder, texts, items, snr_db, self.settings))


def digital_texts(
    texts: Sequence[str],
    uses_per_item: int,
    snrs_db: Sequence[float],
    *,
    fit_on: Sequence[str],
    choose_on: Sequence[str],
    settings: DigitalChannelSettings | None = None,
    items: Sequence[int | str] | None = None,
) -> list[TextRow]:
    """Measure the digital link on texts at each SNR.

    Args:
        texts: to be sent.
        uses_per_item: complex uses of each.
        snrs_db: before fading.
        fit_on: see :class:`TextLink`.
        choose_on: see :class:`TextLink`.
        settings: what to choose from, and the channel.
        items: names of the texts, which gains and noise follow from; default: their numbers.

    Raises:
        UserError: see :class:`TextLink`.
    """
    items = range(len(texts)) if items is None else items
    link = TextLink(uses_per_item, settings or DigitalChannelSettings(), fit_on=fit_on, choose_on=choose_on)
    rows = []
    for snr_db in snrs_db:
        arrived = link.send(texts, snr_db, items)
        for item, text, lost in zip(items, arrived.texts, arrived.failed.tolist(), strict=True):
            rows.append(TextRow(arrived.scheme, snr_db, item, uses_per_item, text, lost))
    return rows


def _coders(model: TextModel, uses: int, settings: DigitalChannelSettings) -> list[ModernCoder]:
    """Return the coder of each scheme that has a code, most bits first."""
    found, problem = [], None
    for scheme in settings.densest_first:
        try:
            found.append(ModernCoder(model, scheme, 1, uses))
        except UserError as error:
            problem = error
    if not found and problem is not None:
        raise problem
    return found


def _best(
    coders: Sequence[ModernCoder], texts: Sequence[str], snr_db: float, settings: DigitalChannelSettings
) -> ModernCoder:
    """Return the coder that delivers most texts; if none delivers any, the one of fewest bits."""
    best, found = 0, coders[-1]
    items = [f"choose on {i}" for i in range(len(texts))]
    for coder in coders:
        arrived, failed = _send(coder, texts, items, snr_db, settings)
        delivered = sum(a == b for a, b in zip(arrived, texts, strict=True))
        if delivered > best:
            best, found = delivered, coder
        if delivered and not (failed & coder.encode(texts).fits).any():  # codes of fewer bits deliver no more
            break
    return found


def _send(
    coder: ModernCoder,
    texts: Sequence[str],
    items: Sequence[int | str],
    snr_db: float,
    settings: DigitalChannelSettings,
) -> tuple[list[str], np.ndarray]:
    """Return the texts that arrive, and which fail."""
    sent, draws = coder.encode(texts), sample_draws(settings.seed, items)
    gains, snrs_db = draw_gains(settings.channel, len(texts), draws), torch.full((len(texts),), snr_db)
    symbols = sent.symbols[:, 0]
    received = transmit(symbols, torch.ones_like(symbols, dtype=torch.bool), gains, snrs_db, draws)
    detected = Detected(received[:, None], single_antenna(gains, snrs_db).stream_snr_db)
    arrived = coder.receive(detected)
    failed = ~(arrived.decoded & sent.fits)
    return [text if ok else "" for text, ok in zip(arrived.texts, ~failed, strict=True)], failed
