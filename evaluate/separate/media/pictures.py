"""The digital link for pictures: a real codec, 5G LDPC and QAM, with as many complex uses as any other system.

::

    picture ─► WebP or AVIF, best quality that fits ─► LDPC blocks, QAM ─► its uses of AWGN or Rician fading
    picture, or the mean colour ◄─ codec ◄─────────── all its blocks are right, or not

Item by item (``single``), each picture is a file with uses of its own. ``packed``, all pictures are one file, side by
side in one big picture, with the uses of all; one wrong block then loses them all. Headers are counted, or left out as
if both ends knew them. A picture that does not fit at the lowest quality, or cannot be decoded, is a failure: the
receiver has the mean colour instead.

Codec, modulation and rate are chosen at each SNR for the highest expected PSNR of other pictures. Which files fail is
drawn from the shares of failures that :mod:`blocks` measures.
"""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float64, UInt8
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from sclmkb.common.errors import UserError
from sclmkb.common.link.uses import draw_gains, sample_draws, single_antenna
from sclmkb.common.seeds import make_generator
from sclmkb.common.tasks.media.quality import ms_ssim, psnr_db
from sclmkb.evaluate.separate.ldpc import has_sionna
from sclmkb.evaluate.separate.media.blocks import BlockErrors, Blocks, DigitalChannelSettings, divide
from sclmkb.evaluate.separate.media.codecs import CodecName, PictureCodec, present
from sclmkb.evaluate.separate.media.files import CodedPictures, Packing, Pictures
from sclmkb.evaluate.separate.modern import ModernScheme


class DigitalSettings(DigitalChannelSettings):
    """What the digital link for pictures chooses from, and its channel."""

    packings: tuple[Packing, ...] = Field(
        default=("single", "packed"), description="single: a file for each picture; packed: one file for all, over AWGN"
    )
    codecs: tuple[CodecName, ...] = Field(
        default=("webp", "avif"), min_length=1, description="codecs of pictures; one that Pillow lacks is left out"
    )
    num_words: PositiveInt = Field(default=100, description="LDPC blocks that are sent to measure a share of failures")

    @model_validator(mode="after")
    def _packed_has_one_gain(self) -> "DigitalSettings":
        if "packed" in self.packings and self.channel.kind != "awgn":
            raise ValueError("one file for all pictures has no gain of its own: over fading set packings to [single]")
        return self


class Choice(NamedTuple):
    """What pictures are sent with."""

    codec: PictureCodec
    scheme: ModernScheme

    @property
    def name(self) -> str:
        """Codec, modulation and rate."""
        return f"{self.codec.name}-{self.scheme.qam}qam-ldpc{self.scheme.rate:g}"


class Arrived(NamedTuple):
    """What the receiver has of N pictures.

    Attributes:
        choice: what they were sent with.
        pictures: decoded, or the mean colour.
        failed: those that did not fit or could not be decoded.
    """

    choice: Choice
    pictures: Pictures
    failed: Bool[np.ndarray, " N"]


class PictureRow(NamedTuple):
    """One picture at one SNR.

    Attributes:
        packing: ``single`` or ``packed``.
        headers: whether the codec's headers are counted.
        scheme: codec, modulation and rate.
        snr_db: before fading.
        item: name of the picture.
        uses: complex uses of it; packed, its share of those of all.
        psnr: in dB.
        ms_ssim: see :func:`ms_ssim`.
        failed: whether the receiver has the mean colour.
    """

    packing: Packing
    headers: bool
    scheme: str
    snr_db: float
    item: int | str
    uses: int
    psnr: float
    ms_ssim: float
    failed: bool


