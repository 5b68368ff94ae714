"""Cells of a study on a real Ray on this machine: a node is lost, a cell fails, a driver is stopped or killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import real_ray
import studying

pytest.importorskip("ray", reason="Ray is not installed: pip install 'sclmkb[ray]'")
pytestmark = [pytest.mark.long]

STUDYING = Path(str(studying.__file__))
PROGRAM = '''
"""Waits while there is a file slow-NAME beside it, and fails if there is bad-NAME; begun-NAME has who began."""
import os, time
from pathlib import Path
import typer
from sclmkb.common.console import run_app, stop_in_good_order
from sclmkb.common.errors import UserError
app = typer.Typer()
@app.command()
def run(words: list[str], new_run: bool = False, out: Path = Path()) -> None:
    folder = Path(__file__).parent
    with (folder / f"begun-{out.name}").open("a") as file:
        file.write(f"{os.getpid()}\\n")
    if (folder / f"bad-{out.name}").exists():
        raise UserError("no such thing: make it first")
    with stop_in_good_order() as check:
        while (folder / f"slow-{out.name}").exists():
            time.sleep(0.1)
            check()
    out.mkdir(parents=True, exist_ok=True)
    with (out / "runs").open("a") as file:
        file.write("made\\n")
run_app(app)
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the program that stands for every command."""
    folder = tmp_path_factory.mktemp("folder")
    (folder / "fake_command.py").write_text(PROGRAM)
    return folder


@pytest.fixture(scope="module")
def environment(folder: Path) -> dict[str, str]:
    paths = ":".join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": ""}


@pytest.fixture(scope="module")
def cluster(environment: dict[str, str]) -> Iterator[Any]:
    with real_ray.cluster(environment) as found:
        yield found


@pytest.fixture
def second_node(cluster: Any) -> Iterator[Any]:
    node = cluster.add()
    yield node
    cluster.lose(node)


class Driver:
    """The small study with Ray as its executor; moods are files beside the program."""

    def __init__(self, folder: Path, root: Path, environment: dict[str, str]) -> None:
        self.folder, self.root, self.out, self.environment = folder, root, root / "out", environment
        for path in folder.glob("*-*"):
            path.unlink()
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, address: str | None, *options: str) -> None:
        where = [f"--ray-address={address}"] if address else []
        command = [sys.executable, str(STUDYING), str(self.folder), str(self.out), "--executor=ray", *where, *options]
        with self.log.open("wb") as log:
            self.processes.append(
                subprocess.Popen(command, stderr=log, env=self.environment, cwd=self.root, start_new_session=True)
            )

    @property
    def log(self) -> Path:
        return self.root / "driver.log"

    def said(self) -> str:
        return self.log.read_text()

    def end(self, code: int = 0) -> None:
        assert self.processes[-1].wait(240) == code, self.said()

    def wait_for(self, what: Callable[[], object]) -> None:
        real_ray.wait_for(lambda: what() or self.processes[-1].poll() is not None)
        assert self.processes[-1].poll() is None, self.said()

    def mood(self, name: str) -> Path:
        path = self.folder / name
        path.touch()
        return path

    def begun(self, name: str) -> list[int]:
        """Return the process ids of all who began a cell."""
        path = self.folder / f"begun-{name}"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def made(self) -> dict[str, int]:
        """Return how often each cell that is done was made."""
        done = studying.small_study(self.out).done()
        return {name: len((self.out / name / "runs").read_text().split()) for name in done}


ONCE = {"a": 1, "b/1": 1, "c": 1, "alone": 1}


@pytest.fixture
def driver(folder: Path, tmp_path: Path, environment: dict[str, str]) -> Iterator[Driver]:
    driver = Driver(folder, tmp_path, environment)
    yield driver
    for process in driver.processes:
        real_ray.kill(real_ray.family(process.pid))
    for name in ("a", "1", "c", "alone"):
        real_ray.kill([psutil.Process(pid) for pid in driver.begun(name) if psutil.pid_exists(pid)])


