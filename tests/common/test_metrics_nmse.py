import math

import pytest
import torch
from beartype import beartype
from jaxtyping import jaxtyped

from sclmkb.common import metrics

nmse = jaxtyped(typechecker=beartype)(metrics.nmse)


def channels(seed: int = 0) -> torch.Tensor:
    return torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.complex64)


def test_truth_is_zero_and_no_prediction_is_zero_db() -> None:
    h = channels()
    assert torch.equal(nmse(h, h), torch.zeros(6))
    assert torch.allclose(nmse(h, torch.zeros_like(h)), torch.ones(6))
    assert metrics.mean_nmse_db(nmse(h, torch.zeros_like(h))) == pytest.approx(0, abs=1e-6)


def test_scale_and_phase_leave_it_as_it_is() -> None:
    h, predicted = channels(), channels(1)
    turn = 3 * torch.exp(torch.tensor(1.3j))
    assert torch.allclose(nmse(turn * h, turn * predicted), nmse(h, predicted), rtol=1e-4)


def test_decibels_are_of_the_mean_never_the_mean_of_decibels() -> None:
    ratios = torch.tensor([1.0, 0.01])
    assert metrics.mean_nmse_db(ratios) == pytest.approx(10 * math.log10(0.505), abs=1e-5)
    assert metrics.mean_nmse_db(ratios) != pytest.approx(-10, abs=0.1)


def test_bins_are_the_values_if_few_and_intervals_if_many() -> None:
    ratios = torch.tensor([0.1, 0.1, 0.01, 0.01])
    few = metrics.nmse_by_snr_db(ratios, torch.tensor([10.0, 10.0, 20.0, 20.0]))
    assert list(few) == ["10 dB", "20 dB"]
    assert few["20 dB"] == (2, pytest.approx(-20, abs=1e-4))
    many = metrics.nmse_by_snr_db(torch.full((30,), 0.1), torch.linspace(8, 21.9, 30))
    assert list(many) == ["5 to 10 dB", "10 to 15 dB", "15 to 20 dB", "20 to 25 dB"]
    assert sum(count for count, _ in many.values()) == 30
