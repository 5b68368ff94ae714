"""Training by several processes: stopped together, and resumed by another number of them."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors import safe_open
from safetensors.torch import load_file

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

NUM_STEPS = 9


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


def check_resumed(
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    train: Callable[[Path], object],
    arguments: Callable[[Path], list[str]],
    relative: float,
) -> None:
    """Train at once; then by one process, by two and again by one; compare what was logged and the weights."""
    train(out / "whole")
    calls = iter([False, False, False, True])
    with monkeypatch.context() as patch:
        patch.setattr(loop, "in_any_process", lambda *_: next(calls))
        with pytest.raises(Terminated):
            train(out / "parts")
    assert step_of(out / "parts") == 3
    assert train_in_two(out, 4, arguments(out / "parts")) == [75, 75]
    assert step_of(out / "parts") == 7, "both stopped after the same step, and one of them saved it"
    train(out / "parts")
    whole, parts = (
        [json.loads(line) for line in (out / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "parts")
    )
    assert [record["step"] for record in whole] == [record["step"] for record in parts]
    for one, other in zip(whole, parts, strict=True):
        assert other == pytest.approx(one, rel=relative)
    weights, others = (load_file(out / name / "model.safetensors") for name in ("whole", "parts"))
    assert weights.keys() == others.keys()
    for name, weight in weights.items():
        assert (others[name] - weight).float().norm() <= 0.01 * weight.float().norm() + 1e-3, name


def step_of(root: Path) -> int:
    with safe_open(root / "state.safetensors", framework="pt") as file:
        return int(json.loads(file.metadata()["state"])["step"])


@pytest.mark.slow
def test_jscc_of_one_process_goes_on_with_two_and_back(
    jscc_settings: Callable[..., JsccSettings],
    jscc_inputs: Callable[[JsccSettings], JsccInputs],
    jscc_cache: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = jscc_settings(num_steps=NUM_STEPS, num_validations=4, precision="float32", identity_weight=0.2)
    given = jscc_inputs(settings)

    def arguments(out: Path) -> list[str]:
        paths = {"corpus": given.corpus, "csi": given.csi, "sdg": given.sdg, "predicted": given.predicted}
        named = [x for name, path in paths.items() if path is not None for x in (f"--{name}", str(path))]
        return ["jscc", *configured(tmp_path, "jscc", settings), *named, "--out", str(out)]

    check_resumed(tmp_path, monkeypatch, lambda out: train_jscc(settings, given, out), arguments, 2e-3)


@pytest.mark.long
def test_cdg_of_one_process_goes_on_with_two_and_back(
    tiny_artifacts: Any, tiny_lm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = CsiTrainSettings.resolve(
        presets="sclmkb.train",
        section="cdg",
        preset="tiny",
        overrides=[f"model.language_model={tiny_lm}"],
        options={"num_steps": NUM_STEPS, "num_validations": 9},
    )

    def arguments(out: Path) -> list[str]:
        csi = ["--csi", str(tiny_artifacts.csi), "--out", str(out)]
        return ["cdg", *configured(tmp_path, "cdg", settings), *csi]

    check_resumed(
        tmp_path, monkeypatch, lambda out: train_predictor(settings, [tiny_artifacts.csi], out), arguments, 1e-3
    )


def configured(folder: Path, section: str, settings: Any) -> list[str]:
    path = folder / f"{section}.yaml"
    path.write_text(yaml.safe_dump({section: settings.model_dump(mode="json")}))
    return ["--config", str(path)]


def test_a_process_that_sees_another_folder_is_refused(tmp_path: Path) -> None:
    common: dict[str, Any] = {"kind": "cdg", "settings": {}, "inputs": {}}
    with pytest.raises(UserError, match="all machines must see that folder"):
        TrainingRun.open(tmp_path / "elsewhere", writes=False, **common)
    TrainingRun.open(tmp_path / "shared", **common)
    TrainingRun.open(tmp_path / "shared", writes=False, **common)
