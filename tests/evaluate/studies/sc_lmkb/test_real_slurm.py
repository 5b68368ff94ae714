"""Cells of a study as jobs of a real Slurm on this machine."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import real_slurm
import studying

STUDYING = Path(str(studying.__file__))


pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(real_slurm.why_not()), reason=real_slurm.why_not() or "runs"),
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with real_slurm.slurm(tmp_path_factory.mktemp("slurm")) as found:
        yield {**found, "OMP_NUM_THREADS": "1"}


def test_cells_wait_for_each_other_and_only_what_failed_is_submitted_again(
    environment: dict[str, str], tmp_path: Path
) -> None:
    folder, out = tmp_path / "folder", tmp_path / "out"
    studying.write_program(folder)
    given = {**environment, "PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}

    def ask(*command: str) -> Any:
        return subprocess.run(command, capture_output=True, text=True, env=given, cwd=tmp_path, check=True)

    def submit() -> str:
        said = ask(sys.executable, str(STUDYING), str(folder), str(out), "--executor", "slurm")
        return str(said.stdout.strip())

    def wait() -> None:
        real_slurm.wait_for(lambda: not ask("squeue", "-h").stdout, 500)

    (folder / "words").write_text("fail")
    first = submit()
    assert submit() == first, "all of it is in the queue"
    wait()
    failed = studying.small_study(out, "fail")
    assert list(failed.done()) == ["alone"], "what needs the one that failed was cancelled"
    assert (out / "commands.sh").exists(), "what there is is drawn"
    (folder / "words").write_text("x")
    second = submit()
    wait()
    study = studying.small_study(out)
    assert set(study.done()) == set(study.cells)
    assert all(len((cell.out / "runs").read_text().splitlines()) == 1 for cell in study.cells.values())
    assert "drawn" in (out / "logs" / "slurm" / f"{second}.attempt-0.log").read_text()
    assert submit() == "", "nothing is left"


def test_a_cell_stops_in_good_order_and_goes_on(environment: dict[str, str], tmp_path: Path) -> None:
    folder, out = tmp_path / "folder", tmp_path / "out"
    studying.write_program(folder)
    (folder / "fake_command.py").write_text(
        "import time, typer\nfrom pathlib import Path\n"
        "from sclmkb.common.console import run_app, stop_in_good_order, stop_requested\n"
        "app = typer.Typer()\n@app.command()\n"
        "def run(words: list[str], new_run: bool = False, out: Path = Path()) -> None:\n"
        "    out.mkdir(parents=True, exist_ok=True)\n    if (out / 'ended').exists():\n        return\n"
        "    with stop_in_good_order() as check:\n        (out / 'at-work').touch()\n"
        "        while not stop_requested():\n            time.sleep(0.1)\n"
        "        time.sleep(1)\n        (out / 'ended').touch()\n        check()\n"
        "run_app(app)\n"
    )
    given = {**environment, "PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}

    def ask(*command: str) -> Any:
        return subprocess.run(command, capture_output=True, text=True, env=given, cwd=tmp_path, check=True)

    ask(sys.executable, str(STUDYING), str(folder), str(out), "--executor", "slurm")
    real_slurm.wait_for((out / "a" / "at-work").exists, 500)
    (job,) = ask("squeue", "-h", "--format=%i", f"--name={_name(out)}").stdout.split()
    ask("scancel", "--batch", "--signal=USR1", job)
    real_slurm.wait_for(lambda: studying.small_study(out).done().get("a"), 500)
    ask("scancel", "--user=root")
    assert (out / "logs" / "a.log").read_text().count("stopped in good order") == 1
    assert (out / "logs" / "slurm" / f"{job}.attempt-1.log").exists()


def _name(out: Path) -> str:
    from sclmkb.common.executors.slurm import job_name

    return f"{job_name('paper', out)}-a"
