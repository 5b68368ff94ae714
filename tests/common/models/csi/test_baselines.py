"""The learned and fitted baselines, on small antenna arrays and language models with random weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sclmkb.common.csi.sets import CsiShape
from sclmkb.common.csi.tensors import add_pilot_noise, normalise_power
from sclmkb.common.metrics import nmse
from sclmkb.common.models.backbone import Backbone
from sclmkb.common.models.csi.base import CsiPredictor, FittedPredictor, predict_in_batches
from sclmkb.common.models.csi.csi_llm import CsiLlm, CsiLlmSettings
from sclmkb.common.models.csi.global_lmmse import GlobalLmmse, GlobalLmmseSettings
from sclmkb.common.models.csi.gru import Gru, GruSettings
from sclmkb.common.models.csi.llm4cp import Llm4cp, Llm4cpSettings
from sclmkb.common.models.csi.series import SeriesPredictor, to_complex, to_real
from sclmkb.common.models.csi.transformer import Transformer, TransformerSettings
from sclmkb.train.engine.checkpoint import trained_tensors

NARROW = CsiShape(num_history=8, num_future=3, num_rx=4, num_tx=6)
WIDE = CsiShape(num_history=8, num_future=3, num_rx=12, num_tx=2, num_subcarriers=6)
LEARNED = ("gru", "transformer", "llm4cp", "csi_llm")
Build = Callable[..., FittedPredictor]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def exponentials(shape: CsiShape, drops: int, seed: int = 0, num_paths: int = 2) -> torch.Tensor:
    """Sums of complex exponentials over time, [B, T + P, Nr, Nt], histories of unit power."""
    g = generator(seed)
    amplitudes = torch.randn(drops, num_paths, shape.num_rx, shape.num_tx, dtype=torch.complex64, generator=g)
    doppler = 0.4 * torch.cos(6.283 * torch.rand(drops, num_paths, generator=g))
    turn = torch.exp(1j * doppler[:, None] * torch.arange(shape.num_history + shape.num_future)[:, None])
    return normalise_power(torch.einsum("btl,blij->btij", turn, amplitudes), shape.num_history)[0]


def split(h: torch.Tensor, shape: CsiShape, snr_db: float = 15.0) -> tuple[torch.Tensor, torch.Tensor]:
    clean, future = h[:, : shape.num_history], h[:, shape.num_history :]
    return add_pilot_noise(clean, torch.full((len(h),), snr_db), generator(1)), future


@pytest.fixture(scope="module")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a GPT-2 with random weights: 2 layers, 32 wide, 96 words, 32 positions."""
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config(vocab_size=96, n_positions=32, n_embd=32, n_layer=2, n_head=2))
    folder = tmp_path_factory.mktemp("lm") / "tiny-gpt2"
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def build(tiny_lm: Path, tiny_gpt2: Path) -> Build:
    """Return what builds a small predictor of a kind."""
    folders = {"llama": tiny_lm, "gpt2": tiny_gpt2}

    def make(
        kind: str, shape: CsiShape = NARROW, *, lm: str = "gpt2", seed: int = 0, **options: Any
    ) -> FittedPredictor:
        g = generator(seed)
        if kind == "global_lmmse":
            return GlobalLmmse(GlobalLmmseSettings(), shape)
        if kind == "gru":
            return Gru(GruSettings(**{"hidden": 24, **options}), shape, generator=g)
        if kind == "transformer":
            sizes = {"width": 16, "num_heads": 2, "num_encoder_layers": 1, "num_decoder_layers": 1}
            return Transformer(TransformerSettings(**{**sizes, **options}), shape, generator=g)
        chosen = options.pop("backbone", "pretrained")
        common = {"language_model": str(folders[lm]), "backbone": chosen, "num_layers": 2}
        backbone = Backbone.load(str(folders[lm]), num_layers=2, kind=chosen)
        if kind == "llm4cp":
            sizes = {"num_channels": 4, "num_blocks": 1}
            return Llm4cp(Llm4cpSettings(**{**common, **sizes, **options}), shape, backbone=backbone, generator=g)
        return CsiLlm(CsiLlmSettings(**{**common, **options}), shape, backbone=backbone, generator=g)

    return make


