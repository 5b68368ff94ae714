"""What every CSI predictor keeps to, on small antenna arrays."""

from collections.abc import Callable

import pytest
import torch
from csi_paths import NARROW, WIDE, noisy, paths
from tiny import generator

from sclmkb.common.csi.sets import CsiShape
from sclmkb.common.models.csi.ar import AutoRegression
from sclmkb.common.models.csi.base import PREDICTORS, CsiPredictor, FittedPredictor, predict_in_batches
from sclmkb.common.models.csi.persistence import Persistence

TRAINED = ("gru", "transformer", "llm4cp", "csi_llm", "cdg")
FITTED = (*TRAINED, "lmmse", "global_lmmse")
TURNING = ("persistence", "ar", "lmmse", "global_lmmse", "cdg")
"""Kinds whose predictions turn with the phase of the history."""
Build = Callable[..., FittedPredictor]


def fitted(build: Build, kind: str, shape: CsiShape = NARROW) -> CsiPredictor:
    if kind in ("persistence", "ar"):
        return Persistence() if kind == "persistence" else AutoRegression()
    predictor = build(kind, shape)
    predictor.fit_statistics(paths(50, shape, seed=9), (10.0, 20.0), generator(0))
    return predictor.eval()


def test_no_kind_is_left_out() -> None:
    assert set(FITTED) == set(PREDICTORS)


@pytest.mark.parametrize("kind", [*FITTED, "persistence", "ar"])
@pytest.mark.parametrize("shape", [NARROW, WIDE], ids=["narrow", "wide"])
@torch.no_grad()
def test_what_every_predictor_does(build: Build, kind: str, shape: CsiShape) -> None:
    predictor = fitted(build, kind, shape)
    assert isinstance(predictor, CsiPredictor)
    history, future = noisy(paths(5, shape), shape)
    predicted = predictor.predict(history, shape.num_future)
    assert predicted.shape == future.shape
    assert torch.isfinite(torch.view_as_real(predicted)).all()
    for turn in (1e-6, 3e5, *([2.5 * torch.exp(torch.tensor(0.7j))] if kind in TURNING else [])):
        turned = predictor.predict(turn * history, shape.num_future)
        assert torch.allclose(turned / turn, predicted, rtol=1e-3, atol=1e-3)
    # each drop by itself
    alone = predict_in_batches(predictor, history, shape.num_future, batch_size=2)
    assert torch.allclose(alone, predicted, rtol=1e-3, atol=1e-3)
    other = torch.cat([history[:1], 100 * history[1:].flip(0)])
    assert torch.allclose(predictor.predict(other, shape.num_future)[0], predicted[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", FITTED)
def test_other_sizes_than_it_was_built_for_are_refused(build: Build, kind: str) -> None:
    predictor, (history, _) = build(kind), noisy(paths(2))
    assert predictor.has_gradients == (kind in TRAINED)
    assert all(p.dtype == torch.float32 for p in predictor.parameters())
    with pytest.raises(ValueError, match="built for num_future = 4, not 2"):
        predictor.predict(history, 2)
    with pytest.raises(ValueError, match="built for num_history = 16, not 15"):
        predictor.predict(history[:, 1:], 4)


@pytest.mark.parametrize("kind", ["gru", "transformer", "llm4cp", "csi_llm"])
def test_no_global_random_numbers_and_the_same_weights_from_the_same_seed(build: Build, kind: str) -> None:
    history, future = noisy(paths(4))
    before = torch.random.get_rng_state()
    predictor = build(kind).train()
    first, second = (predictor.losses(history, future, torch.ones(4), torch.arange(4))["loss"] for _ in "ab")
    assert torch.equal(first, second)
    assert torch.equal(before, torch.random.get_rng_state())
    mine, same, other = (build(kind, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(mine[name], same[name]) for name in mine)
    assert not all(torch.equal(mine[name], other[name]) for name in mine)


@pytest.mark.parametrize("kind", FITTED)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(build: Build, kind: str) -> None:
    history, _ = noisy(paths(4))
    predictor = fitted(build, kind)
    assert isinstance(predictor, FittedPredictor)
    predicted = predictor.predict(history, 4)
    on_device = predictor.cuda().predict(history.cuda(), 4)
    assert on_device.is_cuda
    assert torch.allclose(on_device.cpu(), predicted, rtol=1e-2, atol=1e-3)
