"""The classical and the modern coder: captions to symbols and back, and what becomes of those that do not arrive."""

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from sclmkb.common.errors import UserError
from sclmkb.common.link.mimo import Detected, detect_dmrs, detect_literal, leading_beams
from sclmkb.evaluate.separate import ldpc
from sclmkb.evaluate.separate.classical import Scheme, SeparateCoder, demodulate, modulate, unbiased
from sclmkb.evaluate.separate.huffman import HuffmanCode
from sclmkb.evaluate.separate.modern import ModernCoder, ModernScheme, log_likelihood_ratios
from sclmkb.evaluate.separate.text_model import TextModel

WORDS = ["a", "man", "with", "red", "hair", "walks", "and", "two", "people", "who"]
ORDERS = pytest.mark.parametrize("order", [4, 16, 64])


def captions(num: int, words: int = 4) -> list[str]:
    draw = np.random.default_rng(0)
    return [" ".join(draw.choice(WORDS, words)) for _ in range(num)]


HUFFMAN, MODEL = HuffmanCode.fit(captions(100)), TextModel.fit(captions(100))


def classical(qam: int, rate: float, streams: int, uses: int, keep_damaged: bool = True) -> SeparateCoder:
    return SeparateCoder(HUFFMAN, Scheme(qam=qam, rate=rate), streams, uses, keep_damaged)


def modern(qam: int, rate: float, streams: int, uses: int) -> ModernCoder:
    pytest.importorskip("sionna.phy")
    return ModernCoder(MODEL, ModernScheme(qam=qam, rate=rate), streams, uses)


