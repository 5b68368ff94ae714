from functools import cache

import numpy as np
import pytest
import torch

from sclmkb.common.errors import UserError
from sclmkb.common.link.mimo import Detected
from sclmkb.evaluate.separate import ldpc
from sclmkb.evaluate.separate.classical import demodulate, modulate
from sclmkb.evaluate.separate.modern import ModernCoder, ModernScheme, log_likelihood_ratios
from sclmkb.evaluate.separate.text_model import TextModel

WORDS = ["a", "man", "with", "red", "hair", "walks", "and", "two", "people", "who"]


def captions(num: int, words: int = 4) -> list[str]:
    draw = np.random.default_rng(0)
    return [" ".join(draw.choice(WORDS, words)) for _ in range(num)]


MODEL = TextModel.fit(captions(100))


@pytest.fixture(scope="module", autouse=True)
def _sionna() -> None:
    pytest.importorskip("sionna.phy")


@cache
def code(num_message: int, num_bits: int, bits_per_symbol: int) -> ldpc.Ldpc:
    return ldpc.Ldpc(num_message, num_bits, bits_per_symbol)


def noisy(message: np.ndarray, of: ldpc.Ldpc, snr_db: float, seed: int = 0) -> torch.Tensor:
    """Return LLRs of code words that were sent as ±1 over noise of a power."""
    sent = torch.from_numpy(of.encode(message)).float() * 2 - 1
    power = 10 ** (-snr_db / 10)
    noise = torch.randn(sent.shape, generator=torch.Generator().manual_seed(seed)) * power**0.5
    return 2 * (sent + noise) / power


def messages(num: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2, (num, size), dtype=np.uint8)


@pytest.mark.parametrize("sizes", [(12, 16, 2), (24, 48, 6), (100, 400, 4), (288, 384, 6)])
def test_words_come_back_without_noise_and_fail_in_much(sizes: tuple[int, int, int]) -> None:
    own, message = code(*sizes), messages(50, sizes[0])
    assert own.encode(message).shape == (50, sizes[1])
    clean = own.decode(noisy(message, own, 30))
    assert clean.ok.all()
    assert (clean.message == message).all()
    drowned = own.decode(noisy(message, own, -15))
    assert drowned.ok.mean() < 0.1
    assert not drowned.message[~drowned.ok].any()


def test_a_code_is_better_than_none_at_the_same_energy_a_bit() -> None:
    """At 4 dB a bit 20,000 uncoded bits have about 250 errors; a code of rate 1/2 works 1.8 dB above its limit."""
    own, message = code(100, 200, 2), messages(200, 100)
    energy_db = 4.0
    found = own.decode(noisy(message, own, energy_db + 10 * np.log10(2 * 0.5)))
    uncoded = 0.5 * (1 - torch.erf(torch.tensor(10 ** (energy_db / 10)).sqrt())).item()
    assert (found.message != message).mean() < uncoded / 4
    assert found.ok.mean() > 0.97
    assert (found.message == message)[found.ok].all()  # no word is taken for another


def test_no_word_is_given_up_that_could_be_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    for sizes, snr_db in (((24, 48, 6), -1.0), ((100, 200, 2), 0.5)):
        own, message = code(*sizes), messages(300, sizes[0])
        llr = noisy(message, own, snr_db)
        found = own.decode(llr)
        monkeypatch.setattr(ldpc, "_DEVIATIONS", 1e9)
        everything = own.decode(llr)
        monkeypatch.undo()
        assert 0.02 < everything.ok.mean() < 0.98
        right = (everything.message == message).all(1) & everything.ok
        assert (found.ok | ~right).all()


