import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from sclmkb.common.csi.sets import load_csi
from sclmkb.common.errors import UserError
from sclmkb.common.metrics import mean_nmse_db, nmse
from sclmkb.common.models.csi.base import PREDICTORS
from sclmkb.common.models.csi.cdg.model import Cdg
from sclmkb.common.models.csi.zoo import build_predictor, load_predictor
from sclmkb.common.seeds import make_generator
from sclmkb.train.engine.devices import start_accelerator
from sclmkb.train.predictor.data import draw_batch, load_training_data
from sclmkb.train.predictor.fit import CsiTrainSettings, train_predictor
from sclmkb.train.predictor.trainer import CsiTrainer


@pytest.fixture(scope="module")
def csi(tmp_path_factory: pytest.TempPathFactory, write_path_csi: Callable[..., Path]) -> Path:
    return write_path_csi(tmp_path_factory.mktemp("csi") / "csi")


@pytest.fixture
def settings(tiny_lm: Path) -> CsiTrainSettings:
    return change(
        CsiTrainSettings(num_steps=6, batch_size=8, warmup_steps=1, num_validations=3, save_every=2, threads=1),
        language_model=str(tiny_lm), num_layers=1, num_prototypes=8, num_words=50, num_directions=2, width=16,
        num_heads=2, hidden=24,
    )  # fmt: skip


def change(settings: CsiTrainSettings, *, model: dict[str, Any] | None = None, **changes: object) -> CsiTrainSettings:
    """Return the settings with some changed; those that only the predictor has are changed there."""
    known = settings.model_dump()
    own = {name: value for name, value in changes.items() if name not in known}
    known |= {name: value for name, value in changes.items() if name in known}
    return CsiTrainSettings.model_validate(known | {"model": model or known["model"] | own})


def make_trainer(settings: CsiTrainSettings, *csi: Path) -> CsiTrainer:
    data = load_training_data(csi, settings.max_data_gb)
    model = build_predictor(settings.model, data.shape, settings.seed)
    model.fit_statistics(data.clean, settings.pilot_snr_db, make_generator(settings.seed, "statistics"))
    return CsiTrainer(settings, model, data, start_accelerator(settings.precision))


def cdg_of(trainer: CsiTrainer) -> Cdg:
    assert isinstance(trainer.model, Cdg)
    return trainer.model


def test_loss_starts_at_one_and_a_half_and_falls(settings: CsiTrainSettings, csi: Path) -> None:
    settings = change(settings, num_steps=60, ce_weight=0.0, learning_rate=3e-3)
    trainer = make_trainer(settings, csi)
    generator = torch.Generator().manual_seed(99)
    batches = [trainer.batch(generator) for _ in range(10)]
    with torch.no_grad():
        before = sum(float(trainer.losses(*batch)["loss"]) for batch in batches) / 10
    assert before == pytest.approx(1.5, abs=0.5), "one for the prediction, a half for what it was before its refinement"
    for index in range(60):
        trainer.step(index)
    with torch.no_grad():
        after = sum(float(trainer.losses(*batch)["loss"]) for batch in batches) / 10
    assert after < 0.9 * before


def test_joint_loss_is_robust_nmse_plus_weighted_cross_entropy(settings: CsiTrainSettings, csi: Path) -> None:
    trainer = make_trainer(settings, csi)
    batch = trainer.batch(torch.Generator().manual_seed(0))
    history, future, weight, _ = batch
    parts, model = trainer.losses(*batch), cdg_of(trainer)
    ratios = nmse(future, model.predict(history, 4))
    output = model(history)
    (before,) = output.stages
    stage = nmse(future, output.beams.from_beams(before) * output.scale)
    errors = (weight * torch.log1p(ratios)).mean() + 0.5 * (weight * torch.log1p(stage)).mean()
    expected = errors / model.reference + model.settings.ce_weight * parts["ce"]
    assert parts["loss"].item() == pytest.approx(expected.item(), rel=1e-3)
    assert parts["nmse"].item() == pytest.approx(ratios.mean().item(), rel=1e-3)
    assert 0.2 < parts["ce"].item() < 3, "about one when nothing is known"
    apart = torch.cdist(model.codes, model.codes) + 9 * torch.eye(len(model.codes))
    assert apart.min() > 1e-3, "the targets do not collapse"
    silent = make_trainer(change(settings, ce_weight=0.0), csi)
    assert "ce" not in silent.losses(*batch)


