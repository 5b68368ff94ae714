"""Persistence, autoregression and Wiener filters, against what theory says of them."""

import pytest
import torch
from csi_paths import NARROW, noisy, paths
from tiny import generator

from sclmkb.common.csi.sets import CsiShape
from sclmkb.common.csi.tensors import EigenBeams
from sclmkb.common.metrics import nmse
from sclmkb.common.models.csi.ar import AutoRegression
from sclmkb.common.models.csi.global_lmmse import GlobalLmmse, GlobalLmmseSettings
from sclmkb.common.models.csi.lmmse import NUM_BINS, EigenBeamLmmse, LmmseSettings, beam_snr_db, grid_position
from sclmkb.common.models.csi.persistence import Persistence


@pytest.fixture(scope="module")
def lmmse() -> EigenBeamLmmse:
    predictor = EigenBeamLmmse(LmmseSettings(), NARROW)
    predictor.fit_statistics(paths(300, seed=7), (5.0, 25.0), generator(0))
    return predictor


def test_persistence_repeats_the_last_noisy_sample() -> None:
    history, _ = noisy(paths(3))
    assert torch.equal(Persistence().predict(history, 4), history[:, -1:].expand(-1, 4, -1, -1))


@pytest.mark.parametrize("num_paths", [1, 2])
def test_ar_is_exact_on_noiseless_exponentials(num_paths: int) -> None:
    h = paths(2, num_paths=num_paths)
    predicted = AutoRegression(order=4, ridge=1e-7).predict(h[:, :16], 4)
    assert (nmse(h[:, 16:], predicted) < 1e-4).all()


def test_ar_does_not_depend_on_the_antenna_basis() -> None:
    history, _ = noisy(paths(4))
    beams = EigenBeams.of(history)
    through = beams.from_beams(AutoRegression().predict(beams.to_beams(history), 4))
    assert torch.allclose(AutoRegression().predict(history, 4), through, rtol=1e-2, atol=1e-3)


def test_ar_is_the_least_squares_solution() -> None:
    history, _ = noisy(paths(1))
    order, horizon = 3, 2
    series = history[0].flatten(1)
    starts = range(16 - order - horizon + 1)
    rows = torch.cat([series[i : i + order].T for i in starts])
    wanted = torch.cat([series[i + order + horizon - 1] for i in starts])
    taps = torch.linalg.lstsq(rows, wanted[:, None]).solution
    predicted = AutoRegression(order, ridge=0.0).predict(history, horizon)[0, horizon - 1]
    assert torch.allclose(predicted.flatten(), (series[-order:].T @ taps)[:, 0], rtol=1e-3, atol=1e-3)


def test_ar_refuses_a_history_that_is_too_short() -> None:
    with pytest.raises(ValueError, match="needs 12 history samples, got 11"):
        AutoRegression(8).predict(torch.zeros(1, 11, 2, 2, dtype=torch.complex64), 4)


def test_order_of_the_classical_predictors_on_noisy_channels(lmmse: EigenBeamLmmse) -> None:
    whole = GlobalLmmse(GlobalLmmseSettings(), NARROW)
    whole.fit_statistics(paths(300, seed=7), (5.0, 25.0), generator(0))
    history, future = noisy(paths(200, seed=3), snr_db=10.0)
    predictors = (lmmse, whole, AutoRegression(), Persistence())
    beams, filtered, ar, stale = (float(nmse(future, p.predict(history, 4)).mean()) for p in predictors)
    assert max(beams, ar, 2 * filtered) < stale
    assert beams < 0.2


def test_bank_shrinks_what_is_noise_and_keeps_what_is_not(lmmse: EigenBeamLmmse) -> None:
    strongest = lmmse.bank.filters.abs().sum((1, 2))
    assert strongest[0] < strongest[NUM_BINS // 2]
    constant = torch.ones(1, 16, 1, 1, dtype=torch.complex64)
    assert lmmse.bank(constant, torch.tensor([1e-3])).abs().mean() == pytest.approx(1, abs=0.25)


def test_snr_estimate_and_grid() -> None:
    series = torch.ones(1, 1, 16, dtype=torch.complex64) * (0.1 + 0.001) ** 0.5
    assert beam_snr_db(series, torch.tensor([0.001])).item() == pytest.approx(20, abs=1e-3)
    index, share = grid_position(torch.tensor([-100.0, -16.0, -15.0, 500.0]))
    assert index.tolist() == [0, 0, 0, NUM_BINS - 2]
    assert share[:3].tolist() == [0.0, 0.0, 0.5]


@pytest.mark.parametrize("noise", [0.0, 0.1, 1.0])
def test_global_lmmse_is_the_wiener_filter_of_a_known_process(noise: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """An autoregressive process of order one, covariance ρ^|s-t|: the error is what the theory says."""
    rho, shape = 0.9, CsiShape(num_history=6, num_future=2, num_rx=40, num_tx=40)
    draws = torch.randn(30, 8, 40, 40, dtype=torch.complex64, generator=generator(0))
    h = draws[:, :1]
    for t in range(1, 8):
        h = torch.cat([h, rho * h[:, -1:] + (1 - rho**2) ** 0.5 * draws[:, t : t + 1]], 1)
    lmmse = GlobalLmmse(GlobalLmmseSettings(), shape)
    lmmse.fit_statistics(h, (10.0, 20.0), generator(0))
    lags = torch.arange(8)
    covariance = rho ** (lags[:, None] - lags).abs().double()
    assert torch.allclose(lmmse.covariance, covariance, atol=0.01)
    past, cross = covariance[:6, :6] + noise * torch.eye(6, dtype=torch.float64), covariance[:6, 6:]
    expected = 1 - (cross * torch.linalg.solve(past, cross)).sum(0)
    history = h[:, :6] + noise**0.5 * torch.randn(h[:, :6].shape, dtype=torch.complex64, generator=generator(1))
    # a process without a band leaves no room for noise to show itself: tell the filter how much there is
    share = max(noise / (1 + noise), 1e-6)
    where = "sclmkb.common.models.csi.global_lmmse.estimate_noise_power"
    monkeypatch.setattr(where, lambda unit: torch.full((len(unit),), share))
    error = (lmmse.predict(history, 2) - h[:, 6:]).abs().square().mean((0, 2, 3)).double()
    assert torch.allclose(error, expected, rtol=0.03)
