"""Cells of a study as jobs of a Slurm that is not there; test_real_slurm.py has the real one."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import studying
from fake_slurm import option
from waiting import wait_for

from sclmkb.common.artifacts.files import write_json
from sclmkb.common.errors import UserError
from sclmkb.common.studies.cells import Record, Study
from sclmkb.common.studies.runner import run_cell
from sclmkb.common.studies.slurm import SlurmOptions, refuse_queued, split_options, submit_study

STUDYING = Path(str(studying.__file__))
small_study: Callable[..., Study] = studying.small_study
NAMES = ["a", "b/1", "c", "alone", "draw"]


def do(study: Study, *names: str) -> None:
    """Let results of cells stand."""
    for name in names:
        cell = study.cells[name]
        cell.out.mkdir(parents=True)
        study.write_record(cell, Record(key=study.keys()[name], seconds=1.0, peak_gb=0.1, command=cell.line()))


def submit(study: Study, *, print_only: bool = False, config: Path | None = None, overrides: Any = ()) -> None:
    own, options = split_options("sclmkb.evaluate", None, config, overrides)
    assert own == []
    submit_study(study, options, ["do", "it well"], draws=True, print_only=print_only)


def cell_of(script: str) -> str:
    found = re.search(r"do 'it well' (?:--cell (\S+)|--(draw)) &", script)
    assert found is not None
    return found[1] or found[2]


def submitted(fake: Any) -> dict[str, tuple[str, str]]:
    """Return number and dependency of every job, by what it does."""
    return {
        cell_of(script): (job, options.removeprefix("--parsable --dependency="))
        for job, (script, options) in fake.submitted().items()
    }


def queue(fake: Any, study: Study, jobs: dict[str, int]) -> None:
    """Let cells be in the queue."""
    known = {**study.keys(), "draw": "draw"}
    names = {cell_of(script): option(script, "job-name") for script, _ in fake.submitted().values()}
    fake.queue(*(f"{job} {known[cell]} {names[cell]}" for cell, job in jobs.items()))


def test_each_cell_waits_for_those_that_it_needs(
    fake_slurm: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = small_study(tmp_path / "out")
    submit(study)
    assert submitted(fake_slurm) == {
        "a": ("101", "singleton"),
        "b/1": ("102", "afterok:101,singleton"),
        "c": ("103", "afterok:101:102,singleton"),
        "alone": ("104", "singleton"),
        "draw": ("105", "afterany:103:104,singleton"),
    }
    scripts = [script for script, _ in fake_slurm.submitted().values()]
    assert len({option(script, "job-name") for script in scripts}) == 5
    assert all("#SBATCH --kill-on-invalid-dep=yes" in script for script in scripts)
    said = capsys.readouterr()
    assert said.out == "105\n", "what another job may depend on"
    assert "0 of 4 cells are done, 0 in the queue, 4 submitted" in said.err
    assert {p.name for p in (study.out / "logs" / "slurm").iterdir()} == {f"{n}.sh" for n in range(101, 106)}


def test_a_command_may_have_a_folder_of_its_own_for_logs(
    fake_slurm: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, config = small_study(tmp_path / "out"), tmp_path / "site.yaml"
    config.write_text(f"slurm:\n  logs: {tmp_path}/jobs\nslurm-eval-run:\n  logs: {tmp_path}/eval\n")
    submit(study, config=config)
    scripts = {job: script for job, (script, _) in fake_slurm.submitted().items()}
    (of_c,) = (job for job, script in scripts.items() if cell_of(script) == "c")
    assert {p.name for p in (tmp_path / "eval").iterdir()} == {f"{of_c}.sh"}
    assert {p.name for p in (tmp_path / "jobs").iterdir()} == {f"{job}.sh" for job in scripts if job != of_c}
    assert f"#SBATCH --output={tmp_path}/eval/%j.slurm.log\n" in scripts[of_c]
    assert f"logs are in {tmp_path}/jobs, those of cells in {study.out}/logs" in capsys.readouterr().err
    fake_slurm.queue()
    refuse_queued(study)
    assert fake_slurm.kept("asked"), "jobs are looked for though their logs are elsewhere"


def test_what_is_done_is_left_out_and_what_is_queued_is_not_submitted_again(
    fake_slurm: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = small_study(tmp_path / "out")
    submit(study)
    do(study, "a")
    queue(fake_slurm, study, {"b/1": 7})
    capsys.readouterr()
    submit(study)
    assert {cell: dependency for cell, (job, dependency) in submitted(fake_slurm).items() if int(job) > 105} == {
        "c": "afterok:7,singleton",
        "alone": "singleton",
        "draw": "afterany:106:107,singleton",
    }
    assert "1 of 4 cells are done, 1 in the queue, 2 submitted" in capsys.readouterr().err
    assert option(fake_slurm.submitted()["102"][0], "job-name") in fake_slurm.kept("asked")


def test_nothing_is_submitted_twice_or_when_all_is_done(
    fake_slurm: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = small_study(tmp_path / "out")
    submit(study)
    queue(fake_slurm, study, {name: 101 + i for i, name in enumerate(NAMES)})
    capsys.readouterr()
    submit(study)
    assert capsys.readouterr().out == "105\n"
    do(study, *study.cells)
    fake_slurm.queue()
    (fake_slurm.root / "asked").unlink()
    study.write_listing()
    submit(study)
    submit(study, print_only=True)
    assert capsys.readouterr().out == ""
    assert not fake_slurm.kept("asked")
    assert len(fake_slurm.submitted()) == 5
    (study.out / "commands.sh").unlink()
    submit(study)
    assert list(fake_slurm.submitted()["106"])[1] == "--parsable --dependency=singleton"
    assert cell_of(fake_slurm.submitted()["106"][0]) == "draw"


def test_jobs_of_other_settings_or_of_this_machine_do_not_meet(fake_slurm: Any, tmp_path: Path) -> None:
    study = small_study(tmp_path / "out")
    refuse_queued(study)
    assert not fake_slurm.kept("asked"), "nothing was ever submitted"
    submit(study)
    refuse_queued(study)
    queue(fake_slurm, study, {"a": 7, "draw": 8})
    with pytest.raises(UserError, match="are in the queue: wait for them, or scancel 7 8"):
        refuse_queued(study)
    with pytest.raises(UserError, match="job 7 makes a with other settings"):
        submit(small_study(tmp_path / "out", "y"))
    fake_slurm.queue()
    submit(small_study(tmp_path / "elsewhere", "y"))
    other = [option(fake_slurm.submitted()[str(job)][0], "job-name") for job in (101, 106)]
    assert other[0] != other[1], "of another folder"


def test_a_command_may_have_a_section_of_its_own(fake_slurm: Any, tmp_path: Path) -> None:
    config = tmp_path / "site.yaml"
    write_json(config, {"slurm": {"gpus": 1, "hours": 2, "partition": "gpu"}, "slurm-eval-run": {"gpus": None}})
    submit(small_study(tmp_path / "out"), config=config, overrides=["slurm.hours=3"])
    scripts = {cell_of(script): script for script, _ in fake_slurm.submitted().values()}
    assert all("--partition=gpu" in s and "--time=180" in s for s in scripts.values())
    assert {name for name, script in scripts.items() if "--gpus=1" in script} == {"a", "b/1", "alone"}
    write_json(config, {"slurm-gen-run": {"hour": 1}})
    with pytest.raises(UserError, match=r"'slurm-gen-run\.hour' does not exist"):
        submit(small_study(tmp_path / "out"), config=config)


def test_the_printed_script_submits_the_same(
    fake_slurm: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = small_study(tmp_path / "out")
    do(study, "a")
    submit(study, print_only=True)
    printed = capsys.readouterr().out
    assert not fake_slurm.submitted()
    subprocess.run(["bash", "-c", printed], check=True, timeout=60)
    by_hand = fake_slurm.submitted()
    for path in fake_slurm.root.glob("10*"):
        path.unlink()
    submit(study)
    assert by_hand == fake_slurm.submitted()
    monkeypatch.setenv("PATH", str(tmp_path))
    submit(study, print_only=True)
    assert capsys.readouterr().out.endswith(printed), "also where there is no Slurm"


def test_when_slurm_takes_no_more_the_rest_is_for_later(fake_slurm: Any, tmp_path: Path) -> None:
    fake_slurm.write(
        "sbatch", 'cat > "$D/x"; [ -e "$D/once" ] && { echo "limit of jobs" >&2; exit 1; }; touch "$D/once"; echo 9'
    )
    with pytest.raises(UserError, match="limit of jobs; 1 jobs were submitted, the same command submits the rest"):
        submit(small_study(tmp_path / "out"))


def test_a_cell_alone_needs_what_it_needs(tmp_path: Path) -> None:
    study = small_study(tmp_path / "out")
    with pytest.raises(UserError, match="there is no cell 'd'"):
        run_cell(study, "d")
    with pytest.raises(UserError, match="c needs a, b/1, not done with these settings"):
        run_cell(study, "c")
    do(study, "a")
    assert run_cell(study, "a") == "", "it stands"


@pytest.fixture
def start(fake_slurm: Any, tmp_path: Path) -> Callable[[str], subprocess.Popen[bytes]]:
    """Submit a study of real cells and return what runs the job of one, as Slurm does."""
    studying.write_program(tmp_path / "folder")
    command = [sys.executable, str(STUDYING), str(tmp_path / "folder"), str(tmp_path / "out")]
    own: dict[str, str] = {}

    def run(name: str) -> subprocess.Popen[bytes]:
        if not own:
            words = tmp_path / "folder" / "words"
            study = small_study(tmp_path / "out", words.read_text() if words.exists() else "x")
            submit_study(study, SlurmOptions(presets="sclmkb.evaluate"), command, draws=True)
            own.update(zip(NAMES, (script for script, _ in fake_slurm.submitted().values()), strict=True))
        fake_slurm.queue("RUNNING")
        environment = {
            **os.environ,
            "SLURM_JOB_ID": name,
            "PYTHONPATH": f"{tmp_path}/folder:{os.environ.get('PYTHONPATH', '')}",
        }
        return subprocess.Popen(["bash", "-c", own[name]], env=environment, start_new_session=True)

    return run


def log(tmp_path: Path, name: str) -> str:
    return (tmp_path / "out" / "logs" / "slurm" / f"{name}.attempt-0.log").read_text()


def test_a_job_writes_the_record_of_its_cell(
    start: Callable[[str], subprocess.Popen[bytes]], tmp_path: Path, fake_slurm: Any
) -> None:
    assert start("c").wait(300) == 2
    assert "c needs a, b/1, not done with these settings" in log(tmp_path, "c")
    assert start("a").wait(300) == 0
    study = small_study(tmp_path / "out")
    assert list(study.done()) == ["a"]
    assert study.done()["a"].peak_gb > 0
    assert not fake_slurm.kept("scontrol")


def test_a_notice_stops_the_cell_and_the_job_goes_back_into_the_queue(
    start: Callable[[str], subprocess.Popen[bytes]], tmp_path: Path, fake_slurm: Any
) -> None:
    (tmp_path / "folder" / "words").write_text("slow")
    process = start("a")
    path = tmp_path / "out" / "logs" / "a.log"
    wait_for(lambda: path.exists() and "\nat work\n" in path.read_text())
    process.send_signal(signal.SIGUSR1)
    assert process.wait(300) == 75
    assert fake_slurm.kept("scontrol") == "requeue a\n"
    study = small_study(tmp_path / "out", "slow")
    (study.cells["a"].out).mkdir()
    kept = study.record(study.cells["a"])
    assert kept is not None
    assert kept.key == "", "it did not end"
    assert kept.command == study.cells["a"].line()
