import json
from pathlib import Path

import pytest
import torch
from torch import nn

from sclmkb.common.errors import UserError
from sclmkb.train.engine.checkpoint import TrainingRun, TrainingState, trained_tensors


class Net(nn.Module):
    """A frozen layer, a trained one, batch statistics."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.frozen = nn.Linear(4, width).requires_grad_(False)
        self.trained = nn.Sequential(nn.BatchNorm1d(width), nn.Linear(width, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.trained(torch.tanh(self.frozen(x)))


def make_state(width: int = 8, companion: str = "head") -> TrainingState:
    net, head = Net(width), nn.Linear(2, 2)
    parameters = [p for p in (*net.parameters(), *head.parameters()) if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    return TrainingState(module=net, optimizer=optimizer, scheduler=scheduler, companions={companion: head})


def train(state: TrainingState, until: int) -> None:
    while state.step < until:
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(state.step))
        loss = (state.companions["head"](state.module(x)) - x[:, :2]).square().mean()
        state.optimizer.zero_grad()
        loss.backward()
        state.optimizer.step()
        state.scheduler.step()
        state.step += 1
        state.notes["loss"] = loss.item()


def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path: Path) -> None:
    whole = make_state()
    train(whole, 9)

    first = make_state()
    train(first, 4)
    first.tensors["best"] = torch.arange(3.0)
    first.save(tmp_path / "state.safetensors")
    resumed = make_state()
    assert resumed.restore(tmp_path / "state.safetensors")
    assert resumed.step == 4
    assert resumed.notes == first.notes
    assert torch.equal(resumed.tensors["best"], torch.arange(3.0))
    train(resumed, 9)

    for one, other in ((whole.module, resumed.module), (whole.companions["head"], resumed.companions["head"])):
        assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())
    assert whole.optimizer.state_dict()["param_groups"] == resumed.optimizer.state_dict()["param_groups"]
    assert whole.notes == resumed.notes


def test_state_leaves_the_frozen_weights_out_and_the_live_tensors_alone(tmp_path: Path) -> None:
    state = make_state()
    assert not any(name.startswith("frozen") for name in trained_tensors(state.module))
    assert "trained.0.running_mean" in trained_tensors(state.module)
    path = tmp_path / "state.safetensors"
    assert not state.restore(path)
    train(state, 1)
    state.save(path)
    train(state, 2)
    again = make_state()
    again.restore(path)
    assert again.step == 1


def test_state_of_another_shape_and_corrupt_state_are_user_errors(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    make_state(8).save(path)
    with pytest.raises(UserError, match="another shape"):
        make_state(6).restore(path)
    with pytest.raises(UserError, match="another program version"):
        make_state(companion="other").restore(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="corrupt training state"):
        make_state(8).restore(path)


def test_run_refuses_another_configuration_and_new_run_sets_it_aside(tmp_path: Path) -> None:
    root = tmp_path / "run"
    TrainingRun.open(root, kind="cdg", settings={"lr": 0.1}, inputs={"csi": "a"})
    TrainingRun.open(root, kind="cdg", settings={"lr": 0.1}, inputs={"csi": "a"})
    with pytest.raises(UserError, match=r"lr: 0\.1 there, 0\.2 now"):
        TrainingRun.open(root, kind="cdg", settings={"lr": 0.2}, inputs={"csi": "a"})
    with pytest.raises(UserError, match="csi: 'a' there, 'b' now"):
        TrainingRun.open(root, kind="cdg", settings={"lr": 0.1}, inputs={"csi": "b"})
    TrainingRun.open(root, kind="cdg", settings={"lr": 0.2}, inputs={"csi": "a"}, new_run=True)
    assert (tmp_path / "run.old-1" / "plan.json").exists()
    TrainingRun.open(root, kind="cdg", settings={"lr": 0.2}, inputs={"csi": "a"}, new_run=True)
    assert not (tmp_path / "run.old-2").exists(), "the same run is resumed"
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="not empty"):
        TrainingRun.open(other, kind="cdg", settings={}, inputs={})


def test_metrics_rewind_drops_what_is_made_again(tmp_path: Path) -> None:
    run = TrainingRun.open(tmp_path / "run", kind="cdg", settings={}, inputs={})
    for step in (1, 2, 3):
        run.log({"step": step, "loss": 1 / step})
    with (run.root / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    run.rewind_metrics(2)
    lines = (run.root / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    assert not run.finished
