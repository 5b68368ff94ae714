"""A real Slurm on this machine: an array, a failed task, what is missing, a signalled and a preempted task."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import real_slurm

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(real_slurm.why_not()), reason=real_slurm.why_not() or "runs"),
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    with real_slurm.slurm(tmp_path_factory.mktemp("slurm")) as found:
        yield {**found, "PYTHONPATH": ":".join(filter(None, paths)), "OMP_NUM_THREADS": "1"}


class Toy:
    """The command of toy_stage.py, in a folder of its own."""

    def __init__(self, root: Path, environment: dict[str, str]) -> None:
        self.root, self.environment, self.out, self.moods = root, environment, root / "toy run", root / "moods"
        self.moods.mkdir(parents=True)

    def __call__(self, *options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "toy_stage", self.out.name, "--moods", "moods", *options]
        return self.ask(*command)

    def ask(self, *command: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment, cwd=self.root)
        assert done.returncode == 0, done.stderr
        return done

    def submit(self, partition: str = "low") -> subprocess.CompletedProcess[str]:
        return self("--executor", "slurm", "--set", f"slurm.partition={partition}")

    def preempt(self) -> None:
        """Take the whole node for a second."""
        self.ask("sbatch", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap", "sleep 1")

    def array(self) -> str:
        """Return the number of the first job array."""
        return min((path.stem for path in (self.out / "logs" / "slurm").glob("*.sh")), key=int)

    def wait(self) -> None:
        """Wait until nothing is in the queue."""
        real_slurm.wait_for(lambda: not self.ask("squeue", "-h").stdout)

    def wait_at_work(self, times: int, number: int = 1) -> None:
        """Wait until somebody works on a slow shard for the so-manieth time."""
        path = self.moods / f"at-work-{number}"
        real_slurm.wait_for(lambda: path.exists() and len(path.read_text().splitlines()) == times)

    def logs(self) -> dict[str, str]:
        """Return what the attempts of the array's tasks logged, by task and attempt."""
        paths = (self.out / "logs" / "slurm").glob("*_*.attempt-*.log")
        return {path.stem.partition("_")[2]: path.read_text() for path in paths}

    def files(self) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in self.out.rglob("*") if p.suffix in (".parquet", ".md")}


