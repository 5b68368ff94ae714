"""Cells of a study as jobs of a real Slurm on this machine."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import studying
from waiting import wait_for

from sclmkb.common.executors.slurm import job_name

STUDYING = Path(str(studying.__file__))
PROGRAM = """
import time, typer
from pathlib import Path
from sclmkb.common.console import run_app, stop_in_good_order, stop_requested
from sclmkb.common.errors import UserError
app = typer.Typer()
@app.command()
def run(words: list[str], new_run: bool = False, out: Path = Path()) -> None:
    if "fail" in words:
        raise UserError("no such thing: make it first")
    out.mkdir(parents=True, exist_ok=True)
    with (out / "runs").open("a") as runs:
        runs.write("began\\n")
    if "slow" in words and not (out / "ended").exists():
        with stop_in_good_order() as check:
            while not stop_requested():
                time.sleep(0.1)
            time.sleep(1)
            (out / "ended").touch()
            check()
run_app(app)
"""


pytestmark = pytest.mark.long


def test_cells_wait_for_each_other_only_what_failed_is_submitted_again_and_a_stopped_one_goes_on(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    folder, out = tmp_path / "folder", tmp_path / "out"
    studying.write_program(folder, PROGRAM)
    given = {**slurm, "PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}

    def ask(*command: str) -> Any:
        return subprocess.run(command, capture_output=True, text=True, env=given, cwd=tmp_path, check=True)

    def submit() -> str:
        said = ask(sys.executable, str(STUDYING), str(folder), str(out), "--executor", "slurm")
        return str(said.stdout.strip())

    def wait() -> None:
        wait_for(lambda: not ask("squeue", "-h").stdout, 500)

    (folder / "words").write_text("fail")
    submit()
    wait()
    failed = studying.small_study(out, "fail")
    assert list(failed.done()) == ["alone"], "what needs the one that failed was cancelled"
    assert (out / "commands.sh").exists(), "what there is is drawn"

    (folder / "words").write_text("slow")
    second = submit()
    wait_for((out / "a" / "runs").exists, 500)
    assert submit() == second, "all of it is in the queue"
    (job,) = ask("squeue", "-h", "--format=%i", f"--name={job_name('toy', out)}-a").stdout.split()
    ask("scancel", "--batch", "--signal=USR1", job)
    wait()
    study = studying.small_study(out, "slow")
    assert set(study.done()) == set(study.cells)
    times = {name: len((cell.out / "runs").read_text().splitlines()) for name, cell in study.cells.items()}
    assert times == {"a": 2, "b/1": 1, "c": 1, "alone": 1}
    assert (out / "logs" / "a.log").read_text().count("stopped in good order") == 1
    assert (out / "logs" / "slurm" / f"{job}.attempt-1.log").exists()
    assert "drawn" in (out / "logs" / "slurm" / f"{second}.attempt-0.log").read_text()
    assert submit() == "", "nothing is left"
