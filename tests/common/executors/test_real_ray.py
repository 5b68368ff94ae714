"""A real Ray on this machine: two nodes one of which is lost, shards that fail, a driver that is stopped or killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import real_ray

pytest.importorskip("ray", reason="Ray is not installed: pip install 'sclmkb[ray]'")
pytestmark = [pytest.mark.long]


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    own = {"PYTHONPATH": ":".join(filter(None, paths)), "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}
    return {**os.environ, **own, "RAY_ADDRESS": ""}


@pytest.fixture(scope="module")
def cluster(environment: dict[str, str]) -> Iterator[Any]:
    """Start a cluster of one node, end it, and see that nothing is left of it."""
    with real_ray.cluster(environment) as found:
        yield found
        processes = [p for node in found.nodes for p in real_ray.family(node.pid)]
    assert not real_ray.living(processes)


@pytest.fixture
def second_node(cluster: Any) -> Iterator[Any]:
    node = cluster.add()
    yield node
    cluster.lose(node)


class Command:
    """A command with Ray as its executor, in a session of its own."""

    def __init__(self, words: Sequence[str], out: Path, environment: dict[str, str], address: str | None) -> None:
        self.log = out.with_suffix(".log")
        self.out, where = out, [f"--ray-address={address}"] if address else []
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *words, "--executor", "ray", *where],
                stderr=file, env=environment, cwd=out.parent, start_new_session=True,
            )  # fmt: skip

    def said(self) -> str:
        return self.log.read_text()

    def end(self, code: int = 0) -> None:
        assert self.process.wait(240) == code, self.said()

    def wait_for(self, what: Callable[[], object]) -> None:
        real_ray.wait_for(lambda: what() or self.process.poll() is not None)
        assert self.process.poll() is None, self.said()


class Toy:
    """The command of toy_stage.py, in a folder of its own."""

    def __init__(self, root: Path, environment: dict[str, str]) -> None:
        self.root, self.environment, self.out, self.moods = root, environment, root / "run", root / "moods"
        self.moods.mkdir(parents=True)
        self.commands: list[Command] = []
        self.words = ["toy_stage", self.out.name, "--moods", "moods"]

    def start(self, address: str | None, *options: str) -> Command:
        self.commands.append(Command([*self.words, *options], self.out, self.environment, address))
        return self.commands[-1]

    def at_work(self) -> list[int]:
        """Return how often each slow or deadly shard was begun."""
        paths = [self.moods / f"at-work-{number}" for number in range(3)]
        return [len(path.read_text().splitlines()) if path.exists() else 0 for path in paths]


@pytest.fixture
def toy(tmp_path: Path, environment: dict[str, str]) -> Iterator[Toy]:
    toy = Toy(tmp_path / "toy", environment)
    yield toy
    for command in toy.commands:
        real_ray.kill(real_ray.family(command.process.pid))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> dict[str, bytes]:
    """Return the files of a run in one process."""
    toy = Toy(tmp_path_factory.mktemp("whole"), environment)
    subprocess.run([sys.executable, "-m", *toy.words], check=True, env=environment, cwd=toy.root)
    return files(toy.out)


def files(root: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in root.rglob("*") if p.suffix in (".parquet", ".md")}


def manifests(root: Path) -> int:
    return len(list((root / "manifests").glob("*.json")))


def test_the_shard_of_a_lost_node_goes_to_another(
    toy: Toy, cluster: Any, second_node: Any, whole: dict[str, bytes]
) -> None:
    for number in (0, 1):
        (toy.moods / f"slow-{number}").touch()
    command = toy.start(cluster.address)
    command.wait_for(lambda: toy.at_work() == [1, 1, 0])  # one on each node
    cluster.lose(second_node)
    (toy.moods / "go").touch()
    command.end()
    assert sorted(toy.at_work()) == [0, 1, 2]
    assert "goes to another actor" in command.said()
    assert files(toy.out) == whole


def test_failed_shards_are_named_and_made_again(toy: Toy, cluster: Any, whole: dict[str, bytes]) -> None:
    (toy.moods / "bad-0").touch()
    (toy.moods / "deadly-1").touch()
    command = toy.start(cluster.address, "--set", "ray.max_attempts=2")
    command.end(2)
    line = command.said().splitlines()[-1]
    assert "error: shards 0-1 of run are not done; shard 0 (train-00000-of-00003): on " in line
    assert "shard train-00000-of-00003 is bad; mend that, then run the same command again" in line
    assert line.endswith("--executor local --shards 0)")
    assert toy.at_work() == [0, 2, 0]
    assert manifests(toy.out) == 1, "the others go on"
    for mood in ("bad-0", "deadly-1"):
        (toy.moods / mood).unlink()
    again = toy.start(cluster.address)
    again.end()
    assert files(toy.out) == whole


def test_a_stopped_and_then_killed_driver_leaves_nothing_at_work(
    toy: Toy, cluster: Any, whole: dict[str, bytes]
) -> None:
    (toy.moods / "slow-1").touch()

    def actors() -> list[Any]:
        alive = real_ray.living(p for node in cluster.nodes for p in real_ray.family(node.pid))
        return [p for p in alive if "_Maker" in "".join(p.cmdline())]

    stopped = toy.start(cluster.address)
    stopped.wait_for(lambda: toy.at_work()[1] == 1)
    assert manifests(toy.out) == 1, "on one core, one after the other"
    (at_work,) = actors()
    stopped.process.send_signal(signal.SIGTERM)
    stopped.end(75)
    real_ray.wait_for(lambda: not real_ray.living([at_work]), 60)
    killed = toy.start(None)  # on a Ray of its own
    killed.wait_for(lambda: toy.at_work()[1] == 2 and manifests(toy.out) == 2)
    processes = real_ray.family(killed.process.pid)
    at_work = [p for p in processes if "_Maker" in "".join(p.cmdline())]
    assert at_work
    killed.process.kill()
    real_ray.wait_for(lambda: not real_ray.living(at_work), 60)
    real_ray.kill(real_ray.living(processes))  # two agents of Ray's own outlive it
    (toy.moods / "go").touch()
    again = toy.start(cluster.address)
    again.end()
    assert files(toy.out) == whole


@pytest.mark.parametrize("name", ["sdg", "csi"])
def test_a_node_is_lost_in_the_middle(
    name: str, cluster: Any, second_node: Any, make_tiny: Callable[[str], Any], environment: dict[str, str]
) -> None:
    tiny = make_tiny("tiny")
    words = ["sclmkb.generate.cli", name, "--preset", "tiny"]
    if name == "sdg":
        tiny.write_corpus(identities=60)
        words += [f"--corpus={tiny.corpus}", "--set=engine=template", "--set=shard_size=6", "--set=wave_size=4"]
    else:
        pytest.importorskip("sionna.phy")
        words += ["--set=num_train=800", "--set=shard_size=25", "--set=array_rows=1", "--set=array_columns=1"]
    tiny.root.mkdir(exist_ok=True)
    alone = tiny.root / "alone"
    subprocess.run([sys.executable, "-m", *words, f"--out={alone}"], check=True, env=environment)
    command = Command([*words, f"--out={tiny.root / 'shared'}"], tiny.root / "shared", environment, cluster.address)
    try:
        command.wait_for(lambda: manifests(command.out) >= 2)
        cluster.lose(second_node)
        assert manifests(command.out) < manifests(alone), "it is lost in the middle"
        command.end()
    finally:
        real_ray.kill(real_ray.family(command.process.pid))
    assert files(command.out) == files(alone)