@pytest.mark.parametrize("kind", [*LEARNED, "global_lmmse"])
@pytest.mark.parametrize("shape", [NARROW, WIDE], ids=["narrow", "wide"])
def test_what_every_predictor_does(build: Build, kind: str, shape: CsiShape) -> None:
    predictor = build(kind, shape)
    predictor.fit_statistics(exponentials(shape, 50, seed=9), (10.0, 20.0), generator())
    assert isinstance(predictor, CsiPredictor)
    assert predictor.has_gradients == (kind != "global_lmmse")
    assert all(p.dtype == torch.float32 for p in predictor.parameters())
    history, future = split(exponentials(shape, 5), shape)
    predicted = predictor.predict(history, shape.num_future)
    assert predicted.shape == future.shape
    assert torch.isfinite(torch.view_as_real(predicted)).all()
    # at any scale
    for scale in (1e-6, 3e5):
        scaled = predictor.predict(scale * history, shape.num_future)
        assert torch.allclose(scaled / scale, predicted, rtol=1e-3, atol=1e-4)
    # each drop by itself
    alone = predict_in_batches(predictor, history, shape.num_future, batch_size=2)
    assert torch.allclose(alone, predicted, rtol=1e-3, atol=1e-4)
    other = torch.cat([history[:1], 100 * history[1:].flip(0)])
    assert torch.allclose(predictor.predict(other, shape.num_future)[0], predicted[0], rtol=1e-3, atol=1e-4)
    # of other sizes: refused
    with pytest.raises(ValueError, match="num_future = 3, not 2"):
        predictor.predict(history, 2)
    with pytest.raises(ValueError, match="num_history = 8, not 7"):
        predictor.predict(history[:, 1:], 3)


@pytest.mark.parametrize("kind", LEARNED)
def test_no_global_random_numbers_and_the_same_weights_from_the_same_generator(build: Build, kind: str) -> None:
    history, future = split(exponentials(NARROW, 4), NARROW)
    before = torch.random.get_rng_state()
    predictor = build(kind)
    predictor.train()
    first, second = (predictor.losses(history, future, torch.ones(4), torch.arange(4))["loss"] for _ in "ab")
    assert torch.equal(first, second)
    assert torch.equal(before, torch.random.get_rng_state())
    same, other = build(kind).state_dict(), build(kind, seed=1).state_dict()
    mine = predictor.state_dict()
    assert all(torch.equal(mine[name], same[name]) for name in mine)
    assert not all(torch.equal(mine[name], other[name]) for name in mine)


@pytest.mark.parametrize("kind", LEARNED)
def test_the_future_never_enters_a_prediction(build: Build, kind: str) -> None:
    """Training with another future changes the loss, and no scale: twice the error is four times the loss."""
    predictor = build(kind, rows_per_step=0)
    history, future = split(exponentials(NARROW, 4), NARROW)
    predicted = predictor.predict(history, 3)
    predictor.losses(history, 7 * future, torch.ones(4), torch.arange(4))
    assert torch.allclose(predictor.predict(history, 3), predicted)
    if kind == "csi_llm":  # it is trained to predict each step from the true ones before
        return
    for target in (future, 2 * future):
        found = predictor.losses(history, target, torch.ones(4), torch.arange(4))
        assert found["nmse"].item() == pytest.approx(nmse(target, predicted).mean().item(), rel=1e-3)
        assert found["loss"].item() == pytest.approx(found["nmse"].item(), rel=1e-3)
    weight = torch.tensor([0.0, 0.0, 4.0, 0.0])
    wanted = nmse(future, predicted)[2].item()
    assert predictor.losses(history, future, weight, torch.arange(4))["loss"].item() == pytest.approx(wanted, rel=1e-3)