def test_rows_are_drawn_anew_each_step_also_on_stored_histories(csi: Path) -> None:
    """A drop whose stored history never changes shows a series predictor every row in turn."""
    settings = CsiTrainSettings.model_validate(
        {"model": {"kind": "gru", "rows_per_step": 1}, "histories": "stored", "batch_size": 8, "threads": 1}
    )
    data = load_training_data([csi], settings.max_data_gb, stored=True)
    model = build_predictor(settings.model, data.shape, settings.seed)
    trainer = CsiTrainer(settings, model, data, start_accelerator(settings.precision))
    drawn = [trainer.batch(make_generator(0, "step", index))[3] for index in range(20)]
    again = trainer.batch(make_generator(0, "step", 7))[3]
    assert torch.equal(again, drawn[7]), "a step depends on its number alone"
    rows = torch.stack(drawn) % model.num_series
    assert {len(set(column.tolist())) for column in rows.T} == {4}, "each drop of the batch shows all four rows"


def test_a_batch_shared_by_two_processes_gives_the_gradients_of_the_whole(
    settings: CsiTrainSettings, csi: Path
) -> None:
    """What a process computes of a drop depends on no other drop of its share, but for rounding."""
    trainer = make_trainer(settings, csi)
    draw = torch.Generator().manual_seed(3)
    for head in (cdg_of(trainer).head, cdg_of(trainer).refiner):  # as if trained: all layers have gradients
        assert head is not None
        torch.nn.init.normal_(head.last.weight, std=0.05, generator=draw)
    batch = trainer.batch(torch.Generator().manual_seed(0))

    def gradient(*shares: slice) -> tuple[float, torch.Tensor]:
        trainer.model.zero_grad()
        losses = [trainer.losses(*(part[share] for part in batch))["loss"] / len(shares) for share in shares]
        torch.stack(losses).sum().backward()
        found = torch.cat([p.grad.flatten() for p in trainer.parameters if p.grad is not None])
        return float(sum(loss.item() for loss in losses)), found

    whole, halves = gradient(slice(None)), gradient(slice(0, None, 2), slice(1, None, 2))
    assert halves[0] == pytest.approx(whole[0], rel=1e-4)
    assert (halves[1] - whole[1]).norm() < 3e-3 * whole[1].norm()


def test_weights_are_a_power_of_the_snr(settings: CsiTrainSettings, csi: Path) -> None:
    trainer = make_trainer(settings, csi)
    assert trainer.weights(torch.tensor([15.0, 25.0, 5.0])).tolist() == pytest.approx([1, 10**0.5, 10**-0.5])
    _, _, weight, _ = trainer.batch(torch.Generator().manual_seed(2))
    assert weight.min() >= 10 ** (0.5 * -0.7)
    assert weight.max() <= 10 ** (0.5 * 0.7)


def test_batches_are_augmented_and_depend_on_the_generator_alone(settings: CsiTrainSettings, csi: Path) -> None:
    data = load_training_data([csi], 1)
    clean = data.clean
    draws = [draw_batch(data, 8, (8, 22), torch.Generator().manual_seed(1)) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*draws, strict=True))
    history, future, snr = draw_batch(data, 32, (8, 22), torch.Generator().manual_seed(2))
    assert history.shape[1:] == (16, 4, 4)
    assert snr.min() >= 8
    assert snr.max() <= 22
    ways = {"": clean, "*": clean.conj(), "<": clean.flip(1), "*<": clean.conj().flip(1)}

    def found_as(row: torch.Tensor) -> set[str]:
        scaled = {way: h[:, 16:] / h[:, :16].abs().square().mean((1, 2, 3), True).sqrt() for way, h in ways.items()}
        return {way for way, h in scaled.items() if (h - row).abs().flatten(1).sum(1).min() < 1e-4}

    assert all(len(found_as(row)) == 1 for row in future)
    assert set.union(*(found_as(row) for row in future)) == set(ways)
    plain = draw_batch(data, 32, (8, 22), torch.Generator().manual_seed(2), reverse=False, conjugate=False)
    assert set.union(*(found_as(row) for row in plain[1])) == {""}


