"""Reed-Solomon codes over GF(256), many code words at once.

This is our own code. ``galois`` 0.4.11 has these codes, but took milliseconds to decode a word of 32 bytes.
``reedsolo`` goes through one word at a time in Python. A Monte-Carlo decodes hundreds of thousands of words. Tests
hold it against ``reedsolo``.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from numpy.typing import NDArray

PRIMITIVE = 0x11D
"""x^8 + x^4 + x^3 + x^2 + 1, of which α = 2 is a root."""

MAX_BYTES = 255
"""Length of a code word that is not shortened."""


Bytes = NDArray[np.uint8]


def _powers() -> Bytes:
    """Return α^0 to α^254."""
    value, powers = 1, []
    for _ in range(255):
        powers.append(value)
        value = value << 1 ^ (PRIMITIVE if value & 0x80 else 0)
    return np.array(powers, np.uint8)


_EXP = _powers()
_LOG = np.zeros(256, np.int64)
_LOG[_EXP] = np.arange(255)
_PRODUCTS = _EXP[(_LOG[:, None] + _LOG) % 255]  # a · b at 256 a + b
_PRODUCTS[0], _PRODUCTS[:, 0] = 0, 0


class RsDecoded(NamedTuple):
    """What a decoder makes of B words.

    Attributes:
        message: corrected; as received where that was impossible.
        ok: whether a code word lies within t bytes of what was received.
    """

    message: UInt8[np.ndarray, "B k"]
    ok: Bool[np.ndarray, " B"]


class ReedSolomon:
    """A systematic, perhaps shortened code of n bytes with k of message; corrects t = (n - k) / 2 wrong bytes.

    The generator has roots α^0 to α^(n-k-1). Decoding within half the minimum distance: syndromes,
    Berlekamp-Massey, Chien search, Forney. Source: Lin and Costello, Error Control Coding, chapter 7.

    Args:
        num_bytes: n, at most 255.
        num_message: k; n - k is even and positive.

    Raises:
        ValueError: if there is no such code.
    """

    def __init__(self, num_bytes: int, num_message: int) -> None:
        parity = num_bytes - num_message
        if not 0 < num_message < num_bytes <= MAX_BYTES or parity % 2:
            raise ValueError(f"there is no RS({num_bytes}, {num_message}) over GF(256) with an even number of parities")
        self.num_bytes, self.num_message, self.num_correctable = num_bytes, num_message, parity // 2
        self._parities = _multiples(_remainders(num_message, parity))
        powers = np.arange(num_bytes - 1, -1, -1)  # of x, at each place in a word
        self._locators = _EXP[powers % 255]
        self._inverses = _EXP[-powers % 255]
        self._values = _multiples(_EXP[-powers * np.arange(self.num_correctable + 1)[:, None] % 255])
        self._checks = _multiples(_EXP[powers[:, None] * np.arange(parity) % 255])

    def encode(self, message: UInt8[np.ndarray, "B k"]) -> UInt8[np.ndarray, "B n"]:
        """Return code words: the message, then n - k parities."""
        return np.concatenate([message, _sum_of_rows(message, self._parities)], axis=1)

    def decode(self, received: UInt8[np.ndarray, "B n"]) -> RsDecoded:
        """Correct up to t bytes of each word."""
        syndromes = _sum_of_rows(received, self._checks)
        wrong = np.flatnonzero(syndromes.any(1))
        corrected, ok = received.copy(), np.ones(len(received), bool)
        if len(wrong):
            errors, ok[wrong] = self._errors(syndromes[wrong])
            corrected[wrong] ^= errors
        return RsDecoded(corrected[:, : self.num_message], ok)

    def _errors(self, syndromes: UInt8[np.ndarray, "B r"]) -> tuple[UInt8[np.ndarray, "B n"], Bool[np.ndarray, " B"]]:
        """Return the error of each word, zero where there is none that can be corrected, and where there is one."""
        locator, degree = _berlekamp_massey(syndromes)
        locator = locator[:, : self.num_correctable + 1]
        zero = _sum_of_rows(locator, self._values) == 0
        ok = (degree <= self.num_correctable) & (zero.sum(1) == degree)
        row, place = np.nonzero(zero & ok[:, None])
        x, inverse, c = self._locators[place], self._inverses[place], locator[row]
        evaluator = np.zeros((len(row), self.num_correctable), np.uint8)  # Ω(x) = S(x) Λ(x) mod x^2t, of degree < t
        for i in range(self.num_correctable):
            for j in range(i + 1):
                evaluator[:, i] ^= _mul(c[:, j], syndromes[row, i - j])
        derivative = c[:, 1:].copy()
        derivative[:, 1::2] = 0  # even powers of Λ vanish
        value = _mul(x, _divide(_evaluate(evaluator, inverse), _evaluate(derivative, inverse)))
        errors = np.zeros(zero.shape, np.uint8)
        errors[row, place] = value
        return errors, ok


def _berlekamp_massey(syndromes: UInt8[np.ndarray, "B r"]) -> tuple[UInt8[np.ndarray, "B s"], Int64[np.ndarray, " B"]]:
    """Return the coefficients of the error locators Λ(x), lowest power first, and their lengths."""
    count, number = syndromes.shape
    s = np.ascontiguousarray(syndromes.T)
    current = np.zeros((number + 1, count), np.uint8)
    current[0] = 1
    former, discrepancy = current.copy(), np.ones(count, np.uint8)
    degree = np.zeros(count, np.int64)
    for i in range(number):  # neither polynomial has a power above i + 1
        former[1 : i + 2] = former[: i + 1].copy()
        former[0] = 0
        d = np.bitwise_xor.reduce(_mul(current[: i + 1], s[i::-1]), axis=0)
        change = _mul(_divide(d, discrepancy), former[: i + 2])
        longer = (d != 0) & (2 * degree <= i)
        np.copyto(former[: i + 2], current[: i + 2], where=longer)
        np.copyto(discrepancy, d, where=longer)
        np.copyto(degree, i + 1 - degree, where=longer)
        current[: i + 2] ^= change
    return np.ascontiguousarray(current.T), degree


def _evaluate(coefficients: UInt8[np.ndarray, "B s *n"], at: UInt8[np.ndarray, " m"]) -> UInt8[np.ndarray, "*result"]:
    """Return the values of polynomials, lowest power first, by Horner's rule."""
    value = np.zeros(np.broadcast_shapes(coefficients[:, 0].shape, at.shape), np.uint8)
    for i in reversed(range(coefficients.shape[1])):
        value = _mul(value, at) ^ coefficients[:, i]
    return value


