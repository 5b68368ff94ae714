import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from sclmkb.common.csi.sets import load_csi
from sclmkb.common.errors import UserError
from sclmkb.common.metrics import mean_nmse_db, nmse
from sclmkb.common.models.csi.base import PREDICTORS
from sclmkb.common.models.csi.cdg.model import Cdg
from sclmkb.common.models.csi.persistence import Persistence
from sclmkb.common.models.csi.zoo import build_predictor, load_predictor
from sclmkb.common.seeds import make_generator
from sclmkb.train.engine.devices import start_accelerator
from sclmkb.train.predictor.data import draw_batch, load_training_data
from sclmkb.train.predictor.fit import CsiTrainSettings, train_predictor
from sclmkb.train.predictor.trainer import CsiTrainer


@pytest.fixture(autouse=True)
def _fresh_accelerator() -> Iterator[None]:
    """Let each test choose its precision: Accelerate keeps one state a process."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


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


def test_loss_starts_at_a_filter_of_one_fixed_spectrum_and_falls(settings: CsiTrainSettings, csi: Path) -> None:
    settings = change(settings, num_steps=60, ce_weight=0.0, learning_rate=3e-3)
    trainer = make_trainer(settings, csi)
    start = trainer.validation_nmse()
    val = trainer.data.val[0]
    other = build_predictor(settings.model, trainer.data.shape, settings.seed + 1)  # other weights, no codes
    other.array.copy_(trainer.model.array)
    assert torch.equal(start, nmse(val.future, other.predict(val.history, 4)))
    assert start.mean() < nmse(val.future, Persistence().predict(val.history, 4)).mean()
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


def test_targets_do_not_collapse(settings: CsiTrainSettings, csi: Path) -> None:
    codes = cdg_of(make_trainer(settings, csi)).codes
    assert (torch.cdist(codes, codes) + 9 * torch.eye(len(codes))).min() > 1e-3


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


def test_backbone_stays_and_the_rest_moves(settings: CsiTrainSettings, csi: Path) -> None:
    trainer = make_trainer(settings, csi)
    backbone = cdg_of(trainer).backbone
    frozen = [p.clone() for p in backbone.parameters()]
    moved = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    for index in range(3):
        trainer.step(index)
    assert all(torch.equal(a, b) for a, b in zip(frozen, backbone.parameters(), strict=True))
    still = [name for name, p in trainer.model.named_parameters() if name in moved and torch.equal(p, moved[name])]
    assert still == []


def kill_at(index: int, monkeypatch: pytest.MonkeyPatch, train: Callable[[], object]) -> None:
    step = CsiTrainer.step

    def stop(self: CsiTrainer, at: int) -> object:
        if at == index:
            raise KeyboardInterrupt
        return step(self, at)

    monkeypatch.setattr(CsiTrainer, "step", stop)
    with pytest.raises(KeyboardInterrupt):
        train()
    monkeypatch.undo()


@pytest.mark.parametrize("kind", ["cdg", "gru"])
def test_killed_and_resumed_gives_the_same_weights(
    settings: CsiTrainSettings, csi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind != "cdg":
        settings = change(settings, model={"kind": kind})
    train_predictor(settings, [csi], tmp_path / "whole")
    kill_at(3, monkeypatch, lambda: train_predictor(settings, [csi], tmp_path / "parts"))
    assert not (tmp_path / "parts" / "config.json").exists()
    train_predictor(settings, [csi], tmp_path / "parts")
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    logs = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "parts")
    ]
    assert logs[0] == logs[1]
    assert logs[0][0]["step"] == 0


def test_checkpoint_names_the_language_model_and_what_was_measured(
    settings: CsiTrainSettings, csi: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_predictor(settings, [csi], tmp_path / "cdg")
    model, checkpoint = load_predictor(tmp_path / "cdg")
    assert checkpoint.info["language_model"]["fingerprint"] == model.backbone.fingerprint
    assert not any("backbone" in name for name in checkpoint.tensors)
    val = load_csi(csi, "val")
    with torch.no_grad():
        ratios = nmse(val.future, model.predict(val.history, 4))
    assert checkpoint.info["measurements"]["val_nmse_db"] == pytest.approx(mean_nmse_db(ratios), abs=1e-4)
    assert math.isfinite(checkpoint.info["measurements"]["val_gain_db"])
    train_predictor(settings, [csi], tmp_path / "cdg")
    assert "already trained" in capsys.readouterr().err


def test_selection_keeps_the_best_validated_weights(settings: CsiTrainSettings, csi: Path, tmp_path: Path) -> None:
    wild = change(settings, learning_rate=30.0, warmup_steps=0)
    train_predictor(wild, [csi], tmp_path / "cdg")
    _, checkpoint = load_predictor(tmp_path / "cdg")
    assert checkpoint.info["measurements"]["best_step"] == 0, "what it started from, when training only harms"
    val = load_csi(csi, "val")
    untrained = build_predictor(settings.model, val.shape, settings.seed)
    untrained.array.copy_(checkpoint.tensors["array"])
    with torch.no_grad():
        start = mean_nmse_db(nmse(val.future, untrained.predict(val.history, 4)))
    assert checkpoint.info["measurements"]["val_nmse_db"] == pytest.approx(start, abs=1e-4)
    log = [json.loads(line) for line in (tmp_path / "cdg" / "metrics.jsonl").read_text().splitlines()]
    assert log[0]["step"] == 0
    assert log[0]["val_nmse_db"] == pytest.approx(start, abs=1e-4)


def test_early_stopping_and_its_resumption(
    settings: CsiTrainSettings, csi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wild = change(settings, learning_rate=30.0, warmup_steps=0, num_steps=12, num_validations=6, patience=2)
    train_predictor(wild, [csi], tmp_path / "cdg")
    _, checkpoint = load_predictor(tmp_path / "cdg")
    assert checkpoint.info["steps"] == 4, "two validations, every other step, were no better than the first"
    kill_at(3, monkeypatch, lambda: train_predictor(wild, [csi], tmp_path / "parts"))
    train_predictor(wild, [csi], tmp_path / "parts")
    assert load_predictor(tmp_path / "parts")[1].info["steps"] == 4


def test_curves_hold_what_the_log_holds_also_after_a_resumption(
    settings: CsiTrainSettings, csi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    kill_at(3, monkeypatch, lambda: train_predictor(settings, [csi], tmp_path / "cdg"))
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
    settings: CsiTrainSettings, csi: Path, tmp_path: Path, tiny_lm: Path, kind: str
) -> None:
    model: dict[str, Any] = {"kind": kind}
    if kind in ("llm4cp", "csi_llm", "cdg"):
        model |= {"language_model": str(tiny_lm), "num_layers": 1}
    if kind == "cdg":
        model = settings.model.model_dump()
    train_predictor(change(settings, num_steps=2, model=model), [csi], tmp_path / kind)
    predictor, checkpoint = load_predictor(tmp_path / kind)
    assert type(predictor) is PREDICTORS[kind]
    assert checkpoint.info["steps"] == (2 if predictor.has_gradients else 0)
    val = load_csi(csi, "val")
    with torch.no_grad():
        measured = mean_nmse_db(nmse(val.future, predictor.predict(val.history, 4)))
    assert checkpoint.info["measurements"]["val_nmse_db"] == pytest.approx(measured, abs=1e-3)


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


def command(settings: CsiTrainSettings, csi: Path, out: Path) -> list[str]:
    config = out.with_suffix(".yaml")
    config.write_text(yaml.safe_dump({"cdg": settings.model_dump(mode="json")}))
    return ["-m", "sclmkb.train.cli", "cdg", "--csi", str(csi), "--config", str(config), "--out", str(out)]


@pytest.mark.long
def test_a_killed_process_goes_on_bit_for_bit(settings: CsiTrainSettings, csi: Path, tmp_path: Path) -> None:
    longer = change(settings, num_steps=200, save_every=2)
    process = subprocess.Popen([sys.executable, *command(longer, csi, tmp_path / "parts")], stderr=subprocess.DEVNULL)
    while not (tmp_path / "parts" / "state.safetensors").exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "parts" / "config.json").exists(), "killed before the end"
    for name in ("parts", "whole"):
        subprocess.run(
            [sys.executable, *command(longer, csi, tmp_path / name)], check=True, timeout=300, capture_output=True
        )
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert (tmp_path / "whole" / "metrics.jsonl").read_text() == (tmp_path / "parts" / "metrics.jsonl").read_text()


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(settings: CsiTrainSettings, csi: Path, tmp_path: Path) -> None:
    # All rows at every step: otherwise a drop's place in its process's share of the batch says which ones.
    settings = change(settings, model={"kind": "gru", "hidden": 16, "rows_per_step": 0})
    train_predictor(settings, [csi], tmp_path / "one")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = [*launch, *command(settings, csi, tmp_path / "two")]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("checkpoint in") == 1, "one process speaks for both"
    logs = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert len(logs[0]) == len(logs[1])
    for one, two in zip(*logs, strict=True):
        assert two == pytest.approx(one, rel=1e-4)
    assert logs[0] != logs[1], "gradients were added up in another order"


@pytest.mark.parametrize(
    "options",
    [
        {"head": "direct"},
        {"backbone": "random"},
        {"head": "direct", "backbone": "none"},
        {"cross_attention": False},
        {"num_refinements": 0, "num_mixers": 0},
        {"num_refinements": 2, "num_doppler_words": 11},
        {"max_beams": 3},
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
