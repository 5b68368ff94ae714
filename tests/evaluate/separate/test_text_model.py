import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sclmkb.common.errors import UserError
from sclmkb.evaluate.separate import text_model
from sclmkb.evaluate.separate.huffman import POINT_BITS, HuffmanCode
from sclmkb.evaluate.separate.text_model import TextModel

WORDS = [
    ["a man", "a woman", "two people"],
    ["with red hair", "in a blue coat", "who walks"],
    ["and a hat", "at night"],
]
CAPTIONS = [f"{a} {b} {c}" for a in WORDS[0] for b in WORDS[1] for c in WORDS[2]]
TRAINED, OTHERS = CAPTIONS[::2], CAPTIONS[1::2]
MODEL = TextModel.fit(TRAINED)
TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), min_size=1, max_size=6)


@settings(deadline=None, max_examples=50)
@given(TEXTS)
def test_any_text_comes_back_from_its_bits_alone(texts: list[str]) -> None:
    sizes = MODEL.num_bits(texts)
    bits, fits = MODEL.encode(texts, max(int(sizes.max()), MODEL.least_bits))
    assert fits.all()
    read = MODEL.decode(bits)
    assert read.texts == texts
    assert read.complete.all()
    assert (read.ends >= sizes).all()
    assert not (bits & (np.arange(bits.shape[1]) >= read.ends[:, None])).any()
    for text, size in zip(texts, sizes, strict=True):  # filled up as the shortest one of all is
        alone, fits = MODEL.encode([text], max(int(size), MODEL.least_bits))
        assert (fits.tolist(), MODEL.decode(alone).texts) == ([True], [text])


@settings(deadline=None, max_examples=30)
@given(TEXTS)
def test_whatever_it_was_fitted_to_it_has_a_code_for_everything(texts: list[str]) -> None:
    model = TextModel.fit(texts)
    given = [*texts, "", "a man", "".join(reversed(texts[0]))]
    bits, fits = model.encode(given, max(int(model.num_bits(given).max()), model.least_bits))
    assert fits.all()
    assert model.decode(bits).texts == given


def test_captions_take_fewer_bits_than_with_huffman() -> None:
    huffman = HuffmanCode.fit(TRAINED).num_bits(OTHERS)
    own = MODEL.num_bits(OTHERS)
    assert own.mean() < 0.6 * huffman.mean()
    assert (own < huffman).all()


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


def test_an_unseen_character_costs_its_escape() -> None:
    more = MODEL.num_bits(["a man wΩth red hair"]) - MODEL.num_bits(["a man with red hair"])
    assert POINT_BITS < int(more[0]) < POINT_BITS + 40


def test_rare_contexts_are_left_out_where_tables_would_grow_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    for cells in (60, 1000, 3000):
        monkeypatch.setattr(text_model, "MAX_CELLS", cells)
        small = TextModel.fit(TRAINED)
        assert small.num_contexts * len(small.symbols) <= cells
        bits, _ = small.encode(CAPTIONS, int(small.num_bits(CAPTIONS).max()))
        assert small.decode(bits).texts == CAPTIONS
        assert small.num_bits(OTHERS).mean() > MODEL.num_bits(OTHERS).mean()


def test_a_text_that_does_not_fit_is_sent_as_an_empty_one() -> None:
    texts = [OTHERS[0], "somebody else altogether", ""]
    capacity = int(MODEL.num_bits(texts)[1]) - 1
    bits, fits = MODEL.encode(texts, capacity)
    assert fits.tolist() == [True, False, True]
    assert bits.shape == (3, capacity)
    assert MODEL.decode(bits).texts == [OTHERS[0], "", ""]
    with pytest.raises(ValueError, match="an empty text takes"):
        MODEL.encode([""], MODEL.least_bits - 1)


def test_bits_without_sense_end_and_are_text() -> None:
    noise = MODEL.decode(np.random.default_rng(0).integers(0, 2, (500, 90), dtype=np.uint8))
    assert "".join(noise.texts).encode()  # no lone surrogates
    assert not noise.complete.all()
    cut = MODEL.decode(MODEL.encode([OTHERS[0] * 9], 2000)[0][:, :40])
    assert cut.texts[0][:5] == "a man"
    assert cut.texts != [OTHERS[0] * 9]
    assert MODEL.decode(np.zeros((0, 40), np.uint8)).texts == []


def test_half_a_surrogate_pair_is_replaced() -> None:
    bits, _ = MODEL.encode(["a\ud800"], 200)
    assert MODEL.decode(bits).texts == ["a�"]


def test_the_model_is_that_of_the_captions_alone() -> None:
    again = TextModel.fit(TRAINED)
    assert (again.num_bits(OTHERS) == MODEL.num_bits(OTHERS)).all()
    assert (again._starts == MODEL._starts).all()
    with pytest.raises(UserError, match="needs training captions"):
        TextModel.fit([])
