import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sclmkb.common.errors import UserError
from sclmkb.evaluate.separate.huffman import END, ESCAPE, POINT_BITS, HuffmanCode

CAPTIONS = ["a man with red hair", "a woman who walks", "man: medium skin tone", "two people", "a man in a blue coat"]
CODE = HuffmanCode.fit(CAPTIONS)
TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), min_size=1, max_size=6)


@settings(deadline=None)
@given(TEXTS)
def test_any_text_comes_back(texts: list[str]) -> None:
    bits, fits = CODE.encode(texts, int(CODE.num_bits(texts).max()))
    assert fits.all()
    read = CODE.decode(bits)
    assert read.texts == texts
    assert read.complete.all()


@settings(deadline=None)
@given(st.lists(st.text(max_size=20), min_size=1, max_size=5))
def test_no_word_is_the_beginning_of_another_and_all_are_used(texts: list[str]) -> None:
    words = [f"{word:0{length}b}" for word, length in HuffmanCode.fit(texts).words.values()]
    assert not any(b.startswith(a) for a, b in zip(sorted(words), sorted(words)[1:], strict=False))
    assert sum(2.0 ** -len(word) for word in words) == 1  # Kraft: nothing is wasted


def test_mean_length_is_within_a_bit_of_the_entropy() -> None:
    counts = Counter("".join(CAPTIONS)) | Counter({chr(1): 0})
    symbols = {ord(c): n for c, n in counts.items() if n} | {END: len(CAPTIONS), ESCAPE: 1}
    total = sum(symbols.values())
    entropy = -sum(n / total * math.log2(n / total) for n in symbols.values())
    mean = sum(n * CODE.words[s][1] for s, n in symbols.items()) / total
    assert entropy <= mean < entropy + 1


def test_the_code_depends_on_the_counts_alone() -> None:
    assert HuffmanCode.fit(reversed(CAPTIONS)).words == CODE.words
    assert HuffmanCode.fit([*CAPTIONS, "zzz"]).words != CODE.words


def test_an_unseen_character_costs_an_escape() -> None:
    seen, unseen = CODE.num_bits(["a", "Ω"]).tolist()
    assert seen == CODE.words[ord("a")][1] + CODE.least_bits
    assert unseen == CODE.words[ESCAPE][1] + POINT_BITS + CODE.least_bits


def test_a_text_that_does_not_fit_is_sent_as_an_empty_one() -> None:
    texts = ["a man", "a man with red hair", ""]
    longest = int(CODE.num_bits(texts)[0])
    bits, fits = CODE.encode(texts, longest)
    assert fits.tolist() == [True, False, True]
    assert CODE.decode(bits).texts == ["a man", "", ""]
    assert bits.shape == (3, longest)
    with pytest.raises(ValueError, match="an empty text takes"):
        CODE.encode([""], CODE.least_bits - 1)


def test_bits_without_sense_are_told_apart() -> None:
    draw = np.random.default_rng(0)
    noise = CODE.decode(draw.integers(0, 2, (500, 90), dtype=np.uint8))
    assert not noise.complete.all()
    assert "".join(noise.texts).encode()  # no lone surrogates
    bits, _ = CODE.encode(["a man walks"], 100)
    cut = CODE.decode(bits[:, : int(CODE.num_bits(["a man walks"])[0]) - CODE.least_bits])
    assert cut.texts == ["a man walks"]
    assert not cut.complete.any()


def test_half_a_surrogate_pair_is_replaced() -> None:
    bits, _ = CODE.encode(["a\ud800"], 100)
    assert CODE.decode(bits).texts == ["a�"]


def test_no_captions_is_one_line() -> None:
    with pytest.raises(UserError, match="needs training captions"):
        HuffmanCode.fit([])
