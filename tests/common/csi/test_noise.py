"""The noise power that is estimated from a history."""

import pytest
import torch

from sclmkb.common.csi.noise import LEAST_NOISE, estimate_beam_noise_power, estimate_noise_power
from sclmkb.common.csi.tensors import add_pilot_noise, normalise_power


def moving(drops: int, most_doppler: float, seed: int = 0) -> torch.Tensor:
    """Histories of sixteen samples with 40 paths each, 16 × 16, unit power."""
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(drops, 40, 16, dtype=torch.complex64, generator=generator) for _ in "ab")
    doppler = 6.283 * most_doppler * torch.cos(6.283 * torch.rand(drops, 40, generator=generator))
    turn = torch.exp(1j * doppler[:, None] * torch.arange(16)[:, None])
    return normalise_power(torch.einsum("btl,bli,blj->btij", turn, left, right))[0]


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 20.0, 30.0])
@pytest.mark.parametrize("most_doppler", [0.0, 0.05, 0.16])
def test_it_is_within_half_a_decibel(snr_db: float, most_doppler: float) -> None:
    h = moving(20, most_doppler)
    noisy = add_pilot_noise(h, torch.full((20,), snr_db), torch.Generator().manual_seed(1))
    error_db = 10 * torch.log10(estimate_noise_power(noisy)) + snr_db
    assert error_db.abs().max() < 0.7
    assert abs(float(error_db.mean())) < 0.25


def test_it_scales_with_power_and_ignores_phase() -> None:
    noisy = add_pilot_noise(moving(4, 0.1), torch.full((4,), 12.0), torch.Generator().manual_seed(2))
    turned = 3 * torch.exp(torch.tensor(0.4j)) * noisy
    assert torch.allclose(estimate_noise_power(turned), 9 * estimate_noise_power(noisy), rtol=1e-3)


def test_no_noise_and_nothing_at_all_stay_finite() -> None:
    h = moving(3, 0.05)
    found = estimate_noise_power(h)
    power = h.abs().square().mean((1, 2, 3))
    assert (found <= 2 * LEAST_NOISE * power).all()
    assert torch.isfinite(estimate_noise_power(torch.zeros(2, 16, 4, 4, dtype=torch.complex64))).all()


def test_few_antenna_pairs_do_not_break_it() -> None:
    noisy = add_pilot_noise(moving(5, 0.05)[:, :, :2, :2], torch.full((5,), 10.0), torch.Generator().manual_seed(3))
    found = estimate_noise_power(noisy)
    assert torch.allclose(estimate_noise_power(5 * noisy), 25 * found, rtol=1e-2)
    assert ((found > 0) & (found < 1)).all()


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 20.0])
def test_white_noise_is_the_same_on_the_strongest_beams(snr_db: float) -> None:
    noisy = add_pilot_noise(moving(40, 0.1), torch.full((40,), snr_db), torch.Generator().manual_seed(4))
    white = estimate_noise_power(noisy)
    beams = torch.fft.fft2(noisy, norm="ortho")
    assert (estimate_beam_noise_power(beams, white) == white).float().mean() >= 0.9


def test_noise_on_strong_beams_alone_is_found_there() -> None:
    generator = torch.Generator().manual_seed(5)
    h = moving(20, 0.05).flatten(2)[:, :, :40]
    noise = 0.1 * torch.randn(h.shape, dtype=h.dtype, generator=generator)
    beams = torch.nn.functional.pad(h / h.abs().square().mean().sqrt() + noise, (0, 216)).unflatten(2, (16, 16))
    white = estimate_noise_power(beams)
    assert (white < 0.003).all(), "0.01 on 40 of 256 beams"
    assert torch.allclose(estimate_beam_noise_power(beams, white), torch.tensor(0.01), rtol=0.25)


def test_few_beams_and_nothing_at_all_keep_the_estimate() -> None:
    few, nothing = (torch.zeros(2, 16, n, n, dtype=torch.complex64) for n in (4, 16))
    assert torch.equal(estimate_beam_noise_power(few, torch.ones(2)), torch.ones(2))
    assert torch.equal(estimate_beam_noise_power(nothing, estimate_noise_power(nothing)), torch.zeros(2))