def test_a_training_step_looks_at_the_rows_that_it_is_told(build: Build) -> None:
    """The loss of a step is the error on the series of its draws, whose mean over all draws is that of all series."""
    history, future = split(exponentials(NARROW, 2), NARROW)
    some, whole = build("gru", rows_per_step=1), build("gru", rows_per_step=0)
    whole.load_state_dict(some.state_dict())
    ones = torch.ones(2)
    each = [some.losses(history, future, ones, torch.full((2,), k))["loss"].item() for k in range(NARROW.num_rx)]
    assert len(set(each)) == NARROW.num_rx
    expected = whole.losses(history, future, ones, torch.zeros(2, dtype=torch.int64))["loss"].item()
    assert sum(each) / len(each) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", LEARNED)
def test_it_learns(build: Build, kind: str) -> None:
    """On a handful of drops that it sees again and again the loss falls, and every trained tensor moves."""
    predictor = build(kind, rows_per_step=2).train()
    history, future = split(exponentials(NARROW, 8), NARROW, 30.0)
    parameters = {name: p for name, p in predictor.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in predictor.named_parameters()}
    optimizer = torch.optim.AdamW(parameters.values(), lr=5e-3)
    losses = []
    for step in range(40):
        loss = predictor.losses(history, future, torch.ones(8), torch.arange(8) + step)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    for name, p in predictor.named_parameters():
        assert torch.equal(p, before[name]) != p.requires_grad, name


@pytest.mark.parametrize("kind", [*LEARNED, "global_lmmse"])
def test_what_training_keeps_restores_it(build: Build, kind: str) -> None:
    """The trained tensors and an equal backbone give the same predictions."""
    first, second = build(kind), build(kind, seed=5)
    h = exponentials(NARROW, 30)
    history, future = split(h[:4], NARROW)
    first.fit_statistics(h, (10.0, 20.0), generator())
    if first.has_gradients:
        optimizer = torch.optim.SGD([p for p in first.parameters() if p.requires_grad], lr=0.1)
        first.losses(history, future, torch.ones(4), torch.arange(4))["loss"].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    predicted = first.predict(history, 3)
    assert not torch.allclose(second.predict(history, 3), predicted)
    kept = trained_tensors(first)
    missing, unexpected = second.load_state_dict(kept, strict=False)
    assert not unexpected
    assert torch.equal(second.predict(history, 3), predicted)
    assert all("backbone" in name for name in missing)
    if kind in ("llm4cp", "csi_llm"):
        tuned = {name for name in kept if name.startswith("backbone")}
        assert {name.split(".")[-2] for name in tuned} == {"wpe", "ln_1", "ln_2", "ln_f"}
        assert {name.split(".")[-1] for name in tuned} == {"weight", "gain", "offset"}
        assert any("attn" in name for name in missing)
        assert not any("words" in name for name in kept)


@pytest.mark.parametrize("kind", ["llm4cp", "csi_llm"])
def test_stand_ins_and_controls_say_so(build: Build, kind: str) -> None:
    assert build(kind).name == kind
    assert build(kind, lm="llama").name == f"{kind}-llama"
    assert build(kind, lm="llama", backbone="random").name == f"{kind}-llama-random"
    assert build(kind, backbone="none").name == f"{kind}-none"
    stand_in = build(kind, lm="llama")
    tokens = torch.randn(2, 5, 64, generator=generator())
    untuned = Backbone.load(stand_in.settings.language_model, num_layers=2)  # type: ignore[union-attr]
    assert torch.allclose(stand_in.backbone(tokens), untuned(tokens), atol=1e-6)  # type: ignore[operator]
    tuned = {name.split(".")[-2] for name in trained_tensors(stand_in) if name.startswith("backbone")}
    assert tuned == {"input_layernorm", "post_attention_layernorm", "norm"}


