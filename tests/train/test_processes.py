"""Trainings that are interrupted: killed and resumed, by several processes, stopped together, on another number."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file

from sclmkb.common.config import Settings
from sclmkb.common.console import Terminated
from sclmkb.common.errors import UserError
from sclmkb.common.tasks.trained import JsccSettings
from sclmkb.train.engine import loop
from sclmkb.train.engine.checkpoint import TrainingRun
from sclmkb.train.predictor.fit import CsiTrainSettings, train_predictor
from sclmkb.train.semantic.fit import train_jscc
from sclmkb.train.semantic.inputs import JsccInputs

SIGNALLED = """
import os, signal, sys
from sclmkb.train import cli
from sclmkb.train.engine import loop
before, process = int(sys.argv[1]), sys.argv[2]
del sys.argv[1:3]
asked, calls = loop.in_any_process, 0
def asking(accelerator, here):
    global calls
    calls += 1
    if calls == before and os.environ["RANK"] == process:
        os.kill(os.getpid(), signal.SIGUSR1)
    return asked(accelerator, here)
loop.in_any_process = asking
cli.main()
"""
"""Trains, and gets a signal to stop before a step, but only in one process."""


class Training(NamedTuple):
    """A kind of training: how it is set, how it runs in this process, and the arguments of its command."""

    settings: Callable[..., Settings]
    train: Callable[[Any, Path], Path]
    inputs: Sequence[str]

    def command(self, settings: Settings, out: Path) -> list[str]:
        config = out.with_suffix(".yaml")
        config.write_text(yaml.safe_dump({self.inputs[0]: settings.model_dump(mode="json")}))
        return [*self.inputs, "--config", str(config), "--out", str(out)]


@pytest.fixture
def jscc(jscc_settings: Any, jscc_inputs: Callable[[Any], JsccInputs], jscc_cache: None, tiny_artifacts: Any) -> Any:
    artifacts = {name: getattr(tiny_artifacts, name) for name in ("corpus", "csi", "sdg", "predicted")}
    given = [x for name, path in artifacts.items() for x in (f"--{name}", str(path))]

    def train(settings: JsccSettings, out: Path) -> Path:
        return train_jscc(settings, jscc_inputs(settings), out)

    return Training(jscc_settings, train, ["jscc", *given])


@pytest.fixture
def cdg(tiny_lm: Path, tiny_artifacts: Any) -> Training:
    def settings(*overrides: str, **options: Any) -> CsiTrainSettings:
        model = overrides or [f"model.language_model={tiny_lm}"]
        options = {"num_steps": 6, "save_every": 2} | options
        return CsiTrainSettings.resolve(
            presets="sclmkb.train", section="cdg", preset="tiny", overrides=model, options=options
        )

    return Training(
        settings,
        lambda chosen, out: train_predictor(chosen, [tiny_artifacts.csi], out),
        ["cdg", "--csi", str(tiny_artifacts.csi)],
    )


@pytest.fixture
def training(request: pytest.FixtureRequest) -> Training:
    found: Training = request.getfixturevalue(request.param)
    return found


def of(jscc: Any = (), cdg: Any = ()) -> Any:
    """Let a test take both kinds of training, with marks."""
    kinds = [pytest.param("jscc", marks=jscc), pytest.param("cdg", marks=cdg)]
    return pytest.mark.parametrize("training", kinds, indirect=True)


def logged(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def check_same(one: Path, other: Path) -> None:
    """Check that weights and measurements are the same, bit for bit."""
    whole, parts = (load_file(root / "model.safetensors") for root in (one, other))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert not any("classifier" in name for name in whole), "what is trained beside a model is no part of it"
    assert logged(one) == logged(other)


@of()
def test_killed_and_resumed_gives_the_same_weights(training: Training, tmp_path: Path, killed: Any) -> None:
    settings = training.settings()
    training.train(settings, tmp_path / "whole")
    killed(5, lambda: training.train(settings, tmp_path / "parts"))
    assert not (tmp_path / "parts" / "config.json").exists()
    assert step_of(tmp_path / "parts") == 4, "saved every two steps"
    training.train(settings, tmp_path / "parts")
    check_same(tmp_path / "whole", tmp_path / "parts")
    assert not (tmp_path / "parts" / "state.safetensors").exists()


@of(pytest.mark.long, pytest.mark.long)
def test_a_killed_process_goes_on_bit_for_bit(training: Training, tmp_path: Path) -> None:
    options = {"text": {"tune": "layers", "num_layers": 1}, "identity_weight": 0.2, "accumulate": 2, "loss": "sdm"}
    settings = training.settings(num_steps=60, **(options if training.inputs[0] == "jscc" else {}))
    start = [sys.executable, "-m", "sclmkb.train.cli"]
    parts = [*start, *training.command(settings, tmp_path / "parts")]
    process = subprocess.Popen(parts, stderr=subprocess.DEVNULL)
    while not (tmp_path / "parts" / "state.safetensors").exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "parts" / "config.json").exists(), "killed before the end"
    for arguments in (parts, [*start, *training.command(settings, tmp_path / "whole")]):
        subprocess.run(arguments, check=True, timeout=400, capture_output=True)
    check_same(tmp_path / "whole", tmp_path / "parts")


@of(pytest.mark.long, pytest.mark.slow)
def test_two_processes_give_the_losses_of_one(training: Training, tmp_path: Path) -> None:
    """The CNN's batch normalisation sees the media of both, and both tune a text encoder; a GRU looks at all rows."""
    if training.inputs[0] == "jscc":
        options = {"text": {"tune": "lora", "num_layers": 1}, "identity_weight": 0.2, "precision": "float32"}
        settings = training.settings(**options)
    else:
        settings = training.settings("model.kind=gru", "model.hidden=16", "model.rows_per_step=0")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for name, prefix in (("one", []), ("two", launch)):
        arguments = [sys.executable, *prefix, "-m", "sclmkb.train.cli", *training.command(settings, tmp_path / name)]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stderr.count("checkpoint in") == 1, "one process speaks for both"
    logs = [logged(tmp_path / name) for name in ("one", "two")]
    assert [record["step"] for record in logs[0]] == [record["step"] for record in logs[1]]
    one, two = ([record["loss"] for record in log if "loss" in record] for log in logs)
    assert two == pytest.approx(one, rel=2e-3)
    assert logs[0] != logs[1], "gradients were added up in another order"


