import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.csi.sets import CsiSet, iter_csi, load_csi, load_predicted
from sclmkb.common.errors import UserError
from sclmkb.common.metrics import nmse
from sclmkb.common.models.csi.ar import AutoRegression
from sclmkb.common.models.csi.base import predict_in_batches
from sclmkb.common.models.csi.cdg.model import Cdg
from sclmkb.common.models.csi.cdg.settings import CdgSettings
from sclmkb.common.models.csi.gru import GruSettings
from sclmkb.common.models.csi.lmmse import LmmseSettings
from sclmkb.common.models.csi.persistence import Persistence
from sclmkb.common.models.csi.zoo import build_predictor, save_predictor
from sclmkb.generate.csi import predict as stage
from sclmkb.generate.csi.predict import PredictSettings, plan_predicted


@pytest.fixture(scope="module")
def csi(tmp_path_factory: pytest.TempPathFactory, write_path_csi: Callable[..., Path]) -> Path:
    return write_path_csi(tmp_path_factory.mktemp("csi") / "csi")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_lm: Path, csi: Path) -> tuple[Path, Cdg]:
    """A checkpoint whose statistics are fitted and whose last layers are random, as after training."""
    settings = CdgSettings(
        language_model=str(tiny_lm), num_layers=1, num_prototypes=8, num_words=50, num_directions=2, width=16,
        num_heads=2, hidden=24,
    )  # fmt: skip
    train = load_csi(csi, "train")
    model = build_predictor(settings, train.shape, seed=0)
    assert isinstance(model, Cdg)
    clean = torch.cat([train.clean_history, train.future], 1)
    model.fit_statistics(clean, (8.0, 22.0), torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(1)
    for head in (model.head, model.refiner):
        assert head is not None
        torch.nn.init.normal_(head.last.weight, std=0.05, generator=draw)
    tensors = {n: t for n, t in model.state_dict().items() if not n.startswith("backbone")}
    root = tmp_path_factory.mktemp("checkpoint") / "cdg"
    save_predictor(root, model, seed=0, settings={"model": settings.fingerprint_fields()}, tensors=tensors, info={})
    return root, model.eval()


def measures(root: Path, split: str = "test") -> dict[str, torch.Tensor]:
    columns = ["nmse", "nmse_persistence", "nmse_ar", "pilot_snr_db"]
    table = Artifact.open(root, "predicted").table("predicted", split, columns)
    return {name: torch.tensor(table[name].to_pylist()) for name in columns}


def predictors(root: Path) -> set[str]:
    return set(Artifact.open(root, "predicted").table("predicted")["predictor"].to_pylist())


def test_every_split_is_predicted_with_its_measures(
    csi: Path, trained: tuple[Path, Cdg], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkpoint, model), root = trained, tmp_path / "predicted"
    plan_predicted(PredictSettings(threads=1), csi, checkpoint, root).run_here()
    assert predictors(root) == {"cdg"}
    for split in ("train", "val", "test"):
        drops, (drop_ids, predicted), found = load_csi(csi, split), load_predicted(root, split), measures(root, split)
        assert drop_ids == drops.drop_ids
        # In the stage's batches: in float32, how many drops share one moves a prediction in the fourth digit.
        batches = [predict_in_batches(model, shard.history, 4) for _, shard in iter_csi(csi, split)]
        assert torch.allclose(predicted, torch.cat(batches), atol=1e-5)
        assert torch.allclose(found["nmse"], nmse(drops.future, predicted), rtol=1e-4)
        for name, predictor in (("nmse_persistence", Persistence()), ("nmse_ar", AutoRegression())):
            assert torch.allclose(found[name], nmse(drops.future, predictor.predict(drops.history, 4)), rtol=1e-3)
        assert torch.equal(found["pilot_snr_db"], drops.pilot_snr_db)
    said = capsys.readouterr().err
    assert "test split, 12 drops: cdg / persistence / AR(8)" in said
    assert "pilot SNR 10 dB" in said
    assert "pilot SNR 20 dB" in said


def test_any_fitted_predictor_predicts(csi: Path, tmp_path: Path) -> None:
    train = load_csi(csi, "train")
    for settings in (LmmseSettings(), GruSettings(hidden=8)):
        model = build_predictor(settings, train.shape, seed=0)
        model.fit_statistics(torch.cat([train.clean_history, train.future], 1), (8.0, 22.0), torch.Generator())
        root, out = tmp_path / settings.kind, tmp_path / f"{settings.kind}-predicted"
        fields, tensors = {"model": settings.model_dump()}, model.state_dict()
        save_predictor(root, model, seed=0, settings=fields, tensors=tensors, info={})
        plan_predicted(PredictSettings(threads=1), csi, root, out).run_here()
        assert predictors(out) == {settings.kind}
        with torch.no_grad():
            wanted = model.predict(load_csi(csi, "test").history, 4)
        assert torch.allclose(load_predicted(out, "test")[1], wanted, atol=1e-4)


@pytest.mark.parametrize("predictor", ["persistence", "ar", "checkpoint"])
def test_prediction_cannot_peek_at_the_future(
    trained: tuple[Path, Cdg], tmp_path: Path, write_path_csi: Callable[..., Path], predictor: str
) -> None:
    """Another future, however strong, changes no predicted byte; classical predictors need no checkpoint."""
    settings, outs = PredictSettings(predictor=predictor, threads=1), [tmp_path / "a", tmp_path / "b"]  # type: ignore
    for out, scale in zip(outs, (1.0, 50.0), strict=True):
        csi = write_path_csi(tmp_path / f"csi{scale}", future_scale=scale, sizes=(4, 4, 4))
        plan_predicted(settings, csi, trained[0] if predictor == "checkpoint" else None, out).run_here()
    quiet, loud = (load_predicted(out, "test")[1] for out in outs)
    assert torch.equal(quiet, loud)
    found, other = (measures(out) for out in outs)
    assert not torch.equal(found["nmse"], other["nmse"])
    if predictor != "checkpoint":
        assert predictors(outs[0]) == {predictor}
        assert torch.equal(found["nmse"], found[f"nmse_{predictor}"])


def test_memory_does_not_grow_with_the_shards(
    trained: tuple[Path, Cdg], tmp_path: Path, write_path_csi: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    csi = write_path_csi(tmp_path / "csi", sizes=(60, 5, 5), shard_size=5)
    read, seen, alive = stage.csi_shard, weakref.WeakSet(), []

    def watched(*args: object) -> CsiSet:
        gc.collect()
        alive.append(len(seen))
        drops = read(*args)  # type: ignore[arg-type]
        seen.add(drops.history)
        return drops

    monkeypatch.setattr(stage, "csi_shard", watched)
    plan_predicted(PredictSettings(threads=1), csi, trained[0], tmp_path / "predicted").run_here()
    assert len(alive) == 1 + 14, "one for its shape"
    assert max(alive) <= 1, "no more than the shard before is still held"


def test_bad_input_is_a_user_error(
    csi: Path, trained: tuple[Path, Cdg], tmp_path: Path, write_path_csi: Callable[..., Path]
) -> None:
    settings, out = PredictSettings(threads=1), tmp_path / "predicted"
    with pytest.raises(UserError, match="needs --checkpoint"):
        plan_predicted(settings, csi, None, out)
    with pytest.raises(UserError, match="no split 'night', only train, val, test"):
        plan_predicted(PredictSettings(predictor="ar", splits=("night",)), csi, None, out)
    unfit = [
        ({"antennas": 6}, r"num_rx = 4, the CSI in .* has 6"),
        ({"num_history": 18}, r"num_history = 16, the CSI in .* has 18"),
        ({"num_future": 2}, r"num_future = 4, the CSI in .* has 2"),
        ({"num_history": 10}, r"AR\(8\) needs 12 history samples, .* has 10"),
    ]
    for number, (changes, message) in enumerate(unfit):
        with pytest.raises(UserError, match=message):
            plan_predicted(settings, write_path_csi(tmp_path / str(number), **changes), trained[0], out)
    assert not out.exists()
    silent = write_path_csi(tmp_path / "zero", zero_in="history")
    with pytest.raises(UserError, match="'history' of drop train-47 is zero everywhere"):
        plan_predicted(settings, silent, trained[0], out).run_here()