def test_the_backbone_takes_gpt2(tiny_gpt2: Path) -> None:
    """It is GPT-2's own computation, and random weights have GPT-2's own form."""
    from transformers import GPT2LMHeadModel

    whole = GPT2LMHeadModel.from_pretrained(tiny_gpt2).eval()
    tokens = torch.randn(2, 7, 32, generator=generator())
    backbone = Backbone.load(str(tiny_gpt2), num_layers=2)
    assert backbone.architecture == "gpt2"
    assert torch.allclose(backbone(tokens), whole.transformer(inputs_embeds=tokens).last_hidden_state, atol=1e-5)
    first = Backbone.load(str(tiny_gpt2), num_layers=1)
    assert not torch.allclose(first(tokens), backbone(tokens), atol=1e-2)
    drawn = dict(Backbone.load(str(tiny_gpt2), num_layers=1, kind="random").named_parameters())
    for name, parameter in drawn.items():
        if parameter.ndim == 1:
            assert (parameter == (0 if name.endswith("bias") else 1)).all(), name


def test_prediction_in_parts_is_the_same(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = build("transformer")
    history, _ = split(exponentials(NARROW, 5), NARROW)
    whole = predictor.predict(history, 3)
    monkeypatch.setattr("sclmkb.common.models.csi.series.AT_ONCE", 150)  # three series of 8·6
    assert torch.allclose(predictor.predict(history, 3), whole, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("lm", ["llama", "gpt2"])
def test_csi_llm_feeds_back_what_it_predicts(build: Build, lm: str) -> None:
    """Predicting step by step with kept state is the same as running the whole sequence again each time."""
    predictor = build("csi_llm", lm=lm)
    assert isinstance(predictor, CsiLlm)
    past = exponentials(NARROW, 3)[:, :8, 0]
    sequence = past
    for _ in range(3):
        hidden = predictor.backbone(predictor.embed(to_real(sequence)))
        sequence = torch.cat([sequence, to_complex(predictor.project(hidden[:, -1:]))], 1)
    assert torch.allclose(predictor(past), sequence[:, 8:], rtol=1e-3, atol=1e-4)


def test_csi_llm_is_trained_on_every_position_and_none_sees_ahead(build: Build) -> None:
    predictor = build("csi_llm")
    assert isinstance(predictor, CsiLlm)
    h = exponentials(NARROW, 3)[:, :, 0]
    predicted, wanted = predictor.training_pair(h[:, :8], h[:, 8:])
    assert torch.equal(wanted, h[:, 1:])
    changed = h.clone()
    changed[:, 6:] = 0
    again, _ = predictor.training_pair(changed[:, :8], changed[:, 8:])
    assert torch.allclose(again[:, :6], predicted[:, :6], atol=1e-5)
    assert not torch.allclose(again[:, 6:], predicted[:, 6:], atol=1e-3)


def test_frozen_csi_llm(build: Build) -> None:
    frozen = build("csi_llm", tune_norms=False)
    assert not any(name.startswith("backbone") for name in trained_tensors(frozen))


def test_llm4cp_needs_whole_patches(build: Build) -> None:
    with pytest.raises(ValueError, match="patch_size 3 does not divide the 8 samples"):
        build("llm4cp", patch_size=3)


@pytest.mark.parametrize(
    ("shape", "sample", "series", "features"),
    [(NARROW, "row", 4, 6), (NARROW, "matrix", 1, 24), (WIDE, "row", 4, 6), (WIDE, "matrix", 1, 24)],
)
def test_series_and_back(build: Build, shape: CsiShape, sample: str, series: int, features: int) -> None:
    predictor = build("gru", shape, sample=sample)
    assert isinstance(predictor, SeriesPredictor)
    h = exponentials(shape, 3)
    found = predictor.to_series(h)
    assert found.shape == (3, series, 11, features)
    assert torch.equal(predictor.from_series(found), h)
    if sample == "row" and shape is WIDE:  # rows are subcarriers times receive antennas, subcarriers outermost
        assert torch.equal(found[:, 3, :, 5], h[:, :, 5 * 2 + 1, 1])
    elif sample == "row":
        assert torch.equal(found[:, 3, :, 1], h[:, :, 3, 1])


@pytest.mark.parametrize(("chosen", "looked_at"), [(1, 1), (2, 2), (3, 3), (4, 4), (0, 4), (9, 4)])
def test_a_step_looks_at_other_rows_of_each_drop(build: Build, chosen: int, looked_at: int) -> None:
    predictor = build("gru", rows_per_step=chosen)
    assert isinstance(predictor, SeriesPredictor)
    draws = torch.randint(2**31, (60,), generator=generator())
    rows = predictor._rows(draws)
    assert rows.shape == (60, looked_at)
    assert all(len(set(row)) == looked_at for row in rows.tolist())
    assert all(5 < int((rows[:, 0] == row).sum()) < 30 for row in range(4))
    assert torch.equal(predictor._rows(draws[10:20]), rows[10:20])  # wherever in a batch


@pytest.mark.parametrize("noise", [0.0, 0.1, 1.0])
def test_global_lmmse_is_the_wiener_filter_of_a_known_process(noise: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """An autoregressive process of order one, covariance ρ^|s-t|: the error is what the theory says."""
    rho, shape = 0.9, CsiShape(num_history=6, num_future=2, num_rx=40, num_tx=40)
    drops = 30
    draws = torch.randn(drops, 8, 40, 40, dtype=torch.complex64, generator=generator())
    h = draws[:, :1]
    for t in range(1, 8):
        h = torch.cat([h, rho * h[:, -1:] + (1 - rho**2) ** 0.5 * draws[:, t : t + 1]], 1)
    lmmse = GlobalLmmse(GlobalLmmseSettings(), shape)
    lmmse.fit_statistics(h, (10.0, 20.0), generator())
    lags = torch.arange(8)
    covariance = rho ** (lags[:, None] - lags).abs().double()
    assert torch.allclose(lmmse.covariance, covariance, atol=0.01)
    past, cross = covariance[:6, :6] + noise * torch.eye(6, dtype=torch.float64), covariance[:6, 6:]
    expected = 1 - (cross * torch.linalg.solve(past, cross)).sum(0)
    if noise == 0:
        assert torch.allclose(expected, 1 - rho ** (2 * torch.arange(1, 3).double()))
    history = h[:, :6] + noise**0.5 * torch.randn(h[:, :6].shape, dtype=torch.complex64, generator=generator(1))
    # a process without a band leaves no room for noise to show itself: tell the filter how much there is
    share = max(noise / (1 + noise), 1e-6)
    where = "sclmkb.common.models.csi.global_lmmse.estimate_noise_power"
    monkeypatch.setattr(where, lambda unit: torch.full((len(unit),), share))
    predicted = lmmse.predict(history, 2)
    error = (predicted - h[:, 6:]).abs().square().mean((0, 2, 3)).double()
    assert torch.allclose(error, expected, rtol=0.03)


def test_global_lmmse_turns_with_the_phase_and_beats_persistence_in_noise() -> None:
    h = exponentials(NARROW, 400)
    lmmse = GlobalLmmse(GlobalLmmseSettings(), NARROW)
    lmmse.fit_statistics(h[:300], (10.0, 20.0), generator())
    history, future = split(h[300:], NARROW, 10.0)
    turn = torch.exp(torch.tensor(0.7j))
    predicted = lmmse.predict(history, 3)
    assert torch.allclose(lmmse.predict(turn * history, 3), turn * predicted, rtol=1e-3, atol=1e-4)
    stale = history[:, -1:].expand(-1, 3, -1, -1)
    assert nmse(future, predicted).mean() < 0.5 * nmse(future, stale).mean()


@pytest.mark.parametrize("kind", [*LEARNED, "global_lmmse"])
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(build: Build, kind: str) -> None:
    history, _ = split(exponentials(NARROW, 4), NARROW)
    predictor = build(kind)
    predicted = predictor.predict(history, 3)
    on_device = predictor.cuda().predict(history.cuda(), 3)
    assert on_device.is_cuda
    assert torch.allclose(on_device.cpu(), predicted, rtol=1e-2, atol=1e-3)