def _remainders(num_message: int, parity: int) -> UInt8[np.ndarray, "k r"]:
    """Return x^(n-1-i) mod g(x) of each message byte i, highest power first."""
    generator = np.array([1], np.uint8)  # highest power first
    for i in range(parity):
        generator = np.pad(generator, (0, 1)) ^ np.pad(_mul(generator, _EXP[i]), (1, 0))
    rows = np.zeros((num_message, parity), np.uint8)
    remainder = generator[1:]  # x^(n-k) mod g(x)
    for i in reversed(range(num_message)):
        rows[i] = remainder
        remainder = np.pad(remainder[1:], (0, 1)) ^ _mul(remainder[0], generator[1:])
    return rows


def _multiples(rows: UInt8[np.ndarray, "n r"]) -> UInt8[np.ndarray, "n 256 r"]:
    """Return every byte's product with each row."""
    return _mul(np.arange(256, dtype=np.uint8)[:, None], rows[:, None])


def _sum_of_rows(
    factors: UInt8[np.ndarray, "B n"], multiples: UInt8[np.ndarray, "n 256 r"]
) -> UInt8[np.ndarray, "B r"]:
    """Return the sum of n rows, each times a factor."""
    total = np.zeros((len(factors), multiples.shape[2]), np.uint8)
    for column, table in zip(np.ascontiguousarray(factors.T), multiples, strict=True):
        total ^= table.take(column, axis=0)
    return total


def _mul(a: Bytes | np.uint8, b: Bytes | np.uint8) -> Bytes:
    """Return products in GF(256)."""
    product: Bytes = _PRODUCTS.take(np.left_shift(a, 8, dtype=np.intp) | b)
    return product


def _divide(a: Bytes, b: Bytes) -> Bytes:
    """Return quotients in GF(256), of divisors that are not zero."""
    return _mul(a, _EXP[-_LOG[b] % 255])
