"""Separate source and channel coding: a caption's characters to complex symbols for the link's streams, and back.

Conventions of :mod:`mimo`: k streams, m channel uses, total power 1 per use.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Complex, Complex64, Float64, UInt8
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from sclmkb.common.config import Settings
from sclmkb.common.errors import UserError
from sclmkb.common.link.mimo import Detected
from sclmkb.common.seeds import derive_seed
from sclmkb.evaluate.separate.huffman import HuffmanCode
from sclmkb.evaluate.separate.reed_solomon import MAX_BYTES, ReedSolomon

Order = Literal[4, 16, 64, 256]
ORDERS: tuple[Order, ...] = (4, 16, 64)
"""Those that captions are sent with unless a setting says otherwise."""


class Scheme(Settings):
    """A modulation with a code; ``[16, 0.5]`` stands for ``{qam: 16, rate: 0.5}``."""

    qam: Order = Field(description="points of the constellation")
    rate: float = Field(gt=0, lt=1, description="rate of the Reed-Solomon code; the nearest possible one is used")

    @model_validator(mode="before")
    @classmethod
    def _read_pair(cls, value: Any) -> Any:
        return {"qam": value[0], "rate": value[1]} if isinstance(value, list | tuple) and len(value) == 2 else value

    @property
    def name(self) -> str:
        """Name of a system that uses it."""
        return f"sscc-{self.qam}qam-rs{self.rate:g}"

    @property
    def bits_per_symbol(self) -> int:
        """log2 of the order."""
        return self.qam.bit_length() - 1


class CodedCaptions(NamedTuple):
    """Captions on their way to the link.

    Attributes:
        symbols: F ``[B, k, m]``.
        fits: which captions fit; in place of another one, an empty text is sent.
    """

    symbols: Tensor
    fits: Bool[np.ndarray, " B"]


class ReceivedCaptions(NamedTuple):
    """Captions that arrived.

    Attributes:
        texts: empty where nothing could be decoded.
        decoded: whether the receiver could correct every block and found the end of the text.
    """

    texts: list[str]
    decoded: Bool[np.ndarray, " B"]


class SeparateCoder:
    """Separate source and channel coding of captions with a fixed number k·m of complex symbols (SSCC).

    ::

        caption ─► Huffman ─► blocks of RS(n, k) ─► bytes of the blocks in turn ─► scrambler ─► Gray QAM ─► F [B, k, m]
        text ◄─ Huffman ◄─ correction of t bytes ◄──────────────── descrambler ◄─ hard decisions ◄─ F^ [B, k, m]

    Every caption has the same number of bytes to fill: as many as k·m symbols carry, in blocks of equal length of at
    most 255. A caption that is longer than the messages of its blocks is not sent; an empty text goes in its place.
    The streams are filled one after the other, the message on the strong ones. The bits of a byte share a stream. So a
    weak stream spoils few bytes, and mostly parities. The scrambler is a pseudo-random sequence that both ends know
    and that goes on from caption to caption. It makes all points of the constellation equally likely, so that their
    mean power is 1/k per stream.

    Source: the baseline SSCC of the paper (section V-A), which leaves rates, orders and block lengths open.

    Args:
        huffman: the source code.
        scheme: modulation and rate.
        num_streams: k.
        num_uses: m.
        keep_damaged: read the text of a block that cannot be corrected as it was received, instead of dropping it. A
            text without an end is dropped all the same. The 16 bits after the end are zeros if all is well. If more
            than 4 of them are ones, the text is noise and dropped; 4 % of noise passes.

    Raises:
        UserError: if the symbols carry too few bits for any code.
    """

    def __init__(
        self, huffman: HuffmanCode, scheme: Scheme, num_streams: int, num_uses: int, keep_damaged: bool = True
    ) -> None:
        self.huffman, self.scheme, self.keep_damaged = huffman, scheme, keep_damaged
        self.num_streams, self.num_uses = num_streams, num_uses
        self.num_bits = num_streams * num_uses * scheme.bits_per_symbol
        self.num_blocks = max(1, -(-(self.num_bits // 8) // MAX_BYTES))
        num_bytes = self.num_bits // 8 // self.num_blocks
        correctable = min(max(1, round((1 - scheme.rate) * num_bytes / 2)), (num_bytes - 1) // 2)
        self.capacity = 8 * self.num_blocks * (num_bytes - 2 * correctable)
        if correctable < 1 or self.capacity < huffman.least_bits:
            raise UserError(
                f"{scheme.name}: a caption has {num_streams} x {num_uses} symbols, {self.num_bits} bits, which"
                " is too few for any Reed-Solomon code (3 bytes): train with more num_uses, or a higher QAM"
            )
        self.code = ReedSolomon(num_bytes, num_bytes - 2 * correctable)

    def describe(self) -> str:
        """Return what the code is, in words."""
        n, k = self.code.num_bytes, self.code.num_message
        return f"{self.num_blocks} x RS({n}, {k}), {self.capacity} bits per caption"

    def encode(self, texts: Sequence[str]) -> CodedCaptions:
        """Return the symbols of captions, of power 1/k per stream on average over all of them."""
        message, fits = self.huffman.encode(texts, self.capacity)
        blocks = np.packbits(message, axis=1).reshape(len(texts) * self.num_blocks, -1)
        coded = self.code.encode(blocks).reshape(len(texts), self.num_blocks, -1).swapaxes(1, 2)
        bits = np.zeros((len(texts), self.num_bits), np.uint8)
        bits[:, : 8 * coded[0].size] = np.unpackbits(coded.reshape(len(texts), -1), axis=1)
        symbols = modulate(bits ^ scrambler(len(texts), self.num_bits), self.scheme.qam)
        f = torch.from_numpy(symbols.reshape(-1, self.num_streams, self.num_uses))
        return CodedCaptions(f / self.num_streams**0.5, fits)

    def decode(self, symbols: Complex[Tensor, "B k m"]) -> ReceivedCaptions:
        """Return the texts in detected symbols without bias (:func:`unbiased`), in the order they were sent in."""
        points = (symbols * self.num_streams**0.5).cpu().numpy()
        bits = demodulate(points.reshape(len(points), -1), self.scheme.qam) ^ scrambler(len(points), self.num_bits)
        num_bytes = self.num_blocks * self.code.num_bytes
        coded = np.packbits(bits[:, : 8 * num_bytes], axis=1).reshape(len(bits), -1, self.num_blocks).swapaxes(1, 2)
        blocks = self.code.decode(coded.reshape(len(bits) * self.num_blocks, -1))
        message = blocks.message.reshape(len(bits), -1)
        ok = np.logical_and.reduce(blocks.ok.reshape(len(bits), -1), axis=1)
        read = np.ones(len(bits), bool) if self.keep_damaged else ok
        found_in = np.unpackbits(message[read], axis=1)
        found = self.huffman.decode(found_in)
        kept = found.complete.copy()
        damaged = np.flatnonzero(kept & ~ok[read])
        behind = found.ends[damaged, None] + np.arange(16)
        ones = found_in[damaged[:, None], behind.clip(max=self.capacity - 1)] & (behind < self.capacity)
        kept[damaged] = ones.sum(1) <= 4
        texts, decoded = [""] * len(bits), np.zeros(len(bits), bool)
        decoded[read] = found.complete & ok[read]
        for i, text, keep in zip(np.flatnonzero(read).tolist(), found.texts, kept.tolist(), strict=True):
            texts[i] = text if keep else ""
        return ReceivedCaptions(texts, decoded)

    def receive(self, detected: Detected) -> ReceivedCaptions:
        """Return the texts in detected symbols, by hard decisions; see :meth:`decode`."""
        return self.decode(unbiased(detected))


def scrambler(num_captions: int, num_bits: int) -> UInt8[np.ndarray, "B n"]:
    """Return what the bits of captions are scrambled with, another part of one pseudo-random sequence for each."""
    each = -(-num_bits // 8)
    sequence = np.random.default_rng(derive_seed("scrambler")).bytes(num_captions * each)
    rows = np.frombuffer(sequence, np.uint8).reshape(num_captions, each)
    return np.unpackbits(rows, axis=1, count=num_bits)


def unbiased(detected: Detected) -> Complex[Tensor, "B k m"]:
    """Return symbols without the bias of an MMSE detector, which shrinks a stream of SNR γ by γ / (1 + γ).

    Hard decisions compare with the points that were sent. γ is the SNR that the receiver believes a stream to have.
    """
    gamma = torch.pow(10.0, detected.stream_snr_db / 10)
    return detected.symbols * (1 + 1 / gamma)[..., None]


def modulate(bits: UInt8[np.ndarray, "B n"], order: Order) -> Complex64[np.ndarray, "B s"]:
    """Return the points of bits on a square Gray-mapped QAM of mean power 1.

    The first half of a symbol's bits chooses the real part, the second half the imaginary one.
    """
    half = (order.bit_length() - 1) // 2
    parts = bits.reshape(len(bits), -1, 2, half)
    value = parts @ (1 << np.arange(half)[::-1])
    level = np.argsort(_gray(np.arange(1 << half)))[value]  # the level that has this label
    points = pam_levels(order).take(level).astype(np.float32)
    return np.ascontiguousarray(points).view(np.complex64)[..., 0]


def demodulate(symbols: Complex64[np.ndarray, "B s"], order: Order) -> UInt8[np.ndarray, "B n"]:
    """Return the bits of the nearest points."""
    half = (order.bit_length() - 1) // 2
    levels = 1 << half
    parts = np.ascontiguousarray(symbols).view(np.float32)
    level = np.rint(parts * np.float32(0.5 / _unit(order)) + np.float32((levels - 1) / 2)).clip(0, levels - 1)
    bits: NDArray[np.uint8] = labels(half).take(level.astype(np.intp), axis=0)
    return bits.reshape(len(symbols), -1)


def pam_levels(order: Order) -> Float64[np.ndarray, " l"]:
    """Return the levels of the real or imaginary part, lowest first."""
    levels = 1 << (order.bit_length() - 1) // 2
    return (2 * np.arange(levels) - levels + 1) * _unit(order)


def labels(half: int) -> UInt8[np.ndarray, "l h"]:
    """Return the bits of each level."""
    bits: NDArray[np.uint8] = ((_gray(np.arange(1 << half))[:, None] >> np.arange(half)[::-1]) & 1).astype(np.uint8)
    return bits


def _gray(level: NDArray[Any]) -> NDArray[Any]:
    """Return the labels of levels: those of neighbours differ in one bit."""
    label: NDArray[Any] = level ^ (level >> 1)
    return label


def _unit(order: Order) -> float:
    """Return half the distance of neighbouring points."""
    return float((2 * (order - 1) / 3) ** -0.5)
