"""The learned baselines: what they train on, and the language models inside them."""

from collections.abc import Callable

import pytest
import torch
from csi_paths import NARROW, WIDE, noisy, paths
from tiny import generator

from sclmkb.common.csi.sets import CsiShape
from sclmkb.common.errors import UserError
from sclmkb.common.metrics import nmse
from sclmkb.common.models.backbone import Backbone
from sclmkb.common.models.csi.base import FittedPredictor
from sclmkb.common.models.csi.csi_llm import CsiLlm
from sclmkb.common.models.csi.series import SeriesPredictor, to_complex, to_real
from sclmkb.train.engine.checkpoint import trained_tensors

LEARNED = ("gru", "transformer", "llm4cp", "csi_llm")
Build = Callable[..., FittedPredictor]


@pytest.mark.parametrize("kind", LEARNED)
def test_the_future_never_enters_a_prediction(build: Build, kind: str) -> None:
    """Training with another future changes the loss, and no scale: twice the error is four times the loss."""
    predictor = build(kind, rows_per_step=0)
    history, future = noisy(paths(4))
    predicted = predictor.predict(history, 4)
    predictor.losses(history, 7 * future, torch.ones(4), torch.arange(4))
    assert torch.allclose(predictor.predict(history, 4), predicted)
    if kind == "csi_llm":  # it is trained to predict each step from the true ones before
        return
    for target in (future, 2 * future):
        found = predictor.losses(history, target, torch.ones(4), torch.arange(4))
        assert found["nmse"].item() == pytest.approx(nmse(target, predicted).mean().item(), rel=1e-3)
        assert found["loss"].item() == pytest.approx(found["nmse"].item(), rel=1e-3)
    weight = torch.tensor([0.0, 0.0, 4.0, 0.0])
    wanted = nmse(future, predicted)[2].item()
    assert predictor.losses(history, future, weight, torch.arange(4))["loss"].item() == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("chosen", [1, 2, 3, 4, 9])
def test_a_training_step_looks_at_the_rows_that_it_is_told(build: Build, chosen: int) -> None:
    """The loss of a step is the error on the series of its draws, whose mean over all draws is that of all series."""
    history, future = noisy(paths(2))
    some, whole = build("gru", rows_per_step=chosen), build("gru", rows_per_step=0)
    ones = torch.ones(2)
    each = [some.losses(history, future, ones, torch.full((2,), k))["loss"].item() for k in range(NARROW.num_rx)]
    if chosen == 1:
        assert len(set(each)) == NARROW.num_rx
    expected = whole.losses(history, future, ones, torch.zeros(2, dtype=torch.int64))["loss"].item()
    assert sum(each) / len(each) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", LEARNED)
def test_it_learns(build: Build, kind: str) -> None:
    """On a handful of drops that it sees again and again the loss falls, and every trained tensor moves."""
    predictor = build(kind, rows_per_step=2).train()
    history, future = noisy(paths(8, num_paths=2), snr_db=30.0)
    before = {name: p.detach().clone() for name, p in predictor.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in predictor.parameters() if p.requires_grad], lr=5e-3)
    losses = []
    for step in range(40):
        loss = predictor.losses(history, future, torch.ones(8), torch.arange(8) + step)["loss"]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    for name, p in predictor.named_parameters():
        assert torch.equal(p, before[name]) != p.requires_grad, name


@pytest.mark.parametrize("kind", ["llm4cp", "csi_llm"])
def test_stand_ins_and_controls_say_so_and_norms_alone_are_tuned(build: Build, kind: str) -> None:
    gpt2, llama = build(kind), build(kind, lm="llama")
    assert (gpt2.name, llama.name) == (kind, f"{kind}-llama")
    assert build(kind, lm="llama", backbone="random").name == f"{kind}-llama-random"
    assert build(kind, backbone="none").name == f"{kind}-none"
    tokens = torch.randn(2, 5, 64, generator=generator(0))
    untuned = Backbone.load(llama.settings.language_model, num_layers=2)  # type: ignore[union-attr]
    assert torch.allclose(llama.backbone(tokens), untuned(tokens), atol=1e-6)  # type: ignore[operator]
    norms = {"input_layernorm", "post_attention_layernorm", "norm"}
    for predictor, expected in ((gpt2, {"wpe", "ln_1", "ln_2", "ln_f"}), (llama, norms)):
        tuned = [name.split(".") for name in trained_tensors(predictor) if name.startswith("backbone")]
        assert {name[-2] for name in tuned} == expected
        assert {name[-1] for name in tuned} <= {"weight", "gain", "offset"}


def test_prediction_in_parts_is_the_same(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = build("transformer")
    history, _ = noisy(paths(5))
    whole = predictor.predict(history, 4)
    monkeypatch.setattr("sclmkb.common.models.csi.series.AT_ONCE", 300)  # three series of 16·6
    assert torch.allclose(predictor.predict(history, 4), whole, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("lm", ["llama", "gpt2"])
def test_csi_llm_feeds_back_what_it_predicts(build: Build, lm: str) -> None:
    """Predicting step by step with kept state is the same as running the whole sequence again each time."""
    predictor = build("csi_llm", lm=lm)
    assert isinstance(predictor, CsiLlm)
    sequence = past = paths(3)[:, :16, 0]
    for _ in range(4):
        hidden = predictor.backbone(predictor.embed(to_real(sequence)))
        sequence = torch.cat([sequence, to_complex(predictor.project(hidden[:, -1:]))], 1)
    assert torch.allclose(predictor(past), sequence[:, 16:], rtol=1e-3, atol=1e-4)


def test_csi_llm_is_trained_on_every_position_and_none_sees_ahead(build: Build) -> None:
    predictor = build("csi_llm", tune_norms=False)
    assert not any(name.startswith("backbone") for name in trained_tensors(predictor))
    assert isinstance(predictor, CsiLlm)
    h = paths(3)[:, :, 0]
    predicted, wanted = predictor.training_pair(h[:, :16], h[:, 16:])
    assert torch.equal(wanted, h[:, 1:])
    changed = h.clone()
    changed[:, 6:] = 0
    again, _ = predictor.training_pair(changed[:, :16], changed[:, 16:])
    assert torch.allclose(again[:, :6], predicted[:, :6], atol=1e-5)
    assert not torch.allclose(again[:, 6:], predicted[:, 6:], atol=1e-3)


def test_llm4cp_needs_whole_patches(build: Build) -> None:
    with pytest.raises(UserError, match="patch_size 3 does not divide the 16 samples"):
        build("llm4cp", patch_size=3)


@pytest.mark.parametrize("shape", [NARROW, WIDE], ids=["narrow", "wide"])
@pytest.mark.parametrize(("sample", "series", "features"), [("row", 4, 6), ("matrix", 1, 24)])
def test_series_and_back(build: Build, shape: CsiShape, sample: str, series: int, features: int) -> None:
    predictor = build("gru", shape, sample=sample)
    assert isinstance(predictor, SeriesPredictor)
    h = paths(3, shape)
    found = predictor.to_series(h)
    assert found.shape == (3, series, 20, features)
    assert torch.equal(predictor.from_series(found), h)
    if sample == "row" and shape is WIDE:  # rows are subcarriers times receive antennas, subcarriers outermost
        assert torch.equal(found[:, 3, :, 5], h[:, :, 5 * 2 + 1, 1])
    elif sample == "row":
        assert torch.equal(found[:, 3, :, 1], h[:, :, 3, 1])
