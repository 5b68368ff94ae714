"""Runs of a command with shards, by each executor, and what can happen to those who work on one.

Files in the folder ``moods`` of a run say what happens to its shards: of toy_stage.py, or of gated_sdg.py.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import real_ray
from waiting import wait_for


class Toy:
    """The command in a folder of its own, and what is seen of it from there."""

    def __init__(self, root: Path, environment: dict[str, str], module: str = "toy_stage", *words: str) -> None:
        paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        self.environment = {**environment, "PYTHONPATH": ":".join(filter(None, paths))}
        self.root, self.out, self.moods = root, root / "toy run", root / "moods"
        self.words = [sys.executable, "-m", module, self.out.name, "--moods", "moods", *words]
        self.moods.mkdir(parents=True)
        (root / "said").touch()  # a script may start the command in its place
        self.commands: list[subprocess.Popen[bytes]] = []

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        where: dict[str, Any] = {"env": self.environment, "cwd": self.root, "start_new_session": True}
        with (self.root / "said").open("ab") as said:
            self.commands.append(subprocess.Popen([*self.words, *options], stdout=said, stderr=said, **where))
        return self.commands[-1]

    def said(self) -> str:
        """Return what the command said, and its jobs."""
        paths = [self.root / "said", *sorted((self.out / "logs" / "slurm").glob("*.log"))]
        lines = [line for path in paths for line in path.read_text().splitlines() if "[state-dump]" not in line]
        return "\n".join(lines)

    def mood(self, name: str) -> None:
        (self.moods / name).touch()

    def times_at_work(self, number: int | str = "*") -> int:
        """Return how often a slow or deadly shard was begun, or any of them."""
        return sum(len(path.read_text().splitlines()) for path in self.moods.glob(f"at-work-{number}"))

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
        wait_for(lambda: toy.times_at_work() == times or toy.commands[-1].poll() is not None)
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
        assert toy.commands[-1].wait(400) == code, toy.said()
        return toy.said()

    def end(self, toy: Toy) -> None:
        for command in toy.commands:
            real_ray.kill(real_ray.family(command.pid))


class OnRay(Here):
    """Actors on nodes of one core each; lost is the only actor, or a node with its actor."""

    def __init__(self, cluster: real_ray.Cluster, node: subprocess.Popen[bytes] | None = None) -> None:
        self.cluster, self.node, self.environment = cluster, node, cluster.environment
        self.options = ("--executor=ray", f"--ray-address={cluster.address}", "--set=ray.max_attempts=2")

    def lose(self, toy: Toy) -> None:
        if self.node is not None:
            self.cluster.lose(self.node)
        else:
            (worker,) = self._workers()
            real_ray.kill([worker])
        wait_for(lambda: "goes to another actor" in toy.said())

    def tell(self, toy: Toy) -> None:
        workers = self._workers()
        super().tell(toy)
        wait_for(lambda: not real_ray.living(workers), 60)

    def _workers(self) -> list[psutil.Process]:
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
        wait_for(lambda: toy.times_at_work() == times)

    def lose(self, toy: Toy) -> None:
        """Preempt all that is at work: another job takes the whole node for a second."""
        before = toy.times_at_work()
        self.preempt()
        wait_for(lambda: toy.times_at_work() > before)  # Slurm requeues it
        assert "PREEMPTION" in toy.said()

    def tell(self, toy: Toy) -> None:
        self._ask("scancel", "--batch", "--signal=USR1", f"{self.array(toy)}_2")

    def preempt(self) -> None:
        """Take the whole node for a second."""
        self._ask("sbatch", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap", "sleep 1")

    def array(self, toy: Toy) -> str:
        """Return the number of the first job array."""
        return min((path.stem for path in (toy.out / "logs" / "slurm").glob("*.sh")), key=int)

    def wait(self, toy: Toy, code: int = 0) -> str:
        wait_for(lambda: not self._ask("squeue", "-h"))
        return toy.said()

    def end(self, toy: Toy) -> None:
        self._ask("scancel", "--user=root")

    def _ask(self, *command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, env=self.environment, check=True).stdout
