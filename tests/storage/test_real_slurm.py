"""A run behind an S3 API as an array of a real Slurm: credentials and address reach the tasks, logs go to a folder."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_for

from sclmkb.common.artifacts.storage import parse_folder


@pytest.mark.long
def test_an_array_makes_in_a_store_what_one_process_makes_in_a_folder(
    s3: Any,
    slurm: dict[str, str],
    tmp_path: Path,
    write_path_csi: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    csi, out, logs = write_path_csi(tmp_path / "csi", sizes=(30, 5, 5)), s3.root / "predicted", tmp_path / "logs"
    program = [sys.executable, "-m", "sclmkb.generate.cli", "cdg", "--csi", str(csi), "--predictor", "persistence"]
    subprocess.run([*program, "--out", str(tmp_path / "whole")], check=True)
    submit = [*program, "--out", str(out), "--executor", "slurm", "--set", "slurm.partition=low"]
    submit += ["--set", f"slurm.logs={logs}", "--set", "slurm.shards_per_task=2", "--set", "slurm.sbatch=[--hold]"]
    environment = {**os.environ, "SLURM_CONF": slurm["SLURM_CONF"]}

    def ask(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environment)

    last = ask(*submit).stdout.strip()
    assert "is in the queue, nothing to submit" in ask(*submit).stderr
    ask("scontrol", "release", *ask("squeue", "-h", "--format=%A").stdout.split())
    wait_for(lambda: not ask("squeue", "-h").stdout)
    assert "is done, nothing to submit" in ask(*submit).stderr
    assert "exit code 0" in (logs / f"{last}.attempt-0.log").read_text()
    made, expected = s3.files(parse_folder(str(out))), s3.files(tmp_path / "whole")
    same = [name for name in expected if not name.startswith(("manifests/", "logs/"))]
    assert len(same) >= 6
    assert {name: made.get(name) for name in same} == {name: expected[name] for name in same}