def points(order: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the bits of each point of a constellation, and the points."""
    width = order.bit_length() - 1
    bits = ((np.arange(order)[:, None] >> np.arange(width)[::-1]) & 1).astype(np.uint8)
    return bits, modulate(bits, order)[:, 0]


def error_rate(order: int, snr: float) -> float:
    """Return the bit error rate of Gray-mapped square QAM in white noise, nearest neighbours and beyond, per axis."""
    levels, half = math.isqrt(order), (order.bit_length() - 1) // 2
    gray = [i ^ (i >> 1) for i in range(levels)]
    unit = math.sqrt(3 / (2 * (order - 1)))

    def tail(x: float) -> float:
        return 0.5 * math.erfc(x * unit * math.sqrt(snr))

    total = 0.0
    for sent in range(levels):
        for found in range(levels):
            lower = -math.inf if found == 0 else 2 * (found - sent) - 1
            upper = math.inf if found == levels - 1 else 2 * (found - sent) + 1
            total += (tail(lower) - tail(upper)) * (gray[sent] ^ gray[found]).bit_count()
    return total / levels / half


@pytest.mark.parametrize(("order", "snr_db"), [(4, 0), (4, 7), (16, 5), (16, 14), (64, 10), (64, 20)])
def test_uncoded_bit_errors_are_those_of_theory(order: int, snr_db: float) -> None:
    draw = np.random.default_rng(0)
    bits = draw.integers(0, 2, (500, 2400), dtype=np.uint8)
    symbols = modulate(bits, order)
    assert (demodulate(symbols, order) == bits).all()
    assert (np.abs(symbols) ** 2).mean() == pytest.approx(1, abs=0.01)
    noise = draw.normal(size=(2, *symbols.shape)) * (10 ** (-snr_db / 10) / 2) ** 0.5
    found = demodulate((symbols + noise[0] + 1j * noise[1]).astype(np.complex64), order)
    expected = error_rate(order, 10 ** (snr_db / 10))
    # The bits of a symbol fail together: allow five deviations of as many independent symbols.
    assert (found != bits).mean() == pytest.approx(expected, abs=5 * (expected / symbols.size) ** 0.5)


@ORDERS
def test_neighbours_differ_in_one_bit(order: int) -> None:
    bits, every = points(order)
    assert len(set(every.tolist())) == order
    distance = np.abs(every[:, None] - every)
    near = np.isclose(distance, distance[distance > 0].min(), rtol=1e-4)
    assert ((bits[:, None] ^ bits).sum(-1)[near] == 1).all()


@ORDERS
def test_log_likelihood_ratios_are_those_of_bayes(order: int) -> None:
    bits, every = points(order)
    width = bits.shape[1]
    received = torch.randn(3, 2, 4, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    snr_db = torch.tensor([[0.0, 3.0], [6.0, -4.0], [10.0, -50.0]])
    found = log_likelihood_ratios(received, snr_db, order).reshape(3, 2, 4, width).numpy()
    for i, k, m in ((0, 0, 0), (1, 1, 2), (2, 0, 3), (0, 1, 1)):
        weight = np.exp(-(10 ** (float(snr_db[i, k]) / 10)) * np.abs(received[i, k, m].numpy() - every) ** 2)
        expected = [np.log(weight[bits[:, b] == 1].sum() / weight[bits[:, b] == 0].sum()) for b in range(width)]
        assert found[i, k, m] == pytest.approx(expected, rel=1e-3, abs=1e-3)
    sent = np.random.default_rng(0).integers(0, 2, (3, 8 * width), dtype=np.uint8)
    clean = torch.from_numpy(modulate(sent, order)).reshape(3, 2, 4)
    hard = (log_likelihood_ratios(clean, torch.full((3, 2), 30.0), order) > 0).numpy()
    assert (hard == sent).all()


def detected(symbols: torch.Tensor, snr_db: float) -> Detected:
    """Return what an MMSE receiver makes of streams in noise."""
    noise = torch.randn(symbols.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    snr, k = 10 ** (snr_db / 10), symbols.shape[1]
    shrunk = (symbols + noise / (snr * k) ** 0.5) * snr / (1 + snr)
    return Detected(shrunk, torch.full(symbols.shape[:2], snr_db))


@ORDERS
@pytest.mark.parametrize(
    ("make", "rate", "streams", "uses"),
    [
        *((classical, rate, *size) for rate in (0.5, 0.75) for size in ((4, 64), (2, 200), (3, 401))),
        (modern, 0.5, 4, 16),
        (modern, 0.75, 2, 24),
    ],
)  # the classical one of 3 x 401 symbols in several blocks
def test_a_caption_has_k_m_symbols_of_unit_power_and_comes_back(
    make: Any, order: int, rate: float, streams: int, uses: int
) -> None:
    texts, coder = captions(200, 3), make(order, rate, streams, uses)
    sent = coder.encode(texts)
    assert sent.fits.all()
    assert sent.symbols.shape == (200, streams, uses)
    assert float(sent.symbols.abs().square().sum(1).mean()) == pytest.approx(1, abs=0.03)
    assert sent.symbols.abs().square().mean((0, 2)).tolist() == pytest.approx([1 / streams] * streams, rel=0.05)
    received = coder.receive(detected(sent.symbols, 40.0))
    assert received.texts == texts
    assert received.decoded.all()
    if make is classical:
        assert coder.code.num_message / coder.code.num_bytes == pytest.approx(rate, abs=0.1)


def test_blocks_share_the_bytes_of_a_weak_stream() -> None:
    coder = classical(64, 0.5, 4, 180)
    assert coder.num_blocks == 3
    texts = captions(50, 20)
    symbols = coder.encode(texts).symbols.clone()
    symbols[:, 3] = 0  # a quarter of all bytes, and 0.5 corrects a quarter of a word
    symbols[:, 3, ::4] = coder.encode(texts).symbols[:, 3, ::4]
    assert coder.decode(symbols).texts == texts


@pytest.mark.parametrize("make", [classical, modern])
def test_an_over_long_caption_is_an_overflow_and_arrives_as_nothing(make: Any) -> None:
    coder = make(16, 0.5, 4, 16)
    sent = coder.encode(["a man", " ".join(reversed(WORDS * 9)) + "Ω"])
    assert sent.fits.tolist() == [True, False]
    assert coder.receive(detected(sent.symbols, 40.0)).texts == ["a man", ""]


def test_failures_follow_from_symbol_errors_and_damage_is_kept_or_dropped() -> None:
    texts = captions(400)
    noise = torch.randn(400, 4, 32, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    coders = [classical(16, 0.5, 4, 32, keep) for keep in (True, False)]
    kept, dropped = (coder.decode(coder.encode(texts).symbols + 0.13 * noise) for coder in coders)
    assert (kept.decoded == dropped.decoded).all()
    assert 0 < kept.decoded.mean() < 1
    exact = [a == b for a, b in zip(kept.texts, texts, strict=True)]
    assert all(e for e, d in zip(exact, kept.decoded, strict=True) if d)
    assert {t for t, d in zip(dropped.texts, dropped.decoded, strict=True) if not d} == {""}
    assert any(t for t, d in zip(kept.texts, kept.decoded, strict=True) if not d)


def test_failures_of_the_modern_coder_arrive_as_nothing() -> None:
    texts = captions(150)
    coder = modern(16, 0.5, 4, 8)
    sent = coder.encode(texts)
    received = coder.receive(detected(sent.symbols, 6.8))
    assert 0.1 < received.decoded.mean() < 0.9
    assert {text for text, ok in zip(received.texts, received.decoded, strict=True) if not ok} == {""}
    right = [a == b for a, b, ok in zip(received.texts, texts, received.decoded, strict=True) if ok]
    assert np.mean(right) > 0.97
    assert not coder.receive(detected(sent.symbols, -20.0)).decoded.any()


def test_mmse_bias_is_removed() -> None:
    draw = torch.Generator().manual_seed(0)
    h = torch.randn(64, 6, 6, dtype=torch.complex64, generator=draw)
    beams = leading_beams(h, 2)
    f = torch.randn(64, 2, 500, dtype=torch.complex64, generator=draw) / 2**0.5
    snr_db, effective = torch.full((64,), 3.0), h @ beams.v
    y = effective @ f + 10 ** (-3 / 20) * torch.randn(64, 6, 500, dtype=torch.complex64, generator=draw)
    no_pilot_noise = torch.full((64,), 200.0)
    for found in (detect_literal(y, beams, snr_db), detect_dmrs(y, effective, snr_db, no_pilot_noise)):
        gain = [float((s * f.conj()).real.sum() / f.abs().square().sum()) for s in (found.symbols, unbiased(found))]
        assert gain[0] < 0.97
        assert gain[1] == pytest.approx(1, abs=0.01)
    nothing = Detected(torch.zeros(1, 2, 3, dtype=torch.complex64), torch.full((1, 2), -50.0))
    assert unbiased(nothing).abs().max() == 0


@pytest.mark.parametrize(
    ("make", "sizes", "message"),
    [
        (classical, (4, 0.5, 2, 4), "2 x 4 symbols, 16 bits, which is too few"),
        (modern, (4, 0.5, 2, 4), "2 x 4 symbols, 16 bits, 8 of message, which is too few for any 5G LDPC code"),
        (modern, (64, 0.75, 4, 500), "no 5G LDPC code of one block"),
    ],
)
def test_where_no_code_fits_it_is_one_line(make: Any, sizes: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(*sizes)


@pytest.mark.parametrize(
    ("make", "sizes", "name", "described"),
    [
        (classical, (16, 0.9, 2, 4), "sscc-16qam-rs0.9", "1 x RS(4, 2), 16 bits per caption"),
        (modern, (64, 0.5, 4, 2), "sscc-64qam-ldpc0.5", "LDPC(48, 24), 24 bits per caption"),
    ],
)
def test_a_scheme_has_a_name_and_its_code_is_described(make: Any, sizes: Any, name: str, described: str) -> None:
    coder = make(*sizes)
    assert (coder.scheme.name, coder.describe()) == (name, described)


@cache
def code(num_message: int, num_bits: int, bits_per_symbol: int) -> ldpc.Ldpc:
    pytest.importorskip("sionna.phy")
    return ldpc.Ldpc(num_message, num_bits, bits_per_symbol)


def noisy(message: np.ndarray, of: ldpc.Ldpc, snr_db: float) -> torch.Tensor:
    """Return LLRs of code words that were sent as ±1 over noise of a power."""
    sent = torch.from_numpy(of.encode(message)).float() * 2 - 1
    power = 10 ** (-snr_db / 10)
    noise = torch.randn(sent.shape, generator=torch.Generator().manual_seed(0)) * power**0.5
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
