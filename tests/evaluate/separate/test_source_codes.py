"""Huffman coding and the model of text: what both do, and what each takes for a text."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sclmkb.common.errors import UserError
from sclmkb.evaluate.separate import text_model
from sclmkb.evaluate.separate.huffman import END, ESCAPE, POINT_BITS, HuffmanCode
from sclmkb.evaluate.separate.text_model import TextModel

WORDS = [
    ["a man", "a woman", "two people"],
    ["with red hair", "in a blue coat", "who walks"],
    ["and a hat", "at night"],
]
CAPTIONS = [f"{a} {b} {c}" for a in WORDS[0] for b in WORDS[1] for c in WORDS[2]]
TRAINED, OTHERS = CAPTIONS[::2], CAPTIONS[1::2]
HUFFMAN, MODEL = HuffmanCode.fit(TRAINED), TextModel.fit(TRAINED)
TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), min_size=1, max_size=6)
both = pytest.mark.parametrize("code", [HUFFMAN, MODEL], ids=["huffman", "model"])


@both
@settings(deadline=None, max_examples=50)
@given(texts=TEXTS)
def test_any_text_comes_back_from_its_bits_alone(code: Any, texts: list[str]) -> None:
    sizes = code.num_bits(texts)
    bits, fits = code.encode(texts, max(int(sizes.max()), code.least_bits))
    assert fits.all()
    read = code.decode(bits)
    assert read.texts == texts
    assert read.complete.all()
    assert (read.ends >= sizes).all()
    assert not (bits & (np.arange(bits.shape[1]) >= read.ends[:, None])).any()
    for text, size in zip(texts, sizes, strict=True):  # filled up as the shortest one of all is
        alone, fits = code.encode([text], max(int(size), code.least_bits))
        assert (fits.tolist(), code.decode(alone).texts) == ([True], [text])


@settings(deadline=None, max_examples=30)
@given(TEXTS)
def test_whatever_it_was_fitted_to_it_has_a_code_for_everything(texts: list[str]) -> None:
    code = TextModel.fit(texts)
    given = [*texts, "", "a man", "".join(reversed(texts[0]))]
    bits, fits = code.encode(given, max(int(code.num_bits(given).max()), code.least_bits))
    assert fits.all()
    assert code.decode(bits).texts == given


@both
def test_a_text_that_does_not_fit_is_sent_as_an_empty_one(code: Any) -> None:
    texts = [OTHERS[0], "somebody else altogether", ""]
    capacity = int(code.num_bits(texts)[1]) - 1
    bits, fits = code.encode(texts, capacity)
    assert fits.tolist() == [True, False, True]
    assert bits.shape == (3, capacity)
    assert code.decode(bits).texts == [OTHERS[0], "", ""]
    with pytest.raises(ValueError, match="an empty text takes"):
        code.encode([""], code.least_bits - 1)


@both
def test_bits_without_sense_end_and_are_text(code: Any) -> None:
    noise = code.decode(np.random.default_rng(0).integers(0, 2, (500, 90), dtype=np.uint8))
    assert "".join(noise.texts).encode()  # no lone surrogates
    assert not noise.complete.all()
    cut = code.decode(code.encode([OTHERS[0] * 9], 5000)[0][:, :40])
    assert cut.texts[0][:5] == "a man"
    assert cut.texts != [OTHERS[0] * 9]
    assert code.decode(np.zeros((0, 40), np.uint8)).texts == []


def test_a_text_without_its_end_is_read_and_not_complete() -> None:
    bits, _ = HUFFMAN.encode(["a man walks"], 100)
    cut = HUFFMAN.decode(bits[:, : int(HUFFMAN.num_bits(["a man walks"])[0]) - HUFFMAN.least_bits])
    assert cut.texts == ["a man walks"]
    assert not cut.complete.any()


@both
def test_half_a_surrogate_pair_is_replaced_and_no_captions_are_refused(code: Any) -> None:
    bits, _ = code.encode(["a\ud800"], 200)
    assert code.decode(bits).texts == ["a�"]
    with pytest.raises(UserError, match="needs training captions"):
        code.fit([])


@both
def test_the_code_is_that_of_the_captions_alone(code: Any) -> None:
    assert (code.fit(list(reversed(TRAINED))).num_bits(OTHERS) == code.num_bits(OTHERS)).all()
    assert (code.fit([*TRAINED, "zzz"]).num_bits(OTHERS) != code.num_bits(OTHERS)).any()


@settings(deadline=None)
@given(st.lists(st.text(max_size=20), min_size=1, max_size=5))
def test_no_word_is_the_beginning_of_another_and_all_are_used(texts: list[str]) -> None:
    words = [f"{word:0{length}b}" for word, length in HuffmanCode.fit(texts).words.values()]
    assert not any(b.startswith(a) for a, b in zip(sorted(words), sorted(words)[1:], strict=False))
    assert sum(2.0 ** -len(word) for word in words) == 1  # Kraft: nothing is wasted


def test_mean_length_is_within_a_bit_of_the_entropy() -> None:
    symbols = {ord(c): n for c, n in Counter("".join(TRAINED)).items()} | {END: len(TRAINED), ESCAPE: 1}
    total = sum(symbols.values())
    entropy = -sum(n / total * math.log2(n / total) for n in symbols.values())
    mean = sum(n * HUFFMAN.words[s][1] for s, n in symbols.items()) / total
    assert entropy <= mean < entropy + 1


def test_captions_take_fewer_bits_with_the_model() -> None:
    huffman, own = HUFFMAN.num_bits(OTHERS), MODEL.num_bits(OTHERS)
    assert own.mean() < 0.6 * huffman.mean()
    assert (own < huffman).all()


def test_an_unseen_character_costs_its_escape() -> None:
    seen, unseen = HUFFMAN.num_bits(["a", "Ω"]).tolist()
    assert seen == HUFFMAN.words[ord("a")][1] + HUFFMAN.least_bits
    assert unseen == HUFFMAN.words[ESCAPE][1] + POINT_BITS + HUFFMAN.least_bits
    more = MODEL.num_bits(["a man wΩth red hair"]) - MODEL.num_bits(["a man with red hair"])
    assert POINT_BITS < int(more[0]) < POINT_BITS + 40


def test_probabilities_are_those_of_interpolated_kneser_ney(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_model, "ORDER", 1)
    model = TextModel.fit(["ab", "ab", "ba", "aa"])
    shares = np.diff(model._starts) / 2**20
    a, b = (model._index[ord(c)] for c in "ab")
    end, width = model._end, 4  # and the escape
    # Behind a text's beginning: a 3 times, b once; one pair was seen once and one twice, see below.
    pairs = {("^", "a"): 3, ("^", "b"): 1, ("a", "b"): 2, ("a", "$"): 2, ("a", "a"): 1, ("b", "$"): 2, ("b", "a"): 1}
    one, two = (sum(n == m for n in pairs.values()) for m in (1, 2))
    discount = one / (one + 2 * two)
    variety = {"a": 3, "b": 2, "$": 2}
    least = 0.1  # no variety is 1, so the estimate is 0
    shorter = {c: (n - least) / 7 + least * 3 / 7 / width for c, n in variety.items()}
    expected_a = (3 - discount + discount * 2 * shorter["a"]) / 4
    expected_b = (1 - discount + discount * 2 * shorter["b"]) / 4
    first = shares[model._first]
    assert first[[a, b]] == pytest.approx([expected_a, expected_b], abs=1e-4)
    assert first[end] == pytest.approx(discount * 2 * shorter["$"] / 4, abs=1e-4)
    assert (np.diff(model._starts[: model.num_contexts]) > 0).all()


def test_rare_contexts_are_left_out_where_tables_would_grow_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    for cells in (60, 1000, 3000):
        monkeypatch.setattr(text_model, "MAX_CELLS", cells)
        small = TextModel.fit(TRAINED)
        assert small.num_contexts * len(small.symbols) <= cells
        bits, _ = small.encode(CAPTIONS, int(small.num_bits(CAPTIONS).max()))
        assert small.decode(bits).texts == CAPTIONS
        assert small.num_bits(OTHERS).mean() > MODEL.num_bits(OTHERS).mean()
