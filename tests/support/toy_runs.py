"""Runs of the command of toy_stage.py, by each executor, and what can happen to those who work on one.

Files in the folder ``moods`` of a run say what happens to each of its three shards.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import real_ray
import real_slurm


class Toy:
    """The command of toy_stage.py in a folder of its own, and what is seen of it from there."""

    def __init__(self, root: Path, environment: dict[str, str]) -> None:
        paths = [str(Path(__file__).parents[1] / "common" / "executors"), os.environ.get("PYTHONPATH", "")]
        self.environment = {**environment, "PYTHONPATH": ":".join(filter(None, paths))}
        self.root, self.out, self.moods = root, root / "toy run", root / "moods"
        self.words = [sys.executable, "-m", "toy_stage", self.out.name, "--moods", "moods"]
        self.moods.mkdir(parents=True)
        (root / "said").touch()  # a script may start the command in its place
        self.commands: list[subprocess.Popen[bytes]] = []

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        where: dict[str, Any] = {"env": self.environment, "cwd": self.root, "start_new_session": True}
        with (self.root / "said").open("ab") as said:
            self.commands.append(subprocess.Popen([*self.words, *options], stdout=said, stderr=said, **where))
        return self.commands[-1]

    def said(self) -> str:
        return (self.root / "said").read_text()

    def mood(self, name: str) -> None:
        (self.moods / name).touch()

    def times_at_work(self, number: int = 2) -> int:
        """Return how often a slow or deadly shard was begun."""
        path = self.moods / f"at-work-{number}"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def done(self) -> list[str]:
        """Return the numbers of the shards that are committed."""
        return sorted(path.stem.split("-")[1].lstrip("0") or "0" for path in (self.out / "manifests").glob("*.json"))

    def files(self) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in self.out.rglob("*") if p.suffix in (".parquet", ".md")}


class Here:
    """The command alone: who loses its process starts it again."""

    options: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.environment = dict(os.environ)

    def run(self, toy: Toy) -> None:
        toy.start(*self.options)

    def wait_at_work(self, toy: Toy, times: int) -> None:
        real_ray.wait_for(lambda: toy.times_at_work() == times or toy.commands[-1].poll() is not None)
        assert toy.times_at_work() == times, toy.said()

    def lose(self, toy: Toy) -> None:
        """Lose who works on the slow shard, without a word."""
        toy.commands[-1].kill()
        toy.commands[-1].wait()
        self.run(toy)

    def tell(self, toy: Toy) -> None:
        """Tell who works on the slow shard to stop in good order, and start anew what does not come back by itself."""
        toy.commands[-1].send_signal(signal.SIGTERM)
        assert toy.commands[-1].wait(240) == 75, toy.said()
        self.run(toy)

    def wait(self, toy: Toy, code: int = 0) -> str:
        """Wait until nothing is at work; return what was said."""
        assert toy.commands[-1].wait(240) == code, toy.said()
        return toy.said()

    def end(self, toy: Toy) -> None:
        for command in toy.commands:
            real_ray.kill(real_ray.family(command.pid))


class OnRay(Here):
    """Actors on two nodes of one core each: the second one can be lost."""

    def __init__(self, cluster: real_ray.Cluster) -> None:
        self.cluster, self.environment = cluster, cluster.environment
        self.options = ("--executor=ray", f"--ray-address={cluster.address}", "--set=ray.max_attempts=2")

    def lose(self, toy: Toy) -> None:
        (worker,) = self._workers()
        real_ray.kill([worker])
        real_ray.wait_for(lambda: "goes to another actor" in toy.said())

    def tell(self, toy: Toy) -> None:
        workers = self._workers()
        super().tell(toy)
        real_ray.wait_for(lambda: not real_ray.living(workers), 60)

    def _workers(self) -> list[Any]:
        alive = real_ray.living(p for node in self.cluster.nodes for p in real_ray.family(node.pid))
        return [p for p in alive if "_Maker" in "".join(p.cmdline())]


class OnSlurm(Here):
    """Tasks of an array, which Slurm puts back into the queue."""

    options = ("--executor=slurm", "--set=slurm.partition=low")

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment

    def run(self, toy: Toy) -> None:
        assert toy.start(*self.options).wait(240) == 0, toy.said()

    def wait_at_work(self, toy: Toy, times: int) -> None:
        real_slurm.wait_for(lambda: toy.times_at_work() == times)

    def lose(self, toy: Toy) -> None:
        """Preempt it: another job takes the whole node for a second."""
        self.preempt()
        self.wait_at_work(toy, 2)
        assert any("PREEMPTION" in path.read_text() for path in (toy.out / "logs" / "slurm").glob("*.slurm.log"))

    def tell(self, toy: Toy) -> None:
        self._ask("scancel", "--batch", "--signal=USR1", f"{self.array(toy)}_2")

    def preempt(self) -> None:
        """Take the whole node for a second."""
        self._ask("sbatch", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap", "sleep 1")

    def array(self, toy: Toy) -> str:
        """Return the number of the first job array."""
        return min((path.stem for path in (toy.out / "logs" / "slurm").glob("*.sh")), key=int)

    def wait(self, toy: Toy, code: int = 0) -> str:
        real_slurm.wait_for(lambda: not self._ask("squeue", "-h"))
        logs = (path.read_text() for path in (toy.out / "logs" / "slurm").glob("*.log"))
        return "\n".join((toy.said(), *logs))

    def end(self, toy: Toy) -> None:
        self._ask("scancel", "--user=root")

    def _ask(self, *command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, env=self.environment, check=True).stdout
