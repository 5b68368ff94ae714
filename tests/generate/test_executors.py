"""The commands as job arrays: what the scripts run is run here, in this process."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import must_run, run_command
from sdg_fakes import Job, write_corpus

from sclmkb.common.artifacts.files import sha256_file
from sclmkb.generate.runs.status import read_status


def command_of(script: str) -> list[str]:
    """Return the command line of a script, without interpreter, module and the shards at its end."""
    words = shlex.split(script.partition("-m sclmkb.generate.cli ")[2].partition(" --shards ")[0])
    assert "--join" in words
    return words


def contents(root: Path) -> dict[str, str]:
    return {p.name: sha256_file(p) for p in root.rglob("*") if p.suffix in (".parquet", ".md")}


@pytest.fixture(params=["cdg", "corpus", "csi", "csi-feedback", "filter", "import-csi"])
def command(request: pytest.FixtureRequest, tmp_path: Path, write_path_csi: Callable[..., Path]) -> list[str]:
    """Return a command line, but for --out, of a run of at least three shards."""
    if request.param in ("cdg", "csi-feedback"):
        csi = write_path_csi(tmp_path / "csi", sizes=(30, 5, 5))
        options = {"cdg": ["--predictor", "persistence"], "csi-feedback": ["--bits", "16"]}
        return [request.param, "--csi", str(csi), *options[request.param]]
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
    sdg = Job(tmp_path, write_corpus(tmp_path / "corpus", 100))().root
    return ["filter", "--sdg", str(sdg), "--set", "filter.min_similarity=0.7"]


def test_an_array_makes_what_one_process_makes(command: list[str], fake_slurm: Any, tmp_path: Path) -> None:
    out = tmp_path / "array"
    must_run(["sclmkb-gen", *command, "--out", tmp_path / "whole"])
    submit = ["sclmkb-gen", *command, "--out", out, "--executor", "slurm", "--set", "slurm.hours=1"]
    must_run([*submit, "--new-run"])
    assert not (out / "manifests").exists(), "who submits makes nothing"
    array, last = (script for script, _ in fake_slurm.submitted().values())
    assert "#SBATCH --time=60" in array
    (tasks,) = re.findall(r"--array=0-(\d+)$", array, re.MULTILINE)
    for task in range(int(tasks) + 1):
        must_run(["sclmkb-gen", *command_of(array), "--shards", str(task)])
    must_run(["sclmkb-gen", *command_of(last), "--shards", "none"])
    assert contents(out) == contents(tmp_path / "whole")
    status = read_status(out)
    assert status.is_done
    assert (status.shards, sum(status.states.values()), status.processes) == (int(tasks) + 1, status.rows, [])
    logs = sorted((out / "logs").glob("*.jsonl"))
    started = [json.loads(path.read_text().partition("\n")[0])["shards"] for path in logs]
    assert sorted(started) == [str(task) for task in range(int(tasks) + 1)], "each task says what it is at"
    assert "is done, nothing to submit" in must_run(submit).err
    assert len(fake_slurm.submitted()) == 2


def test_a_task_starts_no_run(command: list[str], tmp_path: Path) -> None:
    out = tmp_path / "absent"
    done = run_command(["sclmkb-gen", *command, "--out", out, "--join", "--shards", "0"])
    assert done.code == 2
    assert "holds no run to join" in done.err
    assert not out.exists()
