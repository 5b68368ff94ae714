"""What only a real Slurm shows: grace before a preemption, a cancelled array, and the scripts of the docs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from toy_runs import OnSlurm, Toy
from waiting import wait_for

pytestmark = [pytest.mark.long, pytest.mark.parametrize("runner", ["slurm"], indirect=True)]
TWO_PROCESSES = ["--nodes=1", "--ntasks-per-node=2", "--cpus-per-task=1", "--job-name=train"]
DOCS = Path(__file__).parents[3] / "docs"


def ask(toy: Toy, *command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=toy.environment, cwd=toy.root)
    assert done.returncode == 0, done.stderr
    return done.stdout


def script_of(page: str) -> str:
    """Return the batch script of a document."""
    (script,) = re.findall(r"```bash\n(#!/bin/bash.*?)```", (DOCS / page).read_text(), re.DOTALL)
    return str(script)


def write_training_script(toy: Toy) -> None:
    script = script_of("cluster-training.md")
    assert " --gpus-per-node=4 " in script
    (toy.root / "train.sh").write_text(script.replace(" --gpus-per-node=4 ", " "))  # this Slurm knows of none


def logs(toy: Toy) -> dict[str, str]:
    """Return what the attempts of the array's tasks logged, by task and attempt."""
    paths = (toy.out / "logs" / "slurm").glob("*_*.attempt-*.log")
    return {path.stem.partition("_")[2]: path.read_text() for path in paths}


def test_a_task_that_is_preempted_with_grace_stops_in_good_order(toy: Toy, runner: OnSlurm) -> None:
    toy.mood("slow-1")
    toy.start("--executor=slurm", "--set=slurm.partition=graced").wait(240)
    wait_for(lambda: toy.times_at_work(1) == 1)
    runner.preempt()
    wait_for(lambda: toy.times_at_work(1) == 2)  # Slurm requeues it
    assert "stopped in good order" in logs(toy)["1.attempt-0"]
    toy.mood("go")
    runner.wait(toy)
    assert (toy.out / "README.md").exists()


def test_a_cancelled_array_does_not_come_back(toy: Toy, runner: OnSlurm) -> None:
    toy.mood("slow-1")
    runner.run(toy)
    wait_for(lambda: toy.times_at_work(1) == 1)
    job = runner.array(toy)
    ask(toy, "scancel", job)
    runner.wait(toy)
    assert "1.attempt-1" not in logs(toy)


def test_the_script_for_chains_goes_on_and_lets_the_next_one_wait(toy: Toy, runner: OnSlurm) -> None:
    (toy.root / "job.sh").write_text(script_of("cluster-slurm.md"))
    toy.mood("slow-1")
    command = [sys.executable, "-m", "toy_stage", toy.out.name, "--moods", "moods"]
    job = ask(toy, "sbatch", "--parsable", "--job-name=first", "job.sh", *command).strip()
    options = [f"--dependency=afterok:{job}", "--kill-on-invalid-dep=yes", "--job-name=second"]
    ask(toy, "sbatch", *options, "job.sh", "cp", str(toy.out / "README.md"), "copy.md")
    wait_for(lambda: toy.times_at_work(1) == 1)
    ask(toy, "scancel", "--signal=USR1", job)  # as Slurm does before the time limit: to the steps
    wait_for(lambda: toy.times_at_work(1) == 2)
    assert not (toy.root / "copy.md").exists()
    toy.mood("go")
    runner.wait(toy)
    assert toy.done() == ["0", "1", "2"]
    assert (toy.root / "copy.md").read_bytes() == (toy.out / "README.md").read_bytes()
    assert "stopped in good order" in (toy.root / f"first-{job}.log").read_text()


def test_the_script_for_training_starts_all_processes_and_goes_back_into_the_queue(toy: Toy, runner: OnSlurm) -> None:
    write_training_script(toy)
    (toy.root / "process.sh").write_text(
        'echo "process $RANK of $WORLD_SIZE, here $LOCAL_RANK, first at $MASTER_ADDR:$MASTER_PORT"\n'
        "trap 'sleep $RANK; echo told $RANK; exit 75' USR1\n"
        '[ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] && exit 0\n'
        'touch "at-work-$RANK"; while true; do sleep 0.1; done\n'
    )
    job = ask(toy, "sbatch", "--parsable", *TWO_PROCESSES, "train.sh", "bash", "process.sh").strip()
    wait_for(lambda: len(list(toy.root.glob("at-work-*"))) == 2)
    ask(toy, "scancel", "--batch", "--signal=USR1", job)
    runner.wait(toy)
    log = (toy.root / f"train-{job}.log").read_text()
    where = re.findall(r"process (\d) of 2, here (\d), first at (\S+):\d+\n", log)
    assert sorted(rank + here for rank, here, _ in where) == ["00", "00", "11", "11"], log
    assert len({host for _, _, host in where}) == 1
    assert sorted(re.findall(r"told (\d)", log)) == ["0", "1"], "nobody is ended by another one's end"


def test_the_script_for_training_lets_failures_be(toy: Toy, runner: OnSlurm) -> None:
    write_training_script(toy)
    command = ["bash", "-c", 'echo "attempt ${SLURM_RESTART_COUNT:-0}"; exit $((75 - RANK))']
    job = ask(toy, "sbatch", "--parsable", *TWO_PROCESSES, "train.sh", *command).strip()
    runner.wait(toy)
    assert (toy.root / f"train-{job}.log").read_text().count("attempt 0") == 2
    assert "attempt 1" not in (toy.root / f"train-{job}.log").read_text(), "75 that nobody asked for"