class DigitalLink:
    """Sends pictures, with the best scheme at each SNR.

    Args:
        choose_on: other pictures of the same size, from a validation split; the mean colour is theirs.
        uses_per_item: complex uses of each picture.
        settings: what to choose from, and the channel.
        errors: shares of failures, to be measured once for several links.

    Raises:
        UserError: if Sionna is missing, Pillow has none of the codecs, or no scheme has a code of so few uses.
    """

    def __init__(
        self, choose_on: Pictures, uses_per_item: int, settings: DigitalSettings, errors: BlockErrors | None = None
    ) -> None:
        if errors is None and not has_sionna():
            raise UserError("the digital link takes its LDPC codes from Sionna: pip install sionna-no-rt")
        self.schemes = [scheme for scheme in settings.densest_first if divide(scheme, uses_per_item)]
        if not self.schemes:
            raise UserError(f"no 5G LDPC code is as short as {uses_per_item} complex uses: give each picture more uses")
        self.settings, self.uses_per_item = settings, uses_per_item
        self.codecs = present(settings.codecs)
        self.errors = errors or BlockErrors(settings.num_words)
        self.mean_colour = choose_on.mean((0, 1, 2)).round().astype(np.uint8)
        self._known = {packing: CodedPictures(choose_on, packing) for packing in settings.packings}
        self._chosen: dict[tuple[Packing, bool, float], Choice] = {}

    def send(self, coded: CodedPictures, headers: bool, snr_db: float, items: Sequence[int | str]) -> Arrived:
        """Return what arrives of pictures at an SNR.

        Args:
            coded: the pictures.
            headers: whether the codec's headers are counted.
            snr_db: before fading.
            items: names of the pictures, which gains and failures follow from.
        """
        choice = self.choose(coded.packing, headers, snr_db)
        files = items if coded.packing == "single" else ["packed"]
        lost = self._lost(coded, choice.scheme, files, snr_db)
        draws = [float(torch.rand(1, generator=make_generator(self.settings.seed, "failures", file))) for file in files]
        decoded, fits = coded.within(choice.codec, self._blocks(coded, choice.scheme).capacity, headers)
        failed = ~fits | (np.array(draws) < lost)
        return Arrived(choice, np.where(failed[:, None, None, None], self.mean_colour, decoded), failed)

    def choose(self, packing: Packing, headers: bool, snr_db: float) -> Choice:
        """Return the codec, modulation and rate with the highest expected PSNR of the pictures to choose on."""
        place = (packing, headers, snr_db)
        if place in self._chosen:
            return self._chosen[place]
        coded = self._known[packing]
        true = as_tensor(coded.pictures)
        without = psnr_db(as_tensor(np.broadcast_to(self.mean_colour, coded.pictures.shape)), true).double().numpy()
        files = [f"choose on {i}" for i in range(coded.num_files)]
        best, found = -np.inf, Choice(self.codecs[0], self.schemes[-1])  # if nothing arrives, the most robust
        for scheme in self.schemes:  # most bits first
            lost = self._lost(coded, scheme, files, snr_db)
            for codec in self.codecs if lost.min() < 1 else ():
                decoded, fits = coded.within(codec, self._blocks(coded, scheme).capacity, headers)
                psnr = psnr_db(as_tensor(decoded), true).double().numpy()
                expected = float(np.where(fits, (1 - lost) * psnr + lost * without, without).mean())
                if expected > best:
                    best, found = expected, Choice(codec, scheme)
            if not lost.any():  # those left carry fewer bits, no better
                break
        self._chosen[place] = found
        return found

    def _blocks(self, coded: CodedPictures, scheme: ModernScheme) -> Blocks:
        """Return the blocks of one file."""
        blocks = divide(scheme, self.uses_per_item * len(coded.pictures) // coded.num_files)
        assert blocks is not None  # schemes without a code were left out
        return blocks

    def _lost(
        self, coded: CodedPictures, scheme: ModernScheme, files: Sequence[int | str], snr_db: float
    ) -> Float64[np.ndarray, " F"]:
        """Return the share of transmissions of each file that fail, for the gain that it meets."""
        gains = draw_gains(self.settings.channel, len(files), sample_draws(self.settings.seed, files))
        received_db = single_antenna(gains, torch.full((len(files),), snr_db)).stream_snr_db[:, 0].tolist()
        blocks = self._blocks(coded, scheme)
        return np.array([self.errors.any_share(blocks, each) for each in received_db])


def digital_pictures(
    pictures: Pictures,
    uses_per_item: int,
    snrs_db: Sequence[float],
    *,
    choose_on: UInt8[np.ndarray, "M H W 3"],
    settings: DigitalSettings | None = None,
    items: Sequence[int | str] | None = None,
    errors: BlockErrors | None = None,
) -> list[PictureRow]:
    """Measure the digital link on pictures, at each SNR, for each packing, with headers and without.

    Args:
        pictures: to be sent, of equal size.
        uses_per_item: complex uses of each.
        snrs_db: before fading.
        choose_on: other pictures, see :class:`DigitalLink`.
        settings: what to choose from, and the channel.
        items: names of the pictures; default: their numbers.
        errors: shares of failures, see :class:`DigitalLink`.

    Raises:
        UserError: see :class:`DigitalLink`.
    """
    settings = settings or DigitalSettings()
    items = range(len(pictures)) if items is None else items
    link = DigitalLink(choose_on, uses_per_item, settings, errors)
    rows = []
    for packing in settings.packings:
        coded = CodedPictures(pictures, packing)
        for headers, snr_db in product((True, False), sorted(snrs_db)):
            arrived = link.send(coded, headers, snr_db, items)
            received, true = as_tensor(arrived.pictures), as_tensor(pictures)
            measured = (psnr_db(received, true).tolist(), ms_ssim(received, true).tolist(), arrived.failed.tolist())
            for item, psnr, similarity, failed in zip(items, *measured, strict=True):
                at = (packing, headers, arrived.choice.name, snr_db, item, uses_per_item)
                rows.append(PictureRow(*at, psnr, similarity, failed))
    return rows


def as_tensor(pictures: Pictures) -> UInt8[Tensor, "N 3 H W"]:
    """Return pictures with their colours first."""
    return torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))
