import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sclmkb.common.channel.csi import load_csi
from sclmkb.common.errors import UserError
from sclmkb.common.metrics import mean_nmse_db, nmse
from sclmkb.common.models.csi.cdg_checkpoint import build_cdg, load_cdg
from sclmkb.train.cdg import CdgTrainer, CdgTrainSettings, train_cdg


@pytest.fixture(scope="module")
def csi(tmp_path_factory: pytest.TempPathFactory, write_path_csi: Callable[..., Path]) -> Path:
    return write_path_csi(tmp_path_factory.mktemp("csi") / "csi")


@pytest.fixture
def settings(tiny_lm: Path) -> CdgTrainSettings:
    return CdgTrainSettings(
        language_model=str(tiny_lm), num_layers=1, num_prototypes=8, num_words=50, num_directions=2, width=16,
        num_heads=2, hidden=24, num_steps=6, batch_size=8, warmup_steps=1, num_validations=3, save_every=2, threads=1,
    )  # fmt: skip


def make_trainer(settings: CdgTrainSettings, csi: Path) -> CdgTrainer:
    data = {split: load_csi(csi, split) for split in ("train", "val")}
    model = build_cdg(settings.model_settings(), data["train"].shape, settings.seed)
    return CdgTrainer(settings, model, data["train"], data["val"])


def test_loss_starts_at_the_classical_predictor_and_falls(settings: CdgTrainSettings, csi: Path) -> None:
    longer = settings.model_copy(update={"num_steps": 60, "ce_weight": 0.0, "learning_rate": 3e-3})
    trainer = make_trainer(longer, csi)
    assert mean_nmse_db(trainer.validation_nmse()) == pytest.approx(trainer.classical_db, abs=1e-4)
    generator = torch.Generator().manual_seed(99)
    batches = [trainer._batch(generator) for _ in range(10)]
    with torch.no_grad():
        before = sum(float(trainer.losses(*batch)["loss"]) for batch in batches) / 10
    assert before == pytest.approx(1, abs=0.5)
    for index in range(60):
        trainer.step(index)
    with torch.no_grad():
        after = sum(float(trainer.losses(*batch)["loss"]) for batch in batches) / 10
    assert after < 0.9 * before


def test_joint_loss_is_nmse_plus_weighted_cross_entropy(settings: CdgTrainSettings, csi: Path) -> None:
    trainer = make_trainer(settings, csi)
    batch = trainer._batch(torch.Generator().manual_seed(0))
    parts = trainer.losses(*batch)
    weights = 10 ** (settings.snr_balance * (batch[2] - 15) / 10)
    output = trainer.model(*batch[::2])
    future = output.beams.from_beams(output.predicted) * output.scale
    expected = (weights * nmse(batch[1], future)).mean() / trainer.reference + settings.ce_weight * parts["ce"]
    assert parts["loss"].item() == pytest.approx(expected.item(), rel=1e-3)
    assert 0.2 < parts["ce"].item() < 3, "about one when nothing is known"
    assert trainer.codes is not None
    assert trainer.codes.shape[0] == settings.num_prototypes
    silent = make_trainer(settings.model_copy(update={"ce_weight": 0.0}), csi)
    assert "ce" not in silent.losses(*batch)


def test_targets_do_not_collapse(settings: CdgTrainSettings, csi: Path) -> None:
    trainer = make_trainer(settings, csi)
    assert trainer.codes is not None
    distances = torch.cdist(trainer.codes, trainer.codes) + 9 * torch.eye(len(trainer.codes))
    assert distances.min() > 1e-3


def test_batches_are_augmented_and_depend_on_the_step_alone(settings: CdgTrainSettings, csi: Path) -> None:
    trainer = make_trainer(settings, csi)
    draws = [trainer._batch(torch.Generator().manual_seed(1)) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*draws, strict=True))
    history, future, snr = trainer._batch(torch.Generator().manual_seed(2))
    assert history.shape[1] == 16
    assert future.shape[1] == 4
    assert snr.min() >= 8
    assert snr.max() <= 22
    stored = torch.cat([trainer.clean, trainer.clean.conj()])
    stored = torch.cat([stored, stored.flip(1)])
    for row in future:
        assert (stored[:, 16:] - row).abs().flatten(1).sum(1).min() < 1e-4