def test_the_best_validated_weights_are_kept_and_training_stops_early_also_when_resumed(
    settings: CsiTrainSettings, csi: Path, tmp_path: Path, killed: Any
) -> None:
    wild = change(settings, learning_rate=30.0, warmup_steps=0, num_steps=12, num_validations=6, patience=2)
    train_predictor(wild, [csi], tmp_path / "cdg")
    _, checkpoint = load_predictor(tmp_path / "cdg")
    measured = checkpoint.info["measurements"]
    assert measured["best_step"] == 0, "what it started from, when training only harms"
    assert checkpoint.info["steps"] == 4, "two validations, every other step, were no better than the first"
    val = load_csi(csi, "val")
    untrained = build_predictor(settings.model, val.shape, settings.seed)
    untrained.array.copy_(checkpoint.tensors["array"])
    with torch.no_grad():
        start = mean_nmse_db(nmse(val.future, untrained.predict(val.history, 4)))
    assert measured["val_nmse_db"] == pytest.approx(start, abs=1e-4)
    log = [json.loads(line) for line in (tmp_path / "cdg" / "metrics.jsonl").read_text().splitlines()]
    assert (log[0]["step"], log[0]["val_nmse_db"]) == (0, pytest.approx(start, abs=1e-4))
    killed(3, lambda: train_predictor(wild, [csi], tmp_path / "parts"))
    train_predictor(wild, [csi], tmp_path / "parts")
    assert load_predictor(tmp_path / "parts")[1].info["steps"] == 4


