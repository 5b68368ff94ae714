"""Huffman coding of many texts at once, character by character.

This is our own code: libraries (``dahuffman``) go through one text at a time in Python, and a Monte-Carlo takes many
thousands.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt8
from numpy.typing import NDArray

from sclmkb.common.errors import UserError
from sclmkb.evaluate.separate.source_code import SourceCode

END, ESCAPE = 0x110000, 0x110001
"""Symbols beside the characters: the end of a text, and that a character follows which the table lacks."""

POINT_BITS = 21
"""Of a character that the table lacks, as plain Unicode."""

_NOTHING = -1
"""In place of a character: none is reached with this bit."""

_END_NODE = 2
"""Where the branches behind the end of a text are."""

_STEP = 4
"""Bits that are decoded at once: half a byte."""

_UNKNOWN = "�"


class DecodedTexts(NamedTuple):
    """Texts that were read from bits.

    Attributes:
        texts: what was read, up to where it stopped making sense.
        complete: whether each text has an end and no character that does not exist.
        ends: bits that each text takes with its end, where it is complete.
    """

    texts: list[str]
    complete: Bool[np.ndarray, " B"]
    ends: Int64[np.ndarray, " B"]


class HuffmanCode(SourceCode):
    """A canonical Huffman code of characters, an end and an escape.

    ::

        a text ─► code words of its characters, escape + 21 bits for an unseen one ─► end ─► zeros up to the capacity

    The code depends on the counts alone: symbols of one count are ordered by their number in Unicode, and code words
    of one length as well. Source: Huffman 1952; canonical form: Schwartz and Kallick 1964.

    Args:
        counts: how often each symbol (a character's number, END or ESCAPE) is expected, all positive.
    """

    def __init__(self, counts: dict[int, int]) -> None:
        lengths = _code_lengths({END: 1, ESCAPE: 1} | counts)
        order = sorted(lengths, key=lambda symbol: (lengths[symbol], symbol))
        self.words: dict[int, tuple[int, int]] = {}
        word, length = 0, 0
        for symbol in order:
            word <<= lengths[symbol] - length
            length = lengths[symbol]
            self.words[symbol] = (word, length)
            word += 1
        self._symbols = np.array(sorted(self.words))
        self._words, self._lengths = (np.array([self.words[int(s)][i] for s in self._symbols]) for i in (0, 1))
        self._next, self._reached = _in_steps(*_tree(self.words))

    @classmethod
    def fit(cls, texts: Iterable[str]) -> "HuffmanCode":
        """Return the code for texts like these.

        Raises:
            UserError: if there is no text.
        """
        given = list(texts)
        if not given:
            raise UserError("a Huffman table needs training captions, and there are none")
        return cls({**Counter(map(ord, "".join(given))), END: len(given)})

    def num_bits(self, texts: Sequence[str]) -> Int64[np.ndarray, " B"]:
        """Return the length of each text in bits, its end included."""
        _, widths, row = self._elements(texts)
        return np.bincount(row, widths, len(texts)).astype(np.int64)

    def _write_all(self, texts: Sequence[str], capacity: int) -> UInt8[np.ndarray, "B {capacity}"]:
        words, widths, row = self._elements(texts)
        before = np.cumsum(widths) - widths  # bits before an element, of all texts one after the other
        element = np.repeat(np.arange(len(words)), widths)
        within = np.arange(len(element)) - before[element]
        first = before[np.searchsorted(row, np.arange(len(texts)))]
        bits = np.zeros((len(texts), capacity), np.uint8)
        at = before[element] + within - first[row[element]]
        bits[row[element], at] = (words[element] >> (widths[element] - 1 - within)) & 1
        return bits

    @property
    def least_bits(self) -> int:
        """Length of an empty text in bits."""
        return self.words[END][1]

    def decode(self, bits: UInt8[np.ndarray, "B n"]) -> DecodedTexts:
        """Return the texts in bits; what follows the end of one is not looked at."""
        count, length = bits.shape
        if not bits.size:
            return DecodedTexts([""] * count, np.zeros(count, bool), np.zeros(count, np.int64))
        packed = np.packbits(bits, axis=1)
        columns = np.stack([packed >> 4, packed & 15], axis=2).reshape(count, -1).T.astype(np.intp, "C")
        branch, taken = np.zeros(count, np.intp), np.zeros_like(columns)
        for i in range(len(columns)):
            np.add(branch, columns[i], out=taken[i])
            branch = self._next.take(taken[i])
            if i % 4 == 3 and (branch == _END_NODE << _STEP - 1).all():
                taken = taken[: i + 1]
                break
        symbols = self._reached.take(taken.T, axis=0).reshape(count, -1)[:, :length]
        ends = (symbols == END).argmax(1) + 1
        complete: NDArray[np.bool_] = symbols[np.arange(count), ends - 1] == END
        row, at = np.divmod(np.flatnonzero(symbols == ESCAPE), symbols.shape[1])
        points = bits[row[:, None], at[:, None] - np.arange(POINT_BITS)] @ (1 << np.arange(POINT_BITS))
        symbols[row, at] = points
        for wrong in np.flatnonzero((points >= END) | ((points >= 0xD800) & (points < 0xE000))):
            symbols[row[wrong], at[wrong] :], complete[row[wrong]] = _NOTHING, False
        return DecodedTexts(texts_of(symbols), complete, ends)

    def _elements(
        self, texts: Sequence[str]
    ) -> tuple[Int64[np.ndarray, " E"], Int64[np.ndarray, " E"], Int64[np.ndarray, " E"]]:
        """Return word, width in bits and text of every character and end."""
        sizes = np.array([len(text) for text in texts], np.int64)
        points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), "<u4").astype(np.int64)
        points = np.where((points >= 0xD800) & (points < 0xE000), ord(_UNKNOWN), points)
        symbols = np.insert(points, np.cumsum(sizes), END)
        place = np.searchsorted(self._symbols, symbols).clip(max=len(self._symbols) - 1)
        known = self._symbols[place] == symbols
        escape, width = self.words[ESCAPE]
        words = np.where(known, self._words[place], (escape << POINT_BITS) | symbols)
        widths = np.where(known, self._lengths[place], width + POINT_BITS)
        return words, widths, np.repeat(np.arange(len(texts)), sizes + 1)


def _code_lengths(counts: dict[int, int]) -> dict[int, int]:
    """Return the depth of each symbol in a Huffman tree."""
    heap = [(count, symbol, [symbol]) for symbol, count in counts.items()]
    heapq.heapify(heap)
    depth = dict.fromkeys(counts, 0)
    while len(heap) > 1:
        (one, first, below), (other, second, beside) = heapq.heappop(heap), heapq.heappop(heap)
        for symbol in (*below, *beside):
            depth[symbol] += 1
        heapq.heappush(heap, (one + other, min(first, second), [*below, *beside]))
    return depth


def _tree(words: dict[int, tuple[int, int]]) -> tuple[Int64[np.ndarray, " S"], Int32[np.ndarray, " S"]]:
    """Return the tree as tables of its branches, two per node: the next bit's branches, and the symbol reached.

    A branch to a leaf leads back to the root, that of the end to a node that is never left; one to a node reaches
    nothing. Behind the escape comes a chain of nodes, one for each bit of a character's number. The character is
    reached at its end.
    """
    following, reached = [0, 0, _END_NODE, _END_NODE], [_NOTHING] * 4

    def add_node() -> int:
        following.extend([0, 0])
        reached.extend([_NOTHING, _NOTHING])
        return len(following) - 2

    for symbol, (word, length) in words.items():
        node = 0
        for position in reversed(range(1, length)):
            branch = node + (word >> position & 1)
            following[branch] = following[branch] or add_node()
            node = following[branch]
        branches = [node + (word & 1)]
        for _ in range(POINT_BITS * (symbol == ESCAPE)):
            node = add_node()
            for branch in branches:
                following[branch] = node
            branches = [node, node + 1]
        for branch in branches:
            reached[branch] = symbol
            following[branch] = _END_NODE if symbol == END else 0
    return np.array(following, np.int64), np.array(reached, np.int32)


def _in_steps(
    following: Int64[np.ndarray, " S"], reached: Int32[np.ndarray, " S"]
) -> tuple[Int64[np.ndarray, " T"], Int32[np.ndarray, "T 4"]]:
    """Return the same tables for several bits at once, 2^4 branches per node, with the symbol that each bit reached."""
    node = np.repeat(np.arange(0, len(following), 2), 1 << _STEP)
    value = np.tile(np.arange(1 << _STEP), len(following) // 2)
    symbols = np.empty((len(node), _STEP), np.int32)
    for i in range(_STEP):
        branch = node + (value >> (_STEP - 1 - i) & 1)
        symbols[:, i], node = reached[branch], following[branch]
    return node << (_STEP - 1), symbols


def texts_of(symbols: Int32[np.ndarray, "B n"]) -> list[str]:
    """Return the texts of characters' numbers; other numbers count for nothing."""
    there = symbols.view(np.uint32) < END
    joined = symbols[there].astype("<u4").tobytes().decode("utf-32-le")
    ends = np.cumsum(there.sum(1)).tolist()
    return [joined[start:end] for start, end in zip([0, *ends], ends, strict=False)]