def test_the_cell_of_a_lost_node_or_worker_goes_to_another(driver: Driver, cluster: Any, second_node: Any) -> None:
    slow = [driver.mood("slow-a"), driver.mood("slow-alone")]
    driver.start(cluster.address)
    driver.wait_for(lambda: driver.begun("a") and driver.begun("alone"))  # one on each node
    there = {process.pid for process in real_ray.family(second_node.pid)}
    lost, other = ("a", "alone") if driver.begun("a")[0] in there else ("alone", "a")
    assert driver.begun(lost)[0] in there
    cluster.lose(second_node)
    (process,) = (psutil.Process(pid) for pid in driver.begun(other))
    worker = next(parent for parent in process.parents() if "CommandRunner" in " ".join(parent.cmdline()))
    worker.kill()
    process.wait(60)  # it was told to stop
    driver.wait_for(lambda: len(driver.begun(lost)) + len(driver.begun(other)) == 3)
    for path in slow:
        path.unlink()
    driver.end()
    assert len(driver.begun("a")) == len(driver.begun("alone")) == 2
    assert driver.said().count("goes to another worker") == 2
    assert driver.said().endswith("drawn\n")
    assert driver.made() == ONCE


def test_a_failed_cell_is_named_and_only_what_is_missing_is_run_again(driver: Driver, cluster: Any) -> None:
    bad = driver.mood("bad-a")
    driver.start(cluster.address)
    driver.end(2)
    *_, drawn, error = driver.said().splitlines()
    assert drawn == "drawn"
    assert "error: 1 of 4 cells failed, and 2 cells that need what failed were not run; first a: on " in error
    log = f"(all of it in {driver.out}/logs/a.log): mend that and start the same command again"
    assert error.endswith(f": exit code 2: no such thing: make it first {log}")
    assert driver.made() == {"alone": 1}
    assert not driver.begun("1")
    bad.unlink()
    driver.start(cluster.address)
    driver.end()
    assert driver.made() == ONCE
    assert studying.small_study(driver.out).done()["a"].peak_gb > 0


def test_a_stopped_and_then_killed_driver_leaves_nothing_at_work(driver: Driver, cluster: Any) -> None:
    slow = driver.mood("slow-a")
    driver.start(cluster.address)
    driver.wait_for(lambda: driver.begun("a"))
    driver.processes[-1].send_signal(signal.SIGUSR1)
    driver.end(75)
    assert not psutil.pid_exists(driver.begun("a")[0])
    assert (driver.out / "logs" / "a.log").read_text().count("stopped in good order") == 1
    driver.start(cluster.address)
    driver.wait_for(lambda: len(driver.begun("a")) == 2)
    driver.processes[-1].kill()
    real_ray.wait_for(lambda: not psutil.pid_exists(driver.begun("a")[1]), 120)
    slow.unlink()
    driver.start(cluster.address)
    driver.end()
    assert driver.made() == ONCE


def test_a_node_without_the_folder_gets_nothing_more(driver: Driver, cluster: Any, tmp_path: Path) -> None:
    blind = tmp_path / "blind"
    blind.mkdir()
    (blind / "sitecustomize.py").write_text(
        f"import os\nown = os.chdir\ndef chdir(path):\n    if str(path) == {str(tmp_path)!r}:\n"
        "        raise FileNotFoundError(2, 'No such file or directory')\n    own(path)\nos.chdir = chdir\n"
    )
    seeing = dict(cluster.environment)
    cluster.environment["PYTHONPATH"] = f"{blind}:{seeing['PYTHONPATH']}"
    node = cluster.add()
    cluster.environment = seeing
    try:
        driver.start(cluster.address)
        driver.end()
    finally:
        cluster.lose(node)
    assert driver.said().count("paper: nothing more goes to") == 1
    assert f"{tmp_path}: No such file or directory; all nodes must see the folder of the command" in driver.said()
    assert driver.made() == ONCE


def test_without_an_address_there_is_a_ray_of_its_own(driver: Driver) -> None:
    for _ in range(4):  # Ray gives up when it takes longer than 30 s to start, as on a busy machine
        driver.start(None, "--set", "ray.cpus=1")
        if driver.processes[-1].wait(240) == 0:
            break
        assert "cannot work with a Ray on this machine" in driver.said()
    assert driver.made() == ONCE
    driver.start(None)  # nothing is left
    driver.end()
    assert driver.said() == "drawn\n"
