from pathlib import Path

import pytest
import torch
from torch import nn

from sclmkb.common.artifacts.checkpoints import load_checkpoint, save_checkpoint
from sclmkb.common.errors import UserError


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model = nn.Linear(3, 2)
    save_checkpoint(
        tmp_path, kind="jscc", settings={"width": 3}, tensors=dict(model.state_dict()), info={"val_map": 0.5}
    )
    return tmp_path


def test_a_checkpoint_comes_back(saved: Path) -> None:
    checkpoint = load_checkpoint(saved, "jscc")
    model = nn.Linear(3, 2)
    checkpoint.load_into(model)
    torch.testing.assert_close(model.state_dict(), checkpoint.tensors, rtol=0, atol=0)
    assert (checkpoint.settings, checkpoint.info) == ({"width": 3}, {"val_map": 0.5})


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(4, 2), r"'weight' is \[2, 3\], the model needs \[2, 4\]"),
        (nn.Linear(3, 2, bias=False), "'bias' is unknown"),
        (nn.Sequential(nn.Linear(3, 2)), r"is missing.*and 3 more"),
    ],
)
def test_tensors_that_do_not_fit_are_named(model: nn.Module, message: str, saved: Path) -> None:
    with pytest.raises(UserError, match=message):
        load_checkpoint(saved, "jscc").load_into(model)


def test_frozen_parameters_need_not_be_there(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3).requires_grad_(False), nn.Linear(3, 2))
    frozen = model[0].weight.clone()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    save_checkpoint(tmp_path, kind="cdg", settings={}, tensors=trained)
    load_checkpoint(tmp_path, "cdg").load_into(model)
    torch.testing.assert_close(model[0].weight, frozen)


def test_bad_checkpoints_are_named(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no cdg checkpoint"):
        load_checkpoint(saved, "cdg")
    with pytest.raises(UserError, match=r"no cdg checkpoint at .*train it with sclmkb-train cdg"):
        load_checkpoint(tmp_path / "nowhere", "cdg")
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(UserError, match="corrupt checkpoint"):
        load_checkpoint(saved, "jscc")
