"""A modern separate source and channel coding beyond the paper's: a model of text, 5G LDPC codes and soft decisions."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Complex, Float, UInt8
from pydantic import Field
from torch import Tensor

from sclmkb.common.errors import UserError
from sclmkb.common.link.mimo import Detected
from sclmkb.evaluate.separate.classical import (
    CodedCaptions,
    Order,
    ReceivedCaptions,
    Scheme,
    labels,
    modulate,
    pam_levels,
    scrambler,
    unbiased,
)
from sclmkb.evaluate.separate.ldpc import Ldpc, LdpcDecoded
from sclmkb.evaluate.separate.text_model import TextModel

LEAST_MESSAGE = 12
"""Bits of message of the shortest 5G LDPC code."""


class ModernScheme(Scheme):
    """A modulation with an LDPC code; ``[16, 0.5]`` stands for ``{qam: 16, rate: 0.5}``."""

    rate: float = Field(ge=0.2, le=0.92, description="rate of the LDPC code")

    @property
    def name(self) -> str:
        """Name of a system that uses it."""
        return f"sscc-{self.qam}qam-ldpc{self.rate:g}"


class LdpcModem:
    """One block of a 5G LDPC code with its modulation, over complex symbols of given SNRs.

    ::

        message [B, capacity] ─► LDPC(n, k), bit interleaver ─► scrambler ─► Gray QAM ─► points [B, k, m]
        message ◄─ belief propagation ◄─ descrambler ◄─ LLRs of bits ◄─ points^ [B, k, m], SNR of streams

    Attributes:
        num_bits: coded bits n that all symbols carry.
        capacity: bits of message.

    Args:
        scheme: modulation and rate.
        num_streams: k.
        num_uses: m.

    Raises:
        ValueError: if no code has this number of bits.
    """

    def __init__(self, scheme: ModernScheme, num_streams: int, num_uses: int) -> None:
        self.scheme, self.num_streams, self.num_uses = scheme, num_streams, num_uses
        self.num_bits = num_streams * num_uses * scheme.bits_per_symbol
        self.capacity = round(scheme.rate * self.num_bits)
        if self.capacity < LEAST_MESSAGE:
            raise ValueError(f"a message of {self.capacity} bits, the least is {LEAST_MESSAGE}")
        self._code = Ldpc(self.capacity, self.num_bits, scheme.bits_per_symbol)

    def encode(self, message: UInt8[np.ndarray, "B bits"]) -> Complex[Tensor, "B k m"]:
        """Return the points of messages, of mean power 1 over all of them."""
        half = self.scheme.bits_per_symbol // 2
        coded = self._code.encode(message).reshape(len(message), -1, half, 2)  # 5G: real and imaginary part in turn
        bits = coded.swapaxes(2, 3).reshape(len(message), -1) ^ scrambler(len(message), self.num_bits)
        return torch.from_numpy(modulate(bits, self.scheme.qam).reshape(-1, self.num_streams, self.num_uses))

    def decode(self, points: Complex[Tensor, "B k m"], snr_db: Float[Tensor, "B k"]) -> LdpcDecoded:
        """Return the messages in unbiased points, in the order they were sent in, with the SNR of each stream."""
        half = self.scheme.bits_per_symbol // 2
        llr = log_likelihood_ratios(points.cpu(), snr_db.cpu(), self.scheme.qam)
        llr *= 1 - 2 * torch.from_numpy(scrambler(len(points), self.num_bits)).float()
        return self._code.decode(llr.reshape(len(llr), -1, 2, half).swapaxes(2, 3).reshape(llr.shape))


class ModernCoder:
    """Separate coding of captions with the same k·m complex symbols as :class:`SeparateCoder`.

    ::

        caption ─► text model, arithmetic code ─► LDPC, QAM (:class:`LdpcModem`) ─► F [B, k, m]
        text ◄─ text model ◄──────────────────── belief propagation, LLRs ◄─ F^ [B, k, m], SNR of streams

    A caption is one code word of all bits that k·m symbols carry. One that is longer than the code's message is not
    sent; an empty text goes in its place. The receiver counts a failure if a parity check does not hold, the text has
    no end, or the padding behind the end is not zero. No check sum is sent. After a failure nothing is kept: behind
    its first wrong bit an arithmetic code is noise that looks like text.

    Raises:
        UserError: if no code has this number of bits.
    """

    def __init__(self, text_model: TextModel, scheme: ModernScheme, num_streams: int, num_uses: int) -> None:
        self.text_model, self.scheme = text_model, scheme
        num_bits = num_streams * num_uses * scheme.bits_per_symbol
        self.capacity = round(scheme.rate * num_bits)
        has = f"{scheme.name}: a caption has {num_streams} x {num_uses} symbols, {num_bits} bits"
        if self.capacity < max(LEAST_MESSAGE, text_model.least_bits):
            raise UserError(
                f"{has}, {self.capacity} of message, which is too few for any 5G LDPC code (12 bits of message): train"
                " with more num_uses, or take a higher QAM or rate"
            )
        try:
            self.modem = LdpcModem(scheme, num_streams, num_uses)
        except ValueError as error:
            raise UserError(f"{has}, for which there is no 5G LDPC code of one block: {error}") from None

    def describe(self) -> str:
        """Return what the code is, in words."""
        return f"LDPC({self.modem.num_bits}, {self.capacity}), {self.capacity} bits per caption"

    def encode(self, texts: Sequence[str]) -> CodedCaptions:
        """Return the symbols of captions, of power 1/k per stream on average over all of them."""
        message, fits = self.text_model.encode(texts, self.capacity)
        return CodedCaptions(self.modem.encode(message) / self.modem.num_streams**0.5, fits)

    def receive(self, detected: Detected) -> ReceivedCaptions:
        """Return the texts in detected symbols, in the order they were sent in."""
        blocks = self.modem.decode(unbiased(detected) * self.modem.num_streams**0.5, detected.stream_snr_db)
        texts, decoded = [""] * len(blocks.ok), np.zeros(len(blocks.ok), bool)
        found = self.text_model.decode(blocks.message[blocks.ok])
        behind = np.arange(self.capacity) >= found.ends[:, None]
        right = found.complete & ~(blocks.message[blocks.ok] & behind).any(1)
        decoded[blocks.ok] = right
        for i, text, keep in zip(np.flatnonzero(blocks.ok).tolist(), found.texts, right.tolist(), strict=True):
            texts[i] = text if keep else ""
        return ReceivedCaptions(texts, decoded)


def log_likelihood_ratios(
    points: Complex[Tensor, "B k m"], snr_db: Float[Tensor, "B k"], order: Order
) -> Float[Tensor, "B n"]:
    """Return log p(1) / p(0) of the bits that :func:`modulate` put on points, exactly, for Gaussian noise.

    Args:
        points: unbiased, of mean power 1.
        snr_db: of each stream, as the receiver believes it to be.
        order: of the QAM.
    """
    half = (order.bit_length() - 1) // 2
    level = torch.from_numpy(pam_levels(order)).float()
    ones = torch.from_numpy(labels(half)).bool()
    snr = torch.pow(10.0, snr_db / 10).clamp(max=1e8).repeat_interleave(points.shape[2], dim=1)[..., None, None]
    parts = torch.view_as_real(points.resolve_conj()).reshape(len(points), -1, 2)
    fit = -snr * (parts[..., None] - level).square()
    ratios = [fit[..., one].logsumexp(-1) - fit[..., ~one].logsumexp(-1) for one in ones.T]
    return torch.stack(ratios, dim=-1).clamp(-100, 100).reshape(len(points), -1)
