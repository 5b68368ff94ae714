"""Arithmetic coding of short texts with a model of characters in context, many texts at once.

This is our own code. ``constriction`` writes whole words of 32 bits, a good part of a caption. Libraries for PPM
(``pyppmd``) learn from the text that they code, and a caption is too short for that. Here the model is fitted before,
and a text takes no more bits than it needs.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64, UInt8, UInt32
from numpy.typing import NDArray

from sclmkb.common.errors import UserError
from sclmkb.evaluate.separate.huffman import END, ESCAPE, POINT_BITS, DecodedTexts, texts_of
from sclmkb.evaluate.separate.source_code import SourceCode

ORDER = 8
"""Longest context in characters."""

MAX_CELLS = 1 << 23
"""Contexts times symbols in the tables; beyond it, rare contexts are left out."""

FREQUENCY_BITS, RANGE_BITS = 20, 32
"""Precision of the probabilities, and of the coder's interval."""

_NOTHING = -1
_UNKNOWN = 0xFFFD


class _Level(NamedTuple):
    """Contexts of one length n in T places of the training texts.

    Attributes:
        context: of each place, ``[T]``; -1 where the text does not reach back as far.
        counts: how often each context is there.
        first: a place of each.
    """

    context: NDArray[np.int64]
    counts: NDArray[np.int64]
    first: NDArray[np.int64]