@pytest.mark.parametrize("order", [4, 16, 64])
def test_log_likelihood_ratios_are_those_of_bayes(order: int) -> None:
    draw = np.random.default_rng(0)
    width = order.bit_length() - 1
    points = torch.randn(3, 2, 4, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    snr_db = torch.tensor([[0.0, 3.0], [6.0, -4.0], [10.0, -50.0]])
    found = log_likelihood_ratios(points, snr_db, order).reshape(3, 2, 4, width).numpy()
    bits = ((np.arange(order)[:, None] >> np.arange(width)[::-1]) & 1).astype(np.uint8)
    every = modulate(bits, order)[:, 0]
    for i, k, m in ((0, 0, 0), (1, 1, 2), (2, 0, 3), (0, 1, 1)):
        weight = np.exp(-(10 ** (float(snr_db[i, k]) / 10)) * np.abs(points[i, k, m].numpy() - every) ** 2)
        expected = [np.log(weight[bits[:, b] == 1].sum() / weight[bits[:, b] == 0].sum()) for b in range(width)]
        assert found[i, k, m] == pytest.approx(expected, rel=1e-3, abs=1e-3)
    sent = draw.integers(0, 2, (3, 8 * width), dtype=np.uint8)
    clean = torch.from_numpy(modulate(sent, order)).reshape(3, 2, 4)
    hard = (log_likelihood_ratios(clean, torch.full((3, 2), 30.0), order) > 0).numpy()
    assert (hard == sent).all()
    assert (demodulate(clean.reshape(3, 8).numpy(), order) == sent).all()


def detected(symbols: torch.Tensor, snr_db: float, seed: int = 0) -> Detected:
    """Return what an MMSE receiver makes of streams in noise."""
    noise = torch.randn(symbols.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))
    snr, k = 10 ** (snr_db / 10), symbols.shape[1]
    shrunk = (symbols + noise / (snr * k) ** 0.5) * snr / (1 + snr)
    return Detected(shrunk, torch.full(symbols.shape[:2], snr_db))


@pytest.mark.parametrize("qam", [4, 16, 64])
def test_a_caption_has_k_m_symbols_of_unit_power_and_comes_back(qam: int) -> None:
    texts = captions(100)
    for streams, uses, rate in ((4, 16, 0.5), (2, 24, 0.75)):
        coder = ModernCoder(MODEL, ModernScheme(qam=qam, rate=rate), streams, uses)
        sent = coder.encode(texts)
        assert sent.fits.all()
        assert sent.symbols.shape == (100, streams, uses)
        assert float(sent.symbols.abs().square().sum(1).mean()) == pytest.approx(1, abs=0.03)
        received = coder.receive(detected(sent.symbols, 40.0))
        assert received.texts == texts
        assert received.decoded.all()


def test_failures_and_overflows_are_counted_and_arrive_as_nothing() -> None:
    texts = [*captions(150), " ".join(reversed(WORDS * 9)) + "Ω"]
    coder = ModernCoder(MODEL, ModernScheme(qam=16, rate=0.5), 4, 8)
    sent = coder.encode(texts)
    assert sent.fits.tolist() == [True] * 150 + [False]
    received = coder.receive(detected(sent.symbols, 6.8))
    assert 0.1 < received.decoded.mean() < 0.9
    assert {text for text, ok in zip(received.texts, received.decoded, strict=True) if not ok} == {""}
    right = [a == b for a, b, ok in zip(received.texts, texts, received.decoded, strict=True) if ok and b != texts[-1]]
    assert np.mean(right) > 0.97
    assert coder.receive(detected(sent.symbols, 40.0)).texts == [*texts[:-1], ""]
    assert not coder.receive(detected(sent.symbols, -20.0)).decoded.any()


def test_where_no_code_fits_it_is_one_line() -> None:
    with pytest.raises(UserError, match=r"2 x 4 symbols, 16 bits, 8 of message, which is too few for any 5G LDPC code"):
        ModernCoder(MODEL, ModernScheme(qam=4, rate=0.5), 2, 4)
    with pytest.raises(UserError, match="no 5G LDPC code of one block"):
        ModernCoder(MODEL, ModernScheme(qam=64, rate=0.75), 4, 500)
    smallest = ModernCoder(MODEL, ModernScheme(qam=64, rate=0.5), 4, 2)
    assert smallest.describe() == "LDPC(48, 24), 24 bits per caption"
    assert smallest.scheme.name == "sscc-64qam-ldpc0.5"
