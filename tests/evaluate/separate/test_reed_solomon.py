import numpy as np
import pytest
import reedsolo
from scipy import stats

from sclmkb.evaluate.separate.reed_solomon import ReedSolomon

CODES = [(3, 1), (16, 8), (32, 16), (48, 42), (255, 223)]


def spoil(words: np.ndarray, errors: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Change so many bytes of each word."""
    spoilt = words.copy()
    for word, number in zip(spoilt, errors, strict=True):
        word[draw.choice(len(word), number, replace=False)] ^= draw.integers(1, 256, number, dtype=np.uint8)
    return spoilt


@pytest.mark.parametrize(("n", "k"), CODES)
def test_words_are_those_of_reedsolo(n: int, k: int) -> None:
    draw = np.random.default_rng(0)
    message = draw.integers(0, 256, (40, k), dtype=np.uint8)
    reference = reedsolo.RSCodec(n - k)
    code = ReedSolomon(n, k)
    words = code.encode(message)
    assert [bytes(w) for w in words] == [bytes(reference.encode(bytes(m))) for m in message]
    spoilt = spoil(words, draw.integers(0, min(n, code.num_correctable + 3), 40), draw)
    found = code.decode(spoilt)
    for received, corrected, ok in zip(spoilt, found.message, found.ok, strict=True):
        try:
            assert bytes(corrected) == bytes(reference.decode(bytes(received))[0])
        except reedsolo.ReedSolomonError:
            assert not ok
            assert bytes(corrected) == bytes(received[:k])
        else:
            assert ok


@pytest.mark.parametrize(("n", "k"), CODES)
def test_t_wrong_bytes_are_corrected_and_one_more_is_noticed(n: int, k: int) -> None:
    draw = np.random.default_rng(1)
    message = draw.integers(0, 256, (200, k), dtype=np.uint8)
    code = ReedSolomon(n, k)
    words = code.encode(message)
    found = code.decode(spoil(words, np.full(200, code.num_correctable), draw))
    assert found.ok.all()
    assert (found.message == message).all()
    over = code.decode(spoil(words, np.full(200, code.num_correctable + 1), draw))
    assert over.ok.mean() < 0.2  # another code word may be near
    assert not (over.message == message).all(1)[over.ok].any()


@pytest.mark.parametrize("error_rate", [0.05, 0.1, 0.2])
def test_failures_are_those_of_the_binomial_bound(error_rate: float) -> None:
    num, code = 20_000, ReedSolomon(24, 16)
    draw = np.random.default_rng(2)
    message = draw.integers(0, 256, (num, 16), dtype=np.uint8)
    wrong = draw.random((num, 24)) < error_rate
    spoilt = code.encode(message) ^ np.where(wrong, draw.integers(1, 256, (num, 24)), 0).astype(np.uint8)
    found = code.decode(spoilt)
    expected = stats.binom.sf(code.num_correctable, 24, error_rate)
    failed = 1 - (found.ok & (found.message == message).all(1)).mean()
    assert failed == pytest.approx(expected, abs=4 * (expected * (1 - expected) / num) ** 0.5)


@pytest.mark.parametrize(("n", "k"), [(256, 200), (10, 10), (10, 7), (10, 0)])
def test_codes_that_do_not_exist_are_refused(n: int, k: int) -> None:
    with pytest.raises(ValueError, match="there is no RS"):
        ReedSolomon(n, k)
