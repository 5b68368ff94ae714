"""Submission to, and scripts for, a Slurm that is not there; test_real_slurm.py has the real one."""

import dataclasses
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from fake_slurm import option
from waiting import wait_for

from sclmkb.common.errors import UserError
from sclmkb.common.executors.choose import choose_executor
from sclmkb.common.executors.local import Local
from sclmkb.common.executors.slurm import Slurm, refuse_new_run
from sclmkb.common.executors.slurm_script import Job, SlurmSettings
from sclmkb.common.options import ExecutorName, RunOptions


def submit(stage: Any, *, print_only: bool = False, **settings: Any) -> None:
    slurm = Slurm(settings=SlurmSettings(**settings), command=["do", "it well"], print_only=print_only)
    assert slurm.execute(stage.work()) is None


# Submission


def test_only_what_is_missing_is_submitted(stage: Any, fake_slurm: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Local("1,3").execute(stage.work())
    submit(stage)
    (array, no_options), (finish, dependency) = fake_slurm.submitted().values()
    assert option(array, "array") == "0,2,4"
    assert no_options == "--parsable"
    assert dependency == "--parsable --dependency=afterok:101"
    assert option(finish, "job-name") == f"{option(array, 'job-name')}-finish"
    assert "--array" not in finish
    said = capsys.readouterr()
    assert said.out == "102\n", "what another job may depend on"
    assert "3 of 5 shards are left, submitted as job 101" in said.err
    assert {p.name for p in (stage.out / "logs" / "slurm").iterdir()} == {"101.sh", "102.sh"}
    assert stage.made == ["train-00001-of-00005", "train-00003-of-00005"], "the driver makes nothing"


def test_what_is_in_the_queue_is_not_submitted_again(
    stage: Any, fake_slurm: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    Local("1,3").execute(stage.work())
    fake_slurm.queue("7 0 shards_per_task=1", "7 4 shards_per_task=1", "8 N/A (null)")
    submit(stage)
    array, finish = fake_slurm.submitted().values()
    assert option(array[0], "array") == "2"
    assert finish[1] == "--parsable --dependency=afterany:7,afterok:101"
    name = option(array[0], "job-name")
    assert f"--name={name},{name}-finish" in fake_slurm.kept("asked")
    fake_slurm.queue("7 0 shards_per_task=1", "7 4 ", "9 2 own words", "10 N/A (null)")
    capsys.readouterr()
    submit(stage)
    assert len(fake_slurm.submitted()) == 2
    assert capsys.readouterr().out == "10\n"


def test_scripts_and_logs_go_where_the_setting_says(
    stage: Any, fake_slurm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    submit(stage, logs="a/b")
    assert {p.name for p in (tmp_path / "a" / "b").iterdir()} == {"101.sh", "102.sh"}
    scripts = [script for script, _ in fake_slurm.submitted().values()]
    outputs = [f"{tmp_path}/a/b/{pattern}.slurm.log" for pattern in ("%A_%a", "%j")]
    assert [option(script, "output") for script in scripts] == outputs
    assert all(f'\nexec >>{tmp_path}/a/b/"' in script for script in scripts)
    assert f"logs are in {tmp_path}/a/b\n" in capsys.readouterr().err
    fake_slurm.queue("7 0 shards_per_task=1")
    with pytest.raises(UserError, match="scancel 7 before --new-run"):
        refuse_new_run("toy", stage.out)


def test_a_setting_that_names_no_folder_is_said(stage: Any, fake_slurm: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"slurm.logs: .*/file cannot be made \(File exists\): name another folder"):
        submit(stage, logs=tmp_path / "file")
    assert not fake_slurm.submitted()


def test_nothing_to_do_asks_nobody(stage: Any, fake_slurm: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Local().execute(stage.work())
    submit(stage)
    submit(stage, print_only=True)
    assert not fake_slurm.submitted()
    assert not fake_slurm.kept("asked")
    assert capsys.readouterr().out == ""


def test_a_missing_last_step_is_submitted_alone(stage: Any, fake_slurm: Any) -> None:
    Local().execute(stage.work())
    (stage.out / "README.md").unlink()
    submit(stage)
    ((script, options),) = fake_slurm.submitted().values()
    assert "do 'it well' --shards none &" in script
    assert options == "--parsable"


def test_neighbours_share_a_task(stage: Any, fake_slurm: Any) -> None:
    Local("2-3").execute(stage.work())
    submit(stage, shards_per_task=2, max_running=1)
    array = fake_slurm.submitted()["101"][0]
    assert option(array, "array") == "0,2%1"
    assert "#SBATCH --comment=shards_per_task=2\n" in array
    fake_slurm.queue("101 0 shards_per_task=2")
    submit(stage)
    assert option(fake_slurm.submitted()["103"][0], "array") == "4", "task 0 of the first array has shards 0 and 1"


def test_runs_in_other_folders_have_other_names(stage: Any, fake_slurm: Any, tmp_path: Path) -> None:
    submit(stage)
    submit(type(stage)(tmp_path / "other"))
    scripts = [script for script, _ in fake_slurm.submitted().values()]
    assert len({option(script, "job-name") for script in scripts}) == 4


def test_the_script_is_printed(stage: Any, fake_slurm: Any, capsys: pytest.CaptureFixture[str]) -> None:
    submit(stage, print_only=True)
    printed = capsys.readouterr().out
    assert printed.startswith("#!/bin/bash\n")
    assert option(printed, "array") == "0-4"
    assert not fake_slurm.submitted()
    assert (stage.out / "plan.json").exists(), "the plan is frozen before anybody can start a task"
    fake_slurm.queue("7 0 shards_per_task=3", "7 1 shards_per_task=3")
    submit(stage, print_only=True)
    assert capsys.readouterr().out == ""


def test_without_slurm(stage: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    submit(stage, print_only=True)
    with pytest.raises(UserError, match="there is no squeue here: run this where jobs are submitted"):
        submit(stage)


def test_what_sbatch_refuses_is_said(stage: Any, fake_slurm: Any) -> None:
    fake_slurm.write("sbatch", "echo 'sbatch: error: Invalid job array specification' >&2; exit 1")
    with pytest.raises(UserError, match=r"Invalid job array specification; .* slurm.shards_per_task=N"):
        submit(stage)


def test_a_run_with_jobs_is_not_set_aside(stage: Any, fake_slurm: Any) -> None:
    fake_slurm.queue("7 0 shards_per_task=1", "7 4 shards_per_task=1", "8 N/A (null)")
    refuse_new_run("toy", stage.out)
    assert not fake_slurm.kept("asked"), "nothing of this run was ever submitted"
    fake_slurm.queue()
    submit(stage)
    refuse_new_run("toy", stage.out)
    fake_slurm.queue("7 0 shards_per_task=1", "7 4 shards_per_task=1", "8 N/A (null)")
    for executor in ExecutorName:
        with pytest.raises(UserError, match="scancel 7 8 before --new-run"):
            choose_executor(RunOptions(executor=executor, new_run=True), "toy", stage.out)


def test_a_job_that_submits_does_not_pass_on_what_it_is(
    stage: Any, fake_slurm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    submit(stage)
    environment = (fake_slurm.root / "101.env").read_text()
    assert "SLURM_RESTART_COUNT" not in environment
    assert "SLURM_CONF=/etc/slurm.conf" in environment


# Scripts


def test_settings_become_options(tmp_path: Path) -> None:
    settings = SlurmSettings(
        partition="gpu", hours=1.5, gpus="a100:2", cpus=8, memory_gb=24, sbatch=("--account=vision",), notice_s=300,
        setup=("module load cuda",),
    )  # fmt: skip
    job = Job(settings=settings, name="n", command=["do"], logs=tmp_path / "50% l")
    array = job.array("0-3", 4).splitlines()
    for wanted in (
        "--array=0-3", "--partition=gpu", "--time=90", "--gpus=a100:2", "--cpus-per-task=8", "--mem=24576M",
        "--account=vision", "--signal=B:USR1@300", "--requeue", f"--chdir={Path.cwd()}",
    ):  # fmt: skip
        assert f"#SBATCH {wanted}" in array
    assert f'#SBATCH "--output={tmp_path}/50%% l/%A_%a.slurm.log"' in array
    assert "module load cuda" in array
    assert option(job.single("task", "key"), "gpus") == "a100:2"
    finish = job.last_step()
    assert not option(finish, "gpus") + option(finish, "array")
    assert option(finish, "kill-on-invalid-dep") == "yes"
    plain = dataclasses.replace(job, settings=SlurmSettings()).array("0", 1)
    assert not re.search("partition|--time|--gpus|--mem", plain)


def test_a_single_job_says_what_it_does(fake_slurm: Any, tmp_path: Path) -> None:
    script = Job(settings=SlurmSettings(), name="n", command=["echo", "a b"], logs=tmp_path).single("cell it's", "key")
    assert option(script, "comment") == "key"
    subprocess.run(["bash", "-c", script], env={**os.environ, "SLURM_JOB_ID": "7"}, check=True, timeout=30)
    log = (tmp_path / "7.attempt-0.log").read_text()
    assert re.search(r": cell it's, attempt 0\na b\n.*cell it's: exit code 0", log)


class Task:
    """A script, run as Slurm runs it, of a command that says what it got and does what a test wants."""

    def __init__(self, fake: Any, root: Path, command: str, state: str = "RUNNING", **settings: Any) -> None:
        self.fake, self.state, self.logs = fake, state, root / "log s"
        self.logs.mkdir(parents=True)
        program = root / "command"
        program.write_text(f'#!/bin/bash\necho "given: $@"\n{command}\n')
        program.chmod(0o755)
        job = Job(settings=SlurmSettings(**settings), name="toy", command=[str(program), "a b"], logs=self.logs)
        self.script = job.array("0-2", 8)

    def start(self, number: int, attempt: int = 0) -> subprocess.Popen[bytes]:
        given = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": str(number), "SLURM_JOB_ID": f"7{number}"}
        given |= {"SLURM_RESTART_COUNT": str(attempt)} if attempt else {}
        self.fake.queue(self.state)
        return subprocess.Popen(["bash", "-c", self.script], env={**os.environ, **given}, start_new_session=True)

    def log(self, number: int, attempt: int = 0) -> str:
        path = self.logs / f"7_{number}.attempt-{attempt}.log"
        return path.read_text() if path.exists() else ""

    def signal_when_ready(self, number: int, signum: int) -> int:
        process = self.start(number)
        wait_for(lambda: "ready" in self.log(number))
        process.send_signal(signum)
        return process.wait(30)


STOPS_WELL = "trap 'echo told; exit 75' USR1\necho ready\nfor i in {1..300}; do sleep 0.1; done"


@pytest.mark.parametrize(("number", "shards"), [(0, "0-2"), (1, "3-5"), (2, "6-7")])
def test_a_task_does_its_shards(fake_slurm: Any, tmp_path: Path, number: int, shards: str) -> None:
    task = Task(fake_slurm, tmp_path / "t", "exit 0", shards_per_task=3)
    assert task.start(number).wait(30) == 0
    assert f"given: a b --shards {shards}\n" in task.log(number)
    assert not fake_slurm.kept("scontrol")


def test_a_notice_reaches_the_command_and_the_task_goes_back_into_the_queue(fake_slurm: Any, tmp_path: Path) -> None:
    task = Task(fake_slurm, tmp_path / "t", STOPS_WELL)
    assert task.signal_when_ready(2, signal.SIGUSR1) == 75
    assert "told" in task.log(2)
    assert "--jobs=7_2 " in fake_slurm.kept("asked")
    assert fake_slurm.kept("scontrol") == "requeue 7_2\n"


def test_a_cancelled_task_stays_cancelled(fake_slurm: Any, tmp_path: Path) -> None:
    task = Task(fake_slurm, tmp_path / "t", "echo ready\nsleep 0.5\nexit 75", state="COMPLETING")
    assert task.signal_when_ready(2, signal.SIGTERM) == 75
    assert not fake_slurm.kept("scontrol")


def test_what_fails_is_not_requeued_and_says_what_to_do(fake_slurm: Any, tmp_path: Path) -> None:
    task = Task(fake_slurm, tmp_path / "t", "echo 'error: no such model' >&2; exit 2")
    assert task.start(1).wait(30) == 2
    assert "error: no such model" in task.log(1)
    assert "not done: shards 1. Mend what is said above" in task.log(1)
    assert not fake_slurm.kept("scontrol")


def test_every_attempt_has_a_log_and_they_are_limited(fake_slurm: Any, tmp_path: Path) -> None:
    task = Task(fake_slurm, tmp_path / "t", "exit 75", max_requeues=1)
    assert [task.start(0).wait(30), task.start(0, attempt=1).wait(30)] == [75, 75]
    assert "back into the queue" in task.log(0)
    assert "not requeued" in task.log(0, attempt=1)
    assert fake_slurm.kept("scontrol") == "requeue 7_0\n"
    task.start(0).wait(30)
    assert task.log(0).count("attempt 0") == 2, "a number that comes twice is no reason to lose a log"
