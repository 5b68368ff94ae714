import pytest
import torch

from sclmkb.common.csi.sets import CsiShape
from sclmkb.common.csi.tensors import EigenBeams, add_pilot_noise, normalise_power
from sclmkb.common.metrics import nmse
from sclmkb.common.models.csi.ar import AutoRegression
from sclmkb.common.models.csi.base import CsiPredictor, predict_in_batches
from sclmkb.common.models.csi.lmmse import (
    NUM_BINS,
    EigenBeamLmmse,
    LmmseSettings,
    WienerBank,
    beam_snr_db,
    grid_position,
)
from sclmkb.common.models.csi.persistence import Persistence

NUM_HISTORY, NUM_FUTURE = 16, 4


def rays(drops: int, seed: int = 0, num_paths: int = 4, antennas: int = 4) -> torch.Tensor:
    """Sums of complex exponentials of unit power, [B, 20, 4, 4]."""
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(drops, num_paths, antennas, dtype=torch.complex64, generator=generator) for _ in "ab")
    doppler = 0.3 * torch.cos(6.283 * torch.rand(drops, num_paths, generator=generator))
    turn = torch.exp(1j * doppler[:, None] * torch.arange(NUM_HISTORY + NUM_FUTURE)[:, None])
    h = torch.einsum("btl,bli,blj->btij", turn, left, right)
    return normalise_power(h)[0]


@pytest.fixture(scope="module")
def bank() -> WienerBank:
    return WienerBank(NUM_HISTORY, NUM_FUTURE).fit(rays(300, seed=7), (5.0, 25.0), torch.Generator().manual_seed(0))


@pytest.fixture(params=["persistence", "ar", "lmmse"])
def predictor(request: pytest.FixtureRequest, bank: WienerBank) -> CsiPredictor:
    return {"persistence": Persistence(), "ar": AutoRegression(), "lmmse": lmmse(bank)}[request.param]


def lmmse(bank: WienerBank) -> EigenBeamLmmse:
    shape = CsiShape(num_history=NUM_HISTORY, num_future=NUM_FUTURE, num_rx=4, num_tx=4)
    predictor = EigenBeamLmmse(LmmseSettings(), shape)
    predictor.bank = bank
    return predictor


def noisy(h: torch.Tensor, snr_db: float = 15.0) -> torch.Tensor:
    snr = torch.full((len(h),), snr_db)
    return add_pilot_noise(h[:, :NUM_HISTORY], snr, torch.Generator().manual_seed(1))


def test_prediction_turns_with_phase_and_scales(predictor: CsiPredictor) -> None:
    history = noisy(rays(5))
    turn = 2.5 * torch.exp(torch.tensor(0.7j))
    predicted = predictor.predict(history, NUM_FUTURE)
    assert predicted.shape == (5, NUM_FUTURE, 4, 4)
    assert torch.allclose(predictor.predict(turn * history, NUM_FUTURE), turn * predicted, rtol=1e-3, atol=1e-3)


def test_each_sample_is_predicted_for_itself(predictor: CsiPredictor) -> None:
    history = noisy(rays(7))
    whole = predictor.predict(history, NUM_FUTURE)
    parts = predict_in_batches(predictor, history, NUM_FUTURE, batch_size=3)
    assert torch.allclose(whole, parts, rtol=1e-3, atol=1e-3)


def test_persistence_repeats_the_last_noisy_sample() -> None:
    history = noisy(rays(3))
    predicted = Persistence().predict(history, NUM_FUTURE)
    for step in range(NUM_FUTURE):
        assert torch.equal(predicted[:, step], history[:, -1])


@pytest.mark.parametrize("num_paths", [1, 2])
def test_ar_is_exact_on_noiseless_exponentials(num_paths: int) -> None:
    t = torch.arange(NUM_HISTORY + NUM_FUTURE)
    frequencies = torch.tensor([0.25, -0.9])[:num_paths]
    left = torch.randn(2, num_paths, 4, dtype=torch.complex64)
    right = torch.randn(2, num_paths, 4, dtype=torch.complex64)
    turn = torch.exp(1j * frequencies * t[:, None])
    h = torch.einsum("tl,bli,blj->btij", turn, left, right)
    predicted = AutoRegression(order=4, ridge=1e-7).predict(h[:, :NUM_HISTORY], NUM_FUTURE)
    assert (nmse(h[:, NUM_HISTORY:], predicted) < 1e-4).all()


def test_ar_does_not_depend_on_the_antenna_basis() -> None:
    history = noisy(rays(4))
    beams = EigenBeams.of(history)
    direct = AutoRegression().predict(history, NUM_FUTURE)
    through = beams.from_beams(AutoRegression().predict(beams.to_beams(history), NUM_FUTURE))
    assert torch.allclose(direct, through, rtol=1e-2, atol=1e-3)


def test_ar_is_the_least_squares_solution() -> None:
    history = noisy(rays(1))
    order, horizon = 3, 2
    series = history[0].flatten(1)
    rows = torch.cat([series[i : i + order].T for i in range(NUM_HISTORY - order - horizon + 1)])
    wanted = torch.cat([series[i + order + horizon - 1] for i in range(NUM_HISTORY - order - horizon + 1)])
    taps = torch.linalg.lstsq(rows, wanted[:, None]).solution
    predicted = AutoRegression(order, ridge=0.0).predict(history, horizon)[0, horizon - 1]
    assert torch.allclose(predicted.flatten(), (series[-order:].T @ taps)[:, 0], rtol=1e-3, atol=1e-3)


def test_ar_refuses_a_history_that_is_too_short() -> None:
    with pytest.raises(ValueError, match="needs 12 history samples, got 11"):
        AutoRegression(8).predict(torch.zeros(1, 11, 2, 2, dtype=torch.complex64), 4)


def test_order_of_the_classical_predictors_on_noisy_channels(bank: WienerBank) -> None:
    h = rays(200, seed=3)
    history = noisy(h, 10.0)
    scores = [
        float(nmse(h[:, NUM_HISTORY:], p.predict(history, NUM_FUTURE)).mean())
        for p in (lmmse(bank), AutoRegression(), Persistence())
    ]
    assert max(scores[:2]) < scores[2]
    assert scores[0] < 0.2


def test_bank_shrinks_what_is_noise_and_keeps_what_is_not(bank: WienerBank) -> None:
    strongest = bank.filters.abs().sum((1, 2))
    assert strongest[0] < strongest[NUM_BINS // 2]
    constant = torch.ones(1, NUM_HISTORY, 1, 1, dtype=torch.complex64)
    assert bank(constant, torch.tensor([1e-3])).abs().mean() == pytest.approx(1, abs=0.25)


def test_snr_estimate_and_grid() -> None:
    series = torch.ones(1, 1, NUM_HISTORY, dtype=torch.complex64) * (0.1 + 0.001) ** 0.5
    assert beam_snr_db(series, torch.tensor([0.001])).item() == pytest.approx(20, abs=1e-3)
    index, share = grid_position(torch.tensor([-100.0, -16.0, -15.0, 500.0]))
    assert index.tolist() == [0, 0, 0, NUM_BINS - 2]
    assert share[:3].tolist() == [0.0, 0.0, 0.5]


def test_bank_refuses_other_lengths(bank: WienerBank) -> None:
    with pytest.raises(ValueError, match="built for num_history = 16, not 12"):
        lmmse(bank).predict(torch.zeros(1, 12, 4, 4, dtype=torch.complex64), 4)
