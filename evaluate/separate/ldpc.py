"""5G NR low-density parity-check codes, by Sionna: the only module beside the channel simulator that imports it."""

import importlib.util
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

ITERATIONS = (5, 20)
"""Of belief propagation: few for all words, and all of them for those that are then no code words."""

_BATCH = 64
"""Words at a time; more of them do not fit into a processor's caches."""

_DEVIATIONS = 4.0
"""A word that lacks this many standard deviations of information is not decoded: one in 30,000 such words could be."""


class LdpcDecoded(NamedTuple):
    """What a decoder makes of B words.

    Attributes:
        message: hard decisions; zeros where ``ok`` is false.
        ok: whether all parity checks hold.
    """

    message: UInt8[np.ndarray, "B k"]
    ok: Bool[np.ndarray, " B"]


def has_sionna() -> bool:
    """Tell whether Sionna is installed."""
    return importlib.util.find_spec("sionna") is not None


class Ldpc:
    """A code of 3GPP TS 38.212 with its rate matching and bit interleaver; one code block, redundancy version 0.

    Decoding is belief propagation with all edges at once and the exact check node update ("boxplus-phi"). No check sum
    is added: the code's own parity checks tell failures, and cost nothing.

    Args:
        num_message: k, 12 to 8448 bits.
        num_bits: n; the rate k / n is 1/5 to 0.95.
        bits_per_symbol: of the modulation, which the interleaver is for; divides n.

    Raises:
        ValueError: if there is no such code.
    """

    def __init__(self, num_message: int, num_bits: int, bits_per_symbol: int) -> None:
        from sionna.phy.fec.ldpc import LDPC5GDecoder, LDPC5GEncoder

        self.num_message, self.num_bits = num_message, num_bits
        self._encoder = LDPC5GEncoder(
            num_message, num_bits, num_bits_per_symbol=bits_per_symbol, precision="single", device="cpu"
        )
        self._decoder = LDPC5GDecoder(
            self._encoder, hard_out=False, v2c_callbacks=[self._listen], precision="single", device="cpu"
        )
        self._heard = torch.zeros(0)

    @torch.no_grad()
    def encode(self, message: UInt8[np.ndarray, "B k"]) -> UInt8[np.ndarray, "B n"]:
        """Return code words, interleaved: those bits of a symbol that fail least come first."""
        return np.asarray(self._encoder(torch.from_numpy(message).float()).numpy().astype(np.uint8))

    @torch.no_grad()
    def decode(self, llr: Float[Tensor, "B n"]) -> LdpcDecoded:
        """Decode words.

        Args:
            llr: log p(1) / p(0) of each bit, natural logarithm.
        """
        message = np.zeros((len(llr), self.num_message), np.uint8)
        ok = np.zeros(len(llr), bool)
        left = np.flatnonzero(self._may_be_decoded(llr).numpy())
        for iterations in ITERATIONS:
            for part in np.split(left, range(_BATCH, len(left), _BATCH)):
                if len(part):
                    message[part], ok[part] = self._propagate(llr[torch.from_numpy(part)], iterations)
            left = left[~ok[left]]
        message[~ok] = 0
        return LdpcDecoded(message, ok)

    def _propagate(
        self, llr: Float[Tensor, "B n"], iterations: int
    ) -> tuple[UInt8[np.ndarray, "B k"], Bool[np.ndarray, " B"]]:
        """Return what words are decoded to, and whether these are code words."""
        self._decoder(llr, num_iter=iterations)
        word = (self._heard <= 0).numpy().astype(np.uint8)
        pruned = self._encoder.n_ldpc - word.shape[1]  # parities that are not sent, and the checks that only they need
        checks = self._encoder.pcm
        checks = checks[: checks.shape[0] - pruned, : word.shape[1]]
        wrong = (checks @ word.T.astype(np.int64) % 2).any(0) | word[:, self.num_message : self._encoder.k_ldpc].any(1)
        return word[:, : self.num_message], ~np.asarray(wrong)

    def _listen(self, messages: Tensor, _: int, estimate: Tensor) -> Tensor:
        """Keep the decoder's estimate, log p(0) / p(1), of all bits; it returns none of those that are not sent."""
        self._heard = estimate
        return messages

    def _may_be_decoded(self, llr: Float[Tensor, "B n"]) -> Bool[Tensor, " B"]:
        """Tell where there is information enough: that of each bit and its variance, summed up as a normal one.

        Source: the normal approximation of Polyanskiy, Poor and Verdú 2010, for the channel of each bit's LLR.
        """
        size = llr.abs().double()
        wrong = torch.sigmoid(-size)
        bits = size / np.log(2)
        right_bits = 1 - torch.nn.functional.softplus(-size) / np.log(2)  # 1 + log2 p(right)
        information = (right_bits - wrong * bits).sum(1)
        deviation = (wrong * (1 - wrong) * bits.square()).sum(1).sqrt()
        enough: Tensor = information + _DEVIATIONS * deviation >= self.num_message
        return enough
