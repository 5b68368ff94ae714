import math

import numpy as np
import pytest
import torch
from uses_audit import true_snr

from sclmkb.common.link.link import convey
from sclmkb.common.link.uses import single_antenna, transmit
from sclmkb.common.seeds import make_generator
from sclmkb.evaluate.separate.classical import ORDERS, unbiased
from sclmkb.evaluate.separate.media.blocks import MOST_MESSAGE, SCHEMES, BlockErrors, divide
from sclmkb.evaluate.separate.modern import LdpcModem, ModernScheme

QPSK_HALF = ModernScheme(qam=4, rate=0.5)


@pytest.fixture(autouse=True)
def _sionna() -> None:
    pytest.importorskip("sionna.phy")


@pytest.mark.parametrize("uses", [8, 29, 512, 20_000])
def test_no_block_is_too_long_and_no_use_is_counted_twice(uses: int) -> None:
    for scheme in SCHEMES:
        blocks = divide(scheme, uses)
        per_use = scheme.rate * scheme.bits_per_symbol
        if blocks is None:
            assert per_use * uses < 12.5
            continue
        assert blocks.num * blocks.uses <= uses < blocks.num * (blocks.uses + 1)
        assert 12 <= blocks.capacity / blocks.num <= MOST_MESSAGE
        assert blocks.capacity == pytest.approx(per_use * blocks.num * blocks.uses, abs=0.5 * blocks.num)


@pytest.mark.parametrize("uses", [31, 503, 20_000])
def test_there_is_a_code_for_each_length(uses: int) -> None:
    for scheme in (*SCHEMES[:2], SCHEMES[-1]):
        blocks = divide(scheme, uses)
        assert blocks is not None
        assert LdpcModem(scheme, 1, blocks.uses).capacity * blocks.num == blocks.capacity


def test_blocks_fail_below_capacity_and_not_far_above_it() -> None:
    """A code of 300 bits works within 3 dB of Shannon's limit, and hardly ever below it."""
    errors = BlockErrors(num_words=10)
    limit_db = 10 * math.log10(2**1.0 - 1)
    shares = [errors.share(QPSK_HALF, 300, limit_db + more) for more in (-1.0, 0.0, 1.0, 3.0)]
    assert shares[0] == 1
    assert shares[1] > 0.5
    assert shares[2] > 0
    assert shares[3] == 0
    assert errors.share(QPSK_HALF, 300, 20.0) == 0
    assert shares == sorted(shares, reverse=True)


def test_a_share_does_not_depend_on_what_was_asked_before() -> None:
    asked = BlockErrors(num_words=20)
    assert asked.share(QPSK_HALF, 60, 4.0) == 0
    for snr_db in (6.0, 1.0):
        expected = BlockErrors(num_words=20).share(QPSK_HALF, 60, snr_db + 0.4)
        assert asked.share(QPSK_HALF, 60, snr_db - 1e-9) == expected  # half a dB, but for rounding errors


def test_one_wrong_block_of_several_is_a_failure() -> None:
    errors = BlockErrors(num_words=20)
    blocks = divide(QPSK_HALF, 100)
    assert blocks is not None
    one = errors.share(QPSK_HALF, 100, 1.0)
    assert 0 < one < 1
    assert errors.any_share(blocks._replace(num=3), 1.0) == pytest.approx(1 - (1 - one) ** 3)


@pytest.mark.parametrize("qam", [*ORDERS, 256])
def test_bits_cross_the_counted_channel_and_come_back(qam: int) -> None:
    modem = LdpcModem(ModernScheme(qam=qam, rate=0.5), 1, 200)
    message = np.random.default_rng(0).integers(0, 2, (40, modem.capacity), dtype=np.uint8)
    points = modem.encode(message)
    assert float(points.abs().square().mean()) == pytest.approx(1, abs=0.02)
    link = single_antenna(torch.full((40,), 0.5j), torch.full((40,), 30.0))
    detected = convey(link, points, "literal", make_generator(0))
    found = modem.decode(unbiased(detected), detected.stream_snr_db)
    assert found.ok.all()
    assert (found.message == message).all()


@pytest.mark.parametrize("qam", [*ORDERS, 256])
def test_the_snr_of_a_use_of_modulated_bits_is_the_stated_one(qam: int) -> None:
    modem = LdpcModem(ModernScheme(qam=qam, rate=0.5), 1, 500)
    message = np.random.default_rng(0).integers(0, 2, (400, modem.capacity), dtype=np.uint8)
    points = modem.encode(message)[:, 0]
    sent, gains = torch.ones_like(points, dtype=torch.bool), torch.ones(400, dtype=torch.complex64)
    both = [transmit(of, sent, gains, torch.full((400,), 10.0), make_generator(0)) for of in (points, -points)]
    assert 10 * math.log10(true_snr(*both, sent).mean()) == pytest.approx(10, abs=0.05)
