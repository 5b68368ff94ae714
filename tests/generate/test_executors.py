"""The commands as job arrays: what the scripts run is run here, in this process."""

import json
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from sclmkb.common.artifacts.files import sha256_file
from sclmkb.generate import cli
from sclmkb.generate.captions.sdg import plan_captions
from sclmkb.generate.runs.status import read_status

PROGRAMS = {
    "sbatch": 'n=$(($(ls "$D" | grep -c script) + 1)); cat > "$D/$n.script"; echo $n',
    "squeue": "exit 0",
}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put an sbatch on the path that keeps scripts, and return their folder."""
    root = tmp_path / "slurm"
    (root / "bin").mkdir(parents=True)
    for name, text in PROGRAMS.items():
        path = root / "bin" / name
        path.write_text(f"#!/bin/bash\nD={root}\n{text}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{root / 'bin'}:{os.environ['PATH']}")
    return root


def call(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["sclmkb-gen", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def command_of(script: str) -> list[str]:
    """Return the command line of a script, without interpreter, module and the shards at its end."""
    words = shlex.split(script.partition("-m sclmkb.generate.cli ")[2].partition(" --shards ")[0])
    assert "--join" in words
    return words


def contents(root: Path) -> dict[str, str]:
    return {p.name: sha256_file(p) for p in root.rglob("*") if p.suffix in (".parquet", ".md")}


@pytest.fixture(params=["cdg", "corpus", "csi", "csi-feedback", "filter", "import-csi"])
def command(
    request: pytest.FixtureRequest, tmp_path: Path, write_path_csi: Callable[..., Path], fakes: ModuleType
) -> list[str]:
    """Return a command line, but for --out, of a run of at least three shards."""
    if request.param == "cdg":
        csi = write_path_csi(tmp_path / "csi", sizes=(30, 5, 5))
        return ["cdg", "--csi", str(csi), "--predictor", "persistence"]
    if request.param == "csi-feedback":
        csi = write_path_csi(tmp_path / "csi", sizes=(30, 5, 5))
        return ["csi-feedback", "--csi", str(csi), "--bits", "16"]
    if request.param == "import-csi":
        draw = np.random.default_rng(0)
        np.save(tmp_path / "h.npy", (draw.random((12, 20, 1, 2, 2)) + 1j * draw.random((12, 20, 1, 2, 2))))
        known = {"carrier_hz": 3.5e9, "sample_period_s": 5e-4, "scenario": "lab", "speed_kmh": 3, "num_history": 6}
        items = [word for key, value in known.items() for word in ("--set", f"{key}={value}")]
        return ["import-csi", "numpy", "--root", str(tmp_path / "h.npy"), "--set", "shard_size=8", *items]
    if request.param == "corpus":
        lines = [f"item-{i},a person who carries {i} apples,train" for i in range(6)]
        (tmp_path / "captions.csv").write_text("\n".join(["identity,caption,split", *lines]) + "\n")
        few = ["--set", "media=none", "--set", "shard_size=2"]
        return ["corpus", "table", "--root", str(tmp_path / "captions.csv"), *few]
    if request.param == "csi":
        pytest.importorskip("sionna.phy")
        small = ["--set", "array_rows=1", "--set", "array_columns=1", "--set", "num_history=2"]
        return ["csi", "--preset", "tiny", *small]
    corpus, settings = fakes.write_corpus(tmp_path / "corpus", 100), fakes.fake_settings()
    plan_captions(settings, corpus, tmp_path / "sdg", fakes.make_backend(settings, fakes.FakeEngine())).run_here()
    return ["filter", "--sdg", str(tmp_path / "sdg"), "--set", "filter.min_similarity=0.7"]


def test_an_array_makes_what_one_process_makes(
    command: list[str],
    slurm: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "array"
    assert call(*command, "--out", str(tmp_path / "whole"), monkeypatch=monkeypatch) == 0
    submit = [*command, "--out", str(out), "--executor", "slurm", "--set", "slurm.hours=1"]
    assert call(*submit, "--new-run", monkeypatch=monkeypatch) == 0
    assert not (out / "manifests").exists(), "who submits makes nothing"
    array, last = (path.read_text() for path in sorted(slurm.glob("*.script")))
    assert "#SBATCH --time=60" in array
    (tasks,) = re.findall(r"--array=0-(\d+)$", array, re.MULTILINE)
    for task in range(int(tasks) + 1):
        assert call(*command_of(array), "--shards", str(task), monkeypatch=monkeypatch) == 0
    assert call(*command_of(last), "--shards", "none", monkeypatch=monkeypatch) == 0
    assert contents(out) == contents(tmp_path / "whole")
    status = read_status(out)
    assert status.is_done
    assert (status.shards, sum(status.states.values()), status.processes) == (int(tasks) + 1, status.rows, [])
    logs = sorted((out / "logs").glob("*.jsonl"))
    started = [json.loads(path.read_text().partition("\n")[0])["shards"] for path in logs]
    assert sorted(started) == [str(task) for task in range(int(tasks) + 1)], "each task says what it is at"
    capsys.readouterr()
    assert call(*submit, monkeypatch=monkeypatch) == 0
    assert "is done, nothing to submit" in capsys.readouterr().err
    assert len(list(slurm.glob("*.script"))) == 2


def test_a_task_starts_no_run(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "absent"
    assert call(*command, "--out", str(out), "--join", "--shards", "0", monkeypatch=monkeypatch) == 2
    assert "holds no run to join" in capsys.readouterr().err
    assert not out.exists()