@pytest.fixture
def toy(tmp_path: Path, environment: dict[str, str]) -> Iterator[Toy]:
    toy = Toy(tmp_path / "toy", environment)
    yield toy
    subprocess.run(["scancel", "--user=root"], env=environment, check=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> dict[str, bytes]:
    """Return the files of a run in one process."""
    toy = Toy(tmp_path_factory.mktemp("whole"), environment)
    toy()
    return toy.files()


def test_a_failed_task_is_all_that_is_submitted_again(toy: Toy, whole: dict[str, bytes]) -> None:
    (toy.moods / "bad-1").touch()
    first = toy.submit()
    assert "3 of 3 shards are left" in first.stderr
    toy.wait()
    manifests = toy.out / "manifests"
    assert sorted(p.stem for p in manifests.iterdir()) == ["train-00000-of-00003", "train-00002-of-00003"]
    assert "shard train-00001-of-00003 is bad" in toy.logs()["1.attempt-0"]
    assert "not done: shards 1. Mend what is said above" in toy.logs()["1.attempt-0"]
    assert not (toy.out / "README.md").exists(), "the last step waits for what never came, and is cancelled"
    (toy.moods / "bad-1").unlink()
    second = toy.submit()
    scripts = toy.out / "logs" / "slurm"
    arrays = [re.findall("--array=(.*)", path.read_text()) for path in sorted(scripts.glob("*.sh"))]
    assert sorted(found for one in arrays for found in one) == ["0-2", "1"]
    toy.wait()
    assert toy.files() == whole
    assert (scripts / f"{second.stdout.strip()}.attempt-0.log").exists(), "the number printed is that of the last step"
    third = toy.submit()
    assert third.stdout == ""
    assert "nothing to submit" in third.stderr


def test_a_signalled_and_then_preempted_task_goes_on(toy: Toy, whole: dict[str, bytes]) -> None:
    (toy.moods / "slow-2").touch()  # of all tasks that one whose job number is the array's
    last = toy.submit().stdout.strip()
    toy.wait_at_work(1, 2)
    assert "is in the queue, nothing to submit" in toy.submit().stderr
    real_slurm.wait_for(lambda: len(list((toy.out / "manifests").glob("*.json"))) == 2)
    job = toy.array()
    toy.ask("scancel", "--batch", "--signal=USR1", f"{job}_2")
    toy.wait_at_work(2, 2)
    assert "stopped in good order" in toy.logs()["2.attempt-0"]
    assert "back into the queue" in toy.logs()["2.attempt-0"]
    toy.preempt()
    toy.wait_at_work(3, 2)
    slurm_said = (toy.out / "logs" / "slurm" / f"{job}_2.slurm.log").read_text()
    assert "PREEMPTION" in slurm_said
    (toy.moods / "go").touch()
    toy.wait()
    assert toy.files() == whole
    assert set(toy.logs()) == {"0.attempt-0", "1.attempt-0", "2.attempt-0", "2.attempt-1", "2.attempt-2"}
    assert "exit code 0" in (toy.out / "logs" / "slurm" / f"{last}.attempt-0.log").read_text()


def test_a_task_that_is_preempted_with_grace_stops_in_good_order(toy: Toy) -> None:
    (toy.moods / "slow-1").touch()
    toy.submit("graced")
    toy.wait_at_work(1)
    toy.preempt()
    toy.wait_at_work(2)  # Slurm requeues it
    assert "stopped in good order" in toy.logs()["1.attempt-0"]
    (toy.moods / "go").touch()
    toy.wait()
    assert (toy.out / "README.md").exists()


def test_a_cancelled_array_does_not_come_back(toy: Toy) -> None:
    (toy.moods / "slow-1").touch()
    toy.submit()
    toy.wait_at_work(1)
    job = toy.array()
    toy.ask("scancel", job)
    toy.wait()
    assert "1.attempt-1" not in toy.logs()


def test_the_script_for_chains_goes_on_and_lets_the_next_one_wait(toy: Toy, whole: dict[str, bytes]) -> None:
    page = (Path(__file__).parents[3] / "docs" / "cluster-slurm.md").read_text()
    (script,) = re.findall(r"```bash\n(#!/bin/bash.*?)```", page, re.DOTALL)
    (toy.root / "job.sh").write_text(script)
    (toy.moods / "slow-1").touch()
    command = [sys.executable, "-m", "toy_stage", toy.out.name, "--moods", "moods"]
    job = toy.ask("sbatch", "--parsable", "--job-name=first", "job.sh", *command).stdout.strip()
    options = [f"--dependency=afterok:{job}", "--kill-on-invalid-dep=yes", "--job-name=second"]
    toy.ask("sbatch", *options, "job.sh", "cp", str(toy.out / "README.md"), "copy.md")
    toy.wait_at_work(1)
    toy.ask("scancel", "--signal=USR1", job)  # as Slurm does before the time limit: to the steps
    toy.wait_at_work(2)
    assert not (toy.root / "copy.md").exists()
    (toy.moods / "go").touch()
    toy.wait()
    assert toy.files() == whole
    assert (toy.root / "copy.md").read_bytes() == whole["README.md"]
    assert "stopped in good order" in (toy.root / f"first-{job}.log").read_text()


def test_the_script_for_training_starts_all_processes_and_goes_back_into_the_queue(toy: Toy) -> None:
    page = (Path(__file__).parents[3] / "docs" / "cluster-training.md").read_text()
    (script,) = re.findall(r"```bash\n(#!/bin/bash.*?)```", page, re.DOTALL)
    assert " --gpus-per-node=4 " in script
    (toy.root / "train.sh").write_text(script.replace(" --gpus-per-node=4 ", " "))  # this Slurm knows of none
    (toy.root / "process.sh").write_text(
        'echo "process $RANK of $WORLD_SIZE, here $LOCAL_RANK, first at $MASTER_ADDR:$MASTER_PORT"\n'
        "trap 'sleep $RANK; echo told $RANK; exit 75' USR1\n"
        '[ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] && exit 0\n'
        'touch "at-work-$RANK"; while true; do sleep 0.1; done\n'
    )
    size = ["--nodes=1", "--ntasks-per-node=2", "--cpus-per-task=1", "--job-name=train"]
    job = toy.ask("sbatch", "--parsable", *size, "train.sh", "bash", "process.sh").stdout.strip()
    real_slurm.wait_for(lambda: len(list(toy.root.glob("at-work-*"))) == 2)
    toy.ask("scancel", "--batch", "--signal=USR1", job)
    toy.wait()
    log = (toy.root / f"train-{job}.log").read_text()
    where = re.findall(r"process (\d) of 2, here (\d), first at (\S+):\d+\n", log)
    assert sorted(rank + here for rank, here, _ in where) == ["00", "00", "11", "11"], log
    assert len({host for _, _, host in where}) == 1
    assert sorted(re.findall(r"told (\d)", log)) == ["0", "1"], "nobody is ended by another one's end"


def test_the_script_for_training_lets_failures_be(toy: Toy) -> None:
    page = (Path(__file__).parents[3] / "docs" / "cluster-training.md").read_text()
    (script,) = re.findall(r"```bash\n(#!/bin/bash.*?)```", page, re.DOTALL)
    (toy.root / "train.sh").write_text(script.replace(" --gpus-per-node=4 ", " "))
    size = ["--nodes=1", "--ntasks-per-node=2", "--cpus-per-task=1", "--job-name=train"]
    command = ["bash", "-c", 'echo "attempt ${SLURM_RESTART_COUNT:-0}"; exit $((75 - RANK))']
    job = toy.ask("sbatch", "--parsable", *size, "train.sh", *command).stdout.strip()
    toy.wait()
    assert (toy.root / f"train-{job}.log").read_text().count("attempt 0") == 2
    assert "attempt 1" not in (toy.root / f"train-{job}.log").read_text(), "75 that nobody asked for"