def test_curves_hold_what_the_log_holds_also_after_a_resumption(
    settings: CsiTrainSettings, csi: Path, tmp_path: Path, killed: Any
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    killed(3, lambda: train_predictor(settings, [csi], tmp_path / "cdg"))
    train_predictor(settings, [csi], tmp_path / "cdg")
    events = EventAccumulator(str(tmp_path / "cdg" / "tensorboard"))
    events.Reload()
    log = [json.loads(line) for line in (tmp_path / "cdg" / "metrics.jsonl").read_text().splitlines()]
    for name in ("loss", "val_nmse_db"):
        found = {event.step: event.value for event in events.Scalars(name)}
        assert found == pytest.approx({record["step"]: record[name] for record in log if name in record})
        assert len(found) == len(events.Scalars(name)), "no step twice"


def test_bfloat16_trains_about_the_same_in_float32_weights(settings: CsiTrainSettings, csi: Path) -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        trainer = make_trainer(change(settings, precision=precision), csi)
        losses.append([trainer.step(index)["loss"] for index in range(3)])
        assert all(p.dtype == torch.float32 for p in trainer.model.parameters())
        AcceleratorState._reset_state(reset_partial_state=True)
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


@pytest.mark.parametrize("kind", list(PREDICTORS))
def test_every_kind_is_trained_saved_and_loaded(
    settings: CsiTrainSettings,
    csi: Path,
    tmp_path: Path,
    tiny_lm: Path,
    kind: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model: dict[str, Any] = {"kind": kind}
    if kind in ("llm4cp", "csi_llm", "cdg"):
        model |= {"language_model": str(tiny_lm), "num_layers": 1}
    if kind == "cdg":
        model = settings.model.model_dump()
    settings = change(settings, num_steps=2, model=model)
    train_predictor(settings, [csi], tmp_path / kind)
    predictor, checkpoint = load_predictor(tmp_path / kind)
    assert type(predictor) is PREDICTORS[kind]
    assert checkpoint.info["steps"] == (2 if predictor.has_gradients else 0)
    val = load_csi(csi, "val")
    with torch.no_grad():
        measured = mean_nmse_db(nmse(val.future, predictor.predict(val.history, 4)))
    assert checkpoint.info["measurements"]["val_nmse_db"] == pytest.approx(measured, abs=1e-3)
    assert math.isfinite(checkpoint.info["measurements"]["val_gain_db"])
    if kind == "cdg":
        assert checkpoint.info["language_model"]["fingerprint"] == predictor.backbone.fingerprint
        assert not any("backbone" in name for name in checkpoint.tensors)
    train_predictor(settings, [csi], tmp_path / kind)
    assert "already trained" in capsys.readouterr().err


def test_kinds_by_name() -> None:
    def resolve(*overrides: str) -> CsiTrainSettings:
        return CsiTrainSettings.resolve(presets="sclmkb.train", section="cdg", preset="tiny", overrides=overrides)

    assert resolve().model.kind == "cdg"
    assert resolve("model.kind=gru").model.kind == "gru", "what the preset says of cdg is no setting of gru"
    assert resolve("model.num_layers=2").model.model_dump()["width"] == 16
    with pytest.raises(UserError, match=r"cdg\.model' .*'gru', .*'transformer'"):
        resolve("model.kind=lstm")
    with pytest.raises(UserError, match=r"num_directions' does not exist"):
        resolve("model.kind=gru", "model.num_directions=2")


@pytest.mark.parametrize(
    "options",
    [
        {"head": "direct", "backbone": "none"},
        {"cross_attention": False, "backbone": "random"},
        {"num_refinements": 0, "num_mixers": 0},
        {"num_refinements": 2, "num_doppler_words": 11, "max_beams": 3},
    ],
)
def test_options_train_and_come_back(
    settings: CsiTrainSettings, csi: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    train_predictor(change(settings, num_steps=2, **options), [csi], tmp_path / "cdg")
    known = load_predictor(tmp_path / "cdg")[0].settings.model_dump()
    assert {name: known[name] for name in options} == options


def test_bad_input_is_a_user_error(
    settings: CsiTrainSettings, csi: Path, tmp_path: Path, write_path_csi: Callable[..., Path]
) -> None:
    out = tmp_path / "cdg"
    with pytest.raises(UserError, match="no csi artifact"):
        train_predictor(settings, [tmp_path / "absent"], out)
    spoilt = write_path_csi(tmp_path / "nan", nan_in="clean_history")
    with pytest.raises(UserError, match="'clean_history' of drop val-11 is NaN"):
        train_predictor(settings, [spoilt], out)
    with pytest.raises(UserError, match="no readable folder"):
        train_predictor(change(settings, language_model="./absent"), [csi], out)
    assert not out.exists(), "nothing is written before the inputs are read"
    train_predictor(settings, [csi], out)
    with pytest.raises(UserError, match=r"learning_rate: None there, 0\.5 now"):
        train_predictor(change(settings, learning_rate=0.5), [csi], out)
    other = write_path_csi(tmp_path / "other", antennas=2)
    with pytest.raises(UserError, match="csi: "):
        train_predictor(settings, [other], out)
    with pytest.raises(UserError, match="first value of a range"):
        CsiTrainSettings.resolve(presets="sclmkb.train", section="cdg", overrides=["pilot_snr_db=[20, 10]"])
    with pytest.raises(UserError, match=r"'cdg' cannot work with this CSI: it needs 2 history samples, there is 1"):
        train_predictor(settings, [write_path_csi(tmp_path / "short", num_history=1)], tmp_path / "short-out")
    assert not (tmp_path / "short-out").exists()


@pytest.mark.parametrize(("num_history", "num_future", "antennas"), [(2, 3, 4), (8, 4, 4), (4, 1, 1)])
def test_short_histories_and_single_antennas_train(
    settings: CsiTrainSettings,
    tmp_path: Path,
    write_path_csi: Callable[..., Path],
    num_history: int,
    num_future: int,
    antennas: int,
) -> None:
    csi = write_path_csi(tmp_path / "csi", num_history=num_history, num_future=num_future, antennas=antennas)
    train_predictor(change(settings, num_steps=2), [csi], tmp_path / "cdg")
    model, checkpoint = load_predictor(tmp_path / "cdg")
    assert model.shape.num_history == num_history
    assert all(torch.isfinite(tensor).all() for tensor in checkpoint.tensors.values())
    assert math.isfinite(checkpoint.info["measurements"]["val_nmse_db"])