@of(pytest.mark.slow, pytest.mark.long)
def test_one_process_goes_on_with_two_and_back(
    training: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Train at once; then by one process, by two and again by one; compare what was logged and the weights."""
    options = {"precision": "float32", "identity_weight": 0.2} if training.inputs[0] == "jscc" else {}
    settings = training.settings(num_steps=9, num_validations=4, **options)
    training.train(settings, tmp_path / "whole")
    calls = iter([False, False, False, True])
    with monkeypatch.context() as patch:
        patch.setattr(loop, "in_any_process", lambda *_: next(calls))
        with pytest.raises(Terminated):
            training.train(settings, tmp_path / "parts")
    assert step_of(tmp_path / "parts") == 3
    assert train_in_two(tmp_path, 4, training.command(settings, tmp_path / "parts")) == [75, 75]
    assert step_of(tmp_path / "parts") == 7, "both stopped after the same step, and one of them saved it"
    training.train(settings, tmp_path / "parts")
    whole, parts = (logged(tmp_path / name) for name in ("whole", "parts"))
    assert [record["step"] for record in whole] == [record["step"] for record in parts]
    for one, other in zip(whole, parts, strict=True):
        assert other == pytest.approx(one, rel=2e-3)
    weights, others = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert weights.keys() == others.keys()
    for name, weight in weights.items():
        assert (others[name] - weight).float().norm() <= 0.01 * weight.float().norm() + 1e-3, name


def train_in_two(tmp_path: Path, stop: int, arguments: Sequence[str]) -> list[int]:
    """Train in two processes, started as srun starts them, until one is told to stop; return their exit codes."""
    (tmp_path / "signalled.py").write_text(SIGNALLED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / "signalled.py"), str(stop), "1", *arguments],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=400)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert "stopped in good order" in said[0], said
    return [process.returncode for process in processes]


def step_of(root: Path) -> int:
    with safe_open(root / "state.safetensors", framework="pt") as file:
        return int(json.loads(file.metadata()["state"])["step"])


def test_a_process_that_sees_another_folder_is_refused(tmp_path: Path) -> None:
    common: dict[str, Any] = {"kind": "cdg", "settings": {}, "inputs": {}}
    with pytest.raises(UserError, match="all machines must see that folder"):
        TrainingRun.open(tmp_path / "elsewhere", writes=False, **common)
    TrainingRun.open(tmp_path / "shared", **common)
    TrainingRun.open(tmp_path / "shared", writes=False, **common)
