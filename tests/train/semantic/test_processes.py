"""The command itself: killed and resumed, and run by two processes."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from sclmkb.common.tasks.trained import JsccSettings
from sclmkb.train.semantic.inputs import JsccInputs

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def command(
    jscc_inputs: Callable[[JsccSettings], JsccInputs], embedding_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[str]]:
    """Return what makes the arguments of a training."""
    monkeypatch.setenv("SCLMKB_CACHE", str(embedding_cache))

    def make(settings: JsccSettings, out: Path) -> list[str]:
        given = jscc_inputs(settings)
        config = out.with_suffix(".yaml")
        config.write_text(yaml.safe_dump({"jscc": settings.model_dump(mode="json")}))
        paths = {"corpus": given.corpus, "csi": given.csi, "sdg": given.sdg, "predicted": given.predicted}
        named = [x for name, path in paths.items() if path is not None for x in (f"--{name}", str(path))]
        return ["-m", "sclmkb.train.cli", "jscc", "--config", str(config), *named, "--out", str(out)]

    return make


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
        env={**os.environ, **ENVIRONMENT},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


@pytest.mark.long
def test_a_killed_process_goes_on_bit_for_bit_also_with_tuned_text_layers(
    jscc_settings: Callable[..., JsccSettings], command: Callable[..., list[str]], tmp_path: Path
) -> None:
    settings = jscc_settings(
        text={"tune": "layers", "num_layers": 1}, identity_weight=0.2, num_steps=40, accumulate=2, loss="sdm"
    )
    arguments = command(settings, tmp_path / "parts")
    process = subprocess.Popen(
        [sys.executable, *arguments], stderr=subprocess.DEVNULL, env={**os.environ, **ENVIRONMENT}
    )
    while not (tmp_path / "parts" / "state.safetensors").exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "parts" / "config.json").exists(), "killed before the end"
    run(*arguments)
    run(*command(settings, tmp_path / "whole"))
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert any(name.startswith("text.") for name in whole)
    assert not any("classifier" in name for name in whole)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert (tmp_path / "whole" / "metrics.jsonl").read_text() == (tmp_path / "parts" / "metrics.jsonl").read_text()


@pytest.mark.long
def test_two_processes_give_the_losses_of_one(
    jscc_settings: Callable[..., JsccSettings], command: Callable[..., list[str]], tmp_path: Path
) -> None:
    """With the CNN, whose batch normalisation sees the media of both, and a text encoder that both tune."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options = {"text": {"tune": "lora", "num_layers": 1}, "identity_weight": 0.2, "precision": "float32"}
    logs = []
    for name, prefix in (("one", []), ("two", launch)):
        said = run(*prefix, *command(jscc_settings(**options), tmp_path / name))
        assert said.count("checkpoint in") == 1, "one process speaks for both"
        logs.append([json.loads(x) for x in (tmp_path / name / "metrics.jsonl").read_text().splitlines()])
    assert len(logs[0]) == len(logs[1])
    for one, two in zip(*logs, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=2e-3)
    assert logs[0] != logs[1], "gradients were added up in another order"