def test_backbone_stays_and_the_rest_moves(settings: CdgTrainSettings, csi: Path) -> None:
    trainer = make_trainer(settings, csi)
    frozen = [p.clone() for p in trainer.model.backbone.parameters()]
    moved = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    for index in range(3):
        trainer.step(index)
    assert all(torch.equal(a, b) for a, b in zip(frozen, trainer.model.backbone.parameters(), strict=True))
    still = [name for name, p in trainer.model.named_parameters() if name in moved and torch.equal(p, moved[name])]
    assert still == []


def test_killed_and_resumed_gives_the_same_weights(
    settings: CdgTrainSettings, csi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_cdg(settings, csi, tmp_path / "whole")
    step = CdgTrainer.step

    def stop(self: CdgTrainer, index: int) -> object:
        if index == 3:
            raise KeyboardInterrupt
        return step(self, index)

    monkeypatch.setattr(CdgTrainer, "step", stop)
    with pytest.raises(KeyboardInterrupt):
        train_cdg(settings, csi, tmp_path / "parts")
    assert not (tmp_path / "parts" / "config.json").exists()
    monkeypatch.undo()
    train_cdg(settings, csi, tmp_path / "parts")
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
    settings: CdgTrainSettings, csi: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_cdg(settings, csi, tmp_path / "cdg")
    model, checkpoint = load_cdg(tmp_path / "cdg")
    assert checkpoint.info["language_model"]["fingerprint"] == model.backbone.fingerprint
    assert not any("backbone" in name for name in checkpoint.tensors)
    val = load_csi(csi, "val")
    ratios = nmse(val.future, model.predict(val.history, val.pilot_snr_db, 4))
    assert checkpoint.info["measurements"]["val_nmse_db"] == pytest.approx(mean_nmse_db(ratios), abs=1e-4)
    assert math.isfinite(checkpoint.info["measurements"]["val_gain_db"])
    train_cdg(settings, csi, tmp_path / "cdg")
    assert "already trained" in capsys.readouterr().err


def test_selection_keeps_the_best_validated_weights(settings: CdgTrainSettings, csi: Path, tmp_path: Path) -> None:
    wild = settings.model_copy(update={"learning_rate": 30.0, "warmup_steps": 0})
    train_cdg(wild, csi, tmp_path / "cdg")
    _, checkpoint = load_cdg(tmp_path / "cdg")
    assert checkpoint.info["measurements"]["best_step"] == 0, "the classical predictor, when training only harms"


@pytest.mark.parametrize(("head", "backbone"), [("direct", "pretrained"), ("soft_token", "random"), ("direct", "none")])
def test_options_of_the_paper_train(
    settings: CdgTrainSettings, csi: Path, tmp_path: Path, head: str, backbone: str
) -> None:
    changed = settings.model_copy(update={"head": head, "backbone": backbone, "num_steps": 2})
    train_cdg(changed, csi, tmp_path / "cdg")
    assert load_cdg(tmp_path / "cdg")[0].settings.backbone == backbone


def test_bad_input_is_a_user_error(
    settings: CdgTrainSettings, csi: Path, tmp_path: Path, write_path_csi: Callable[..., Path]
) -> None:
    out = tmp_path / "cdg"
    with pytest.raises(UserError, match="no csi artifact"):
        train_cdg(settings, tmp_path / "absent", out)
    spoilt = write_path_csi(tmp_path / "nan", nan_in="clean_history")
    with pytest.raises(UserError, match="'clean_history' of drop train-47 is NaN"):
        train_cdg(settings, spoilt, out)
    with pytest.raises(UserError, match="no readable folder"):
        train_cdg(settings.model_copy(update={"language_model": "./absent"}), csi, out)
    assert not out.exists(), "nothing is written before the inputs are read"
    train_cdg(settings, csi, out)
    with pytest.raises(UserError, match=r"learning_rate: 0\.001 there, 0\.5 now"):
        train_cdg(settings.model_copy(update={"learning_rate": 0.5}), csi, out)
    other = write_path_csi(tmp_path / "other", antennas=2)
    with pytest.raises(UserError, match="csi: "):
        train_cdg(settings, other, out)
    with pytest.raises(UserError, match="first value of a range"):
        CdgTrainSettings.resolve(presets="sclmkb.train", section="cdg", overrides=["pilot_snr_db=[20, 10]"])
    with pytest.raises(UserError, match=r"needs 12 history samples, .* has 8: --set ar_order=0"):
        train_cdg(settings, write_path_csi(tmp_path / "short", num_history=8), tmp_path / "short-out")