class TextModel(SourceCode):
    """Probabilities of the next character after the last ones, and an arithmetic code with them.

    ::

        a text ─► characters and an end ─► p(character | up to 8 before) ─► an interval of [0, 1) ─► the binary fraction
                                                          in it with fewest digits ─► zeros up to the capacity

    The model is an automaton: a state is the longest known context, with the probabilities of all symbols and the next
    state of each. Probabilities are interpolated Kneser-Ney: a context's counts less a discount, which is shared out
    as the next shorter context says, and the shortest one's evenly. A shorter context counts after how many longer
    ones a symbol was seen. A character that no training text has is an escape and 21 bits, a state each. What comes
    before a text is an end.

    Sources: Witten, Neal and Cleary 1987 (code); Ney, Essen and Kneser 1994 (discounts), Kneser and Ney 1995 (model).

    Args:
        line: symbols of the training texts, an END before each and after the last one.
    """

    def __init__(self, line: Int64[np.ndarray, " T"]) -> None:
        self.symbols = np.unique([*line, END, ESCAPE])
        self._index = {symbol: i for i, symbol in enumerate(self.symbols.tolist())}
        self._end, self._escape = self._index[END], self._index[ESCAPE]
        numbers = np.searchsorted(self.symbols, line)
        levels = _kept(_levels(numbers, self._end, len(self.symbols)), len(self.symbols))
        self.num_contexts = sum(len(level.counts) for level in levels)
        following = _transitions(levels, numbers, len(self.symbols))
        following[:, self._escape] = self.num_contexts
        chain = np.repeat(self.num_contexts + 1 + np.arange(POINT_BITS)[:, None], len(self.symbols), axis=1)
        chain[-1] = 0  # the context of a character that was never seen
        self._following = np.concatenate([following, chain]).astype(np.int32)
        digits = np.full((POINT_BITS, len(self.symbols) + 1), 1 << FREQUENCY_BITS, np.int32)
        digits[:, :2] = 0, 1 << FREQUENCY_BITS - 1
        self._starts = np.concatenate([_starts(_probabilities(levels, numbers, len(self.symbols))), digits])
        self._first = 1 + int(levels[1].context[1])  # behind an end; if that is too rare, 0: behind anything
        self._written: dict[str, str] = {}

    @classmethod
    def fit(cls, texts: Iterable[str]) -> "TextModel":
        """Return the model of texts like these.

        Raises:
            UserError: if there is no text.
        """
        given = list(texts)
        if not given:
            raise UserError("a model of text needs training captions, and there are none")
        return cls(np.array([END, *(point for text in given for point in (*_points(text), END))]))

    @property
    def least_bits(self) -> int:
        """Length of an empty text in bits."""
        return len(self._write(""))

    def num_bits(self, texts: Sequence[str]) -> Int64[np.ndarray, " B"]:
        """Return the length of each text in bits, its end included; zeros behind the last one do not count."""
        return np.array([len(self._write(text)) for text in texts], np.int64)

    def _write_all(self, texts: Sequence[str], capacity: int) -> UInt8[np.ndarray, "B {capacity}"]:
        bits = np.zeros((len(texts), capacity), np.uint8)
        for row, text in zip(bits, texts, strict=True):
            word = self._write(text)
            row[: len(word)] = np.frombuffer(word.encode(), np.uint8) - ord("0")
        return bits

    def decode(self, bits: UInt8[np.ndarray, "B n"]) -> DecodedTexts:
        """Return the texts in bits, up to their ends; ``ends`` is where the last bit is that an end depends on."""
        count, length = bits.shape
        windows = _windows(bits)
        row = np.arange(count)  # of the texts that go on
        state, offset = np.full(count, self._first), windows[:, 0].astype(np.int64)
        span, at = np.full(count, 1 << RANGE_BITS), np.zeros(count, np.int64)
        complete, ends = np.zeros(count, bool), np.full(count, length)
        found: list[NDArray[np.int64]] = []
        while len(row):
            unit = span >> FREQUENCY_BITS
            starts = self._starts.take(state, axis=0)
            symbol = (starts <= (offset // unit)[:, None]).sum(1) - 1
            sane = symbol < len(self.symbols)  # an encoder leaves the rest of a division unused
            row, state, offset, unit, at, symbol, starts = (
                x[sane] for x in (row, state, offset, unit, at, symbol, starts)
            )
            each = np.arange(len(row))
            low, high = starts[each, symbol], starts[each, symbol + 1]
            offset, span = offset - unit * low, unit * (high - low)
            shift = RANGE_BITS + 1 - np.frexp(span)[1]
            coming = windows[row, np.minimum(at + RANGE_BITS, length)].astype(np.int64)
            offset, span, at = (offset << shift) | (coming >> (RANGE_BITS - shift)), span << shift, at + shift
            found.append(np.full(count, _NOTHING))
            digit = state >= self.num_contexts
            found[-1][row] = symbol + len(self.symbols) * digit
            ended = (symbol == self._end) & ~digit
            complete[row[ended]], ends[row[ended]] = True, np.minimum(at[ended], length)
            state = self._following[state, symbol]
            going = ~ended & (at <= length + RANGE_BITS)
            row, state, offset, span, at = (x[going] for x in (row, state, offset, span, at))
        return self._read(np.array(found, np.int64).reshape(len(found), count).T, complete, ends)

    def _read(
        self, found: Int64[np.ndarray, "B s"], complete: Bool[np.ndarray, " B"], ends: Int64[np.ndarray, " B"]
    ) -> DecodedTexts:
        """Return the texts of symbols; digits of a character's number are counted from the number of symbols on."""
        width = len(self.symbols)
        points = np.where((found >= 0) & (found < width), self.symbols[found.clip(0, width - 1)], _NOTHING)
        for row, at in np.argwhere(points == ESCAPE):
            digits = found[row, at + 1 : at + 1 + POINT_BITS] - width
            point = int(digits @ (1 << np.arange(len(digits))[::-1])) if len(digits) == POINT_BITS else END
            points[row, at] = point
            if digits.min(initial=0) < 0 or point >= END or 0xD800 <= point < 0xE000:
                points[row, at:], complete[row] = _NOTHING, False
        return DecodedTexts(texts_of(points.astype(np.int32)), complete, ends)

    def _write(self, text: str) -> str:
        """Return a text's bits, up to the last one."""
        if (known := self._written.get(text)) is not None:
            return known
        low, span, length, state = 0, 1 << RANGE_BITS, RANGE_BITS, self._first
        for symbol in self._path(text):
            start, stop = self._starts[state, symbol : symbol + 2].tolist()
            unit = span >> FREQUENCY_BITS
            low, span = low + unit * start, unit * (stop - start)
            shift = RANGE_BITS + 1 - span.bit_length()
            low, span, length = low << shift, span << shift, length + shift
            state = int(self._following[state, symbol])
        # Zeros at the end of a number in [low, low + span); the decoder looks no further than twice as far.
        zeros = RANGE_BITS
        while zeros < min(length, 2 * RANGE_BITS) and -(-low >> zeros + 1) << zeros + 1 < low + span:
            zeros += 1
        word = f"{-(-low >> zeros):0{length - zeros}b}" if length > zeros else ""
        self._written[text] = word
        return word

    def _path(self, text: str) -> list[int]:
        """Return the symbols of a text: characters, escapes with digits, and the end."""
        path = []
        for point in _points(text):
            if (known := self._index.get(point)) is not None:
                path.append(known)
            else:
                path += [self._escape, *map(int, f"{point:0{POINT_BITS}b}")]
        return [*path, self._end]


def _points(text: str) -> list[int]:
    return [_UNKNOWN if 0xD800 <= ord(c) < 0xE000 else ord(c) for c in text]


def _windows(bits: UInt8[np.ndarray, "B n"]) -> UInt32[np.ndarray, "B w"]:
    """Return 32 bits from each place on as a number, zeros behind the last bit."""
    windows = np.zeros((len(bits), bits.shape[1] + 1), np.uint32)
    for i in range(bits.shape[1] - 1, -1, -1):
        windows[:, i] = (windows[:, i + 1] >> 1) | (bits[:, i].astype(np.uint32) << RANGE_BITS - 1)
    return windows


def _levels(line: Int64[np.ndarray, " T"], end: int, width: int) -> list[_Level]:
    """Return the contexts of every place but the first, where nothing comes before, by their length."""
    places = np.arange(len(line))
    reach = places - np.maximum.accumulate(np.where(line == end, places, 0))  # symbols behind the last end
    reach = np.concatenate([[0], reach[:-1] + 1])
    context = np.zeros(len(line), np.int64)
    context[0] = _NOTHING
    levels = [_Level(context, np.array([len(line) - 1]), np.array([1]))]
    for n in range(1, ORDER + 1):
        there = np.flatnonzero(reach >= n)
        key = levels[-1].context[there] * width + line[there - n]
        _, first, number, counts = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
        context = np.full(len(line), _NOTHING)
        context[there] = number
        levels.append(_Level(context, counts, there[first]))
    return levels


def _kept(levels: list[_Level], width: int) -> list[_Level]:
    """Leave rare contexts out until the tables are small enough; a context is never rarer than a longer one."""
    counts = np.concatenate([level.counts for level in levels])
    least = 1
    while (counts >= least).sum() * width > MAX_CELLS and least < counts[0]:
        least += 1
    kept = []
    for level in levels:
        there = level.counts >= least
        number = np.append(np.where(there, there.cumsum() - 1, _NOTHING), _NOTHING)
        kept.append(_Level(number[level.context], level.counts[there], level.first[there]))
    return kept


def _offsets(levels: list[_Level]) -> list[int]:
    """Return the state of the first context of each length."""
    return [sum(len(level.counts) for level in levels[:n]) for n in range(len(levels) + 1)]


def _transitions(levels: list[_Level], line: Int64[np.ndarray, " T"], width: int) -> Int64[np.ndarray, "S a"]:
    """Return the state after each symbol in each state."""
    offsets = _offsets(levels)
    following: NDArray[np.int64] = np.zeros((offsets[-1], width), np.int64)
    for n, level in enumerate(levels):
        if n:  # as after the next shorter context, unless a longer one is known
            own = slice(offsets[n], offsets[n + 1])
            following[own] = following[offsets[n - 1] + levels[n - 1].context[level.first]]
        if n < ORDER:
            before = levels[n + 1].first - 1
            longer = offsets[n + 1] + np.arange(len(before))
            context = level.context[before].clip(min=0)  # nothing comes before the first end
            following[offsets[n] + context, line[before]] = longer
    return following


def _probabilities(levels: list[_Level], line: Int64[np.ndarray, " T"], width: int) -> Float64[np.ndarray, "S a"]:
    """Return the probability of each symbol in each state."""
    offsets = _offsets(levels)
    probabilities = np.full((offsets[-1], width), 1 / width)
    for n, level in enumerate(levels):
        size = len(level.counts) * width

        def counted(places: NDArray[np.int64], level: _Level = level, size: int = size) -> NDArray[np.float64]:
            cells = level.context[places] * width + line[places]
            return np.bincount(cells[level.context[places] >= 0], minlength=size).reshape(-1, width).astype(float)

        counts = counted(np.arange(1, len(line)))
        if n < ORDER:
            longer = levels[n + 1].context
            there = np.flatnonzero(longer >= 0)
            _, once = np.unique(longer[there] * width + line[there], return_index=True)
            variety = counted(there[once])
            counts = np.where(variety.sum(1, keepdims=True) > 0, variety, counts)
        one, two = (counts == 1).sum(), (counts == 2).sum()
        discount = float(np.clip(one / max(1, one + 2 * two), 0.1, 0.95))
        shared = discount * (counts > 0).sum(1, keepdims=True)
        own = slice(offsets[n], offsets[n + 1])
        shorter = probabilities[offsets[n - 1] + levels[n - 1].context[level.first]] if n else probabilities[own]
        total = counts.sum(1, keepdims=True)
        probabilities[own] = (np.maximum(counts - discount, 0) + shared * shorter) / total
    return probabilities


def _starts(probabilities: Float64[np.ndarray, "S a"]) -> Int32[np.ndarray, "S b"]:
    """Return where each symbol's share of 2^20 begins, none of them empty."""
    width = probabilities.shape[1]
    shares = 1 + np.floor(probabilities * ((1 << FREQUENCY_BITS) - width)).astype(np.int64)
    rows = np.arange(len(shares))
    shares[rows, shares.argmax(1)] += (1 << FREQUENCY_BITS) - shares.sum(1)
    return np.pad(shares.cumsum(1), ((0, 0), (1, 0))).astype(np.int32)
