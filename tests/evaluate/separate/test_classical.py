import math

import numpy as np
import pytest
import torch

from sclmkb.common.errors import UserError
from sclmkb.common.link.mimo import Detected, detect_dmrs, detect_literal, leading_beams
from sclmkb.evaluate.separate.classical import Scheme, SeparateCoder, demodulate, modulate, unbiased
from sclmkb.evaluate.separate.huffman import HuffmanCode

HUFFMAN = HuffmanCode.fit(["a man with red hair", "a woman who walks", "two people in blue coats"])
WORDS = ["a", "man", "with", "red", "hair", "walks", "and", "two", "people", "who"]


def captions(num: int, words: int = 4) -> list[str]:
    draw = np.random.default_rng(0)
    return [" ".join(draw.choice(WORDS, words)) for _ in range(num)]


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


def test_neighbours_differ_in_one_bit() -> None:
    for order in (4, 16, 64):
        bits = ((np.arange(order)[:, None] >> np.arange(order.bit_length() - 2, -1, -1)) & 1).astype(np.uint8)
        points = modulate(bits, order)[:, 0]
        assert len(set(points.tolist())) == order
        distance = np.abs(points[:, None] - points)
        near = np.isclose(distance, distance[distance > 0].min(), rtol=1e-4)
        assert ((bits[:, None] ^ bits).sum(-1)[near] == 1).all()


@pytest.mark.parametrize("rate", [0.5, 0.75])
@pytest.mark.parametrize("qam", [4, 16, 64])
def test_a_caption_has_k_m_symbols_of_unit_power_and_comes_back(qam: int, rate: float) -> None:
    texts = captions(300, 3)
    for streams, uses in ((4, 64), (2, 200), (3, 401)):  # the last one in several blocks
        coder = SeparateCoder(HUFFMAN, Scheme(qam=qam, rate=rate), streams, uses)
        sent = coder.encode(texts)
        assert sent.fits.all()
        assert sent.symbols.shape == (300, streams, uses)
        power = sent.symbols.abs().square().sum(1).mean()
        assert float(power) == pytest.approx(1, abs=0.02)
        assert sent.symbols.abs().square().mean((0, 2)).tolist() == pytest.approx([1 / streams] * streams, rel=0.05)
        received = coder.decode(sent.symbols)
        assert received.texts == texts
        assert received.decoded.all()
        assert coder.code.num_message / coder.code.num_bytes == pytest.approx(rate, abs=0.1)


def test_blocks_share_the_bytes_of_a_weak_stream() -> None:
    coder = SeparateCoder(HUFFMAN, Scheme(qam=64, rate=0.5), 4, 180)
    assert coder.num_blocks == 3
    texts = captions(50, 20)
    symbols = coder.encode(texts).symbols.clone()
    symbols[:, 3] = 0  # a quarter of all bytes, and 0.5 corrects a quarter of a word
    symbols[:, 3, ::4] = coder.encode(texts).symbols[:, 3, ::4]
    assert coder.decode(symbols).texts == texts


def test_an_over_long_caption_is_an_overflow_and_arrives_as_nothing() -> None:
    coder = SeparateCoder(HUFFMAN, Scheme(qam=16, rate=0.5), 4, 16)
    texts = ["a man", " ".join(WORDS * 3)]
    sent = coder.encode(texts)
    assert sent.fits.tolist() == [True, False]
    assert coder.decode(sent.symbols).texts == ["a man", ""]


def test_failures_follow_from_symbol_errors_and_damage_is_kept_or_dropped() -> None:
    texts = captions(400)
    noise = torch.randn(400, 4, 32, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    found = {}
    for keep in (True, False):
        coder = SeparateCoder(HUFFMAN, Scheme(qam=16, rate=0.5), 4, 32, keep)
        sent = coder.encode(texts)
        found[keep] = coder.decode(sent.symbols + 0.13 * noise)
    kept, dropped = found[True], found[False]
    assert (kept.decoded == dropped.decoded).all()
    assert 0 < kept.decoded.mean() < 1
    exact = [a == b for a, b in zip(kept.texts, texts, strict=True)]
    assert all(e for e, d in zip(exact, kept.decoded, strict=True) if d)
    assert {t for t, d in zip(dropped.texts, dropped.decoded, strict=True) if not d} == {""}
    assert any(t for t, d in zip(kept.texts, kept.decoded, strict=True) if not d)


def test_mmse_bias_is_removed() -> None:
    draw = torch.Generator().manual_seed(0)
    h = torch.randn(64, 6, 6, dtype=torch.complex64, generator=draw)
    beams = leading_beams(h, 2)
    f = torch.randn(64, 2, 500, dtype=torch.complex64, generator=draw) / 2**0.5
    snr_db, effective = torch.full((64,), 3.0), h @ beams.v
    y = effective @ f + 10 ** (-3 / 20) * torch.randn(64, 6, 500, dtype=torch.complex64, generator=draw)
    no_pilot_noise = torch.full((64,), 200.0)
    for detected in (detect_literal(y, beams, snr_db), detect_dmrs(y, effective, snr_db, no_pilot_noise)):
        gain = [
            float((s * f.conj()).real.sum() / f.abs().square().sum()) for s in (detected.symbols, unbiased(detected))
        ]
        assert gain[0] < 0.97
        assert gain[1] == pytest.approx(1, abs=0.01)
    nothing = Detected(torch.zeros(1, 2, 3, dtype=torch.complex64), torch.full((1, 2), -50.0))
    assert unbiased(nothing).abs().max() == 0


def test_too_few_symbols_for_any_code_is_one_line() -> None:
    with pytest.raises(UserError, match=r"2 x 4 symbols, 16 bits, which is too few"):
        SeparateCoder(HUFFMAN, Scheme(qam=4, rate=0.5), 2, 4)
    assert SeparateCoder(HUFFMAN, Scheme(qam=16, rate=0.9), 2, 4).describe() == "1 x RS(4, 2), 16 bits per caption"
    assert Scheme(qam=16, rate=0.5).name == "sscc-16qam-rs0.5"
