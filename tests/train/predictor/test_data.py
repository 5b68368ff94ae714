from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sclmkb.common.csi.sets import load_csi
from sclmkb.common.csi.tensors import normalise_power
from sclmkb.common.errors import UserError
from sclmkb.train.predictor.data import draw_batch, load_training_data

WriteCsi = Callable[..., Path]


def test_histories_have_unit_power_and_the_future_is_scaled_along(tmp_path: Path, write_path_csi: WriteCsi) -> None:
    data = load_training_data([write_path_csi(tmp_path / "csi", sizes=(30, 5, 5))], 1)
    assert data.clean.shape == (30, 20, 4, 4)
    assert torch.allclose(data.clean[:, :16].abs().square().mean((1, 2, 3)), torch.ones(30), atol=1e-5)
    assert len(data.val[0]) == 5


def test_normalisation_cannot_peek_at_the_future(tmp_path: Path, write_path_csi: WriteCsi) -> None:
    """Another future, however strong, changes nothing of what a predictor sees."""
    near, far = (
        load_training_data([write_path_csi(tmp_path / f"csi{scale}", future_scale=scale)], 1) for scale in (1.0, 50.0)
    )
    assert torch.equal(near.clean[:, :16], far.clean[:, :16])
    assert torch.allclose(50 * near.clean[:, 16:], far.clean[:, 16:])
    batches = [draw_batch(data, 24, (8, 22), torch.Generator().manual_seed(0), reverse=False) for data in (near, far)]
    assert torch.equal(batches[0][0], batches[1][0])
    assert torch.equal(near.val[0].history, far.val[0].history)


def test_reversed_histories_have_unit_power_too(tmp_path: Path, write_path_csi: WriteCsi) -> None:
    data = load_training_data([write_path_csi(tmp_path / "csi")], 1)
    history, _, _ = draw_batch(data, 200, (90, 90), torch.Generator().manual_seed(0))
    assert torch.allclose(history.abs().square().mean((1, 2, 3)), torch.ones(200), atol=1e-3)


def test_stored_histories_are_taken_as_they_are(tmp_path: Path, write_path_csi: WriteCsi) -> None:
    root = write_path_csi(tmp_path / "csi")
    data, train = load_training_data([root], 1, stored=True), load_csi(root, "train")
    scale = normalise_power(train.clean_history)[1]
    stored, futures = train.history / scale, train.future / scale
    history, future, snr_db = draw_batch(data, 16, (8, 22), torch.Generator().manual_seed(0))
    for one, label, snr in zip(history, future, snr_db, strict=True):
        distance, row = torch.stack([stored - one, stored - one.conj()]).abs().flatten(2).sum(2).min(1)
        side = int(distance.argmin())
        assert distance[side] < 1e-3
        wanted = futures[row[side]]
        assert torch.allclose(label, wanted.conj() if side else wanted, atol=1e-5)
        assert snr == train.pilot_snr_db[row[side]]


def test_several_artifacts_are_joined(tmp_path: Path, write_path_csi: WriteCsi) -> None:
    roots = [write_path_csi(tmp_path / name, sizes=(size, 4, 4)) for name, size in (("a", 30), ("b", 27))]
    data = load_training_data(roots, 1)
    assert len(data.clean) == 57
    assert [len(drops) for drops in data.val] == [4, 4]
    assert torch.equal(data.clean[:30], load_training_data(roots[:1], 1).clean)


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_drop_of_training_and_of_another_split_is_refused(
    tmp_path: Path, write_path_csi: WriteCsi, split: str
) -> None:
    within = write_path_csi(tmp_path / "within", prefixes={split: "train"})
    with pytest.raises(UserError, match=rf"drop train-0 is in the train split .* {split} split .*12 drops"):
        load_training_data([within], 1)
    good = write_path_csi(tmp_path / "good")
    other = write_path_csi(tmp_path / "other", prefixes={"train": "x", split: "train"})
    load_training_data([other], 1)
    with pytest.raises(UserError, match=rf"train split of .*good and in the {split} split of .*other"):
        load_training_data([good, other], 1)


def test_bad_csi_is_a_user_error(tmp_path: Path, write_path_csi: WriteCsi) -> None:
    good = write_path_csi(tmp_path / "good")
    with pytest.raises(UserError, match="'future' of drop val-11 is NaN"):
        load_training_data([write_path_csi(tmp_path / "nan", nan_in="future")], 1)
    with pytest.raises(UserError, match="'clean_history' of drop val-11 is zero everywhere"):
        load_training_data([write_path_csi(tmp_path / "zero", zero_in="clean_history")], 1)
    with pytest.raises(UserError, match=r"wide has num_rx = 6, .*good has 4: train on CSI of one shape"):
        load_training_data([good, write_path_csi(tmp_path / "wide", antennas=6)], 1)
    with pytest.raises(UserError, match=r"48 training drops take 0\.0 GB, max_data_gb is 1e-06"):
        load_training_data([good], 1e-6)
