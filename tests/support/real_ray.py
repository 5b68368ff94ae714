"""A Ray cluster of several nodes on this machine, started as docs/cluster-ray.md says."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from waiting import free_ports, wait_for

_START = ["--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats", "--block"]
_START += ["--min-worker-port=0", "--max-worker-port=0"]  # any free ones: two nodes share a machine
_TRIES = 4  # a node gives up when its own processes take longer than 15 s to start, as on a busy machine
_AGENTS = ("dashboard-agent-grpc-port", "dashboard-agent-listen-port", "runtime-env-agent-port", "metrics-export-port")


def family(pid: int) -> list[psutil.Process]:
    """Return all processes of the session that a process leads or led."""
    found = []
    for process in psutil.process_iter():
        with suppress(OSError):
            if os.getsid(process.pid) == pid:
                found.append(process)
    return found


def living(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return those that have not ended."""
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def kill(processes: list[psutil.Process]) -> None:
    """Kill processes without a word, as a power cut does, and wait until they are gone."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, 20)


class Cluster:
    """Nodes of one core each; the first one is the head."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = {**environment, "RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}
        self.folder = Path(tempfile.mkdtemp(prefix="ray-"))  # paths of its sockets must be short
        self.address = f"127.0.0.1:{free_ports(1)[0]}"
        self.nodes: list[subprocess.Popen[bytes]] = []

    def begin(self) -> None:
        """Start the head."""
        port = self.address.rpartition(":")[2]
        self.add("--head", f"--port={port}", f"--temp-dir={self.folder}", "--include-dashboard=false")

    def add(self, *options: str) -> subprocess.Popen[bytes]:
        """Start a node, and wait until it belongs to the cluster."""
        where = options or (f"--address={self.address}",)
        for _ in range(_TRIES):
            node, log = self._start(where), self.folder / f"node-{len(self.nodes)}.log"
            wait_for(lambda log=log, node=node: "Ray runtime started" in log.read_text() or node.poll() is not None)
            if node.poll() is None:
                return node
            self.lose(node)
        raise AssertionError(log.read_text())

    def _start(self, where: Sequence[str]) -> subprocess.Popen[bytes]:
        ports = [f"--{name}={port}" for name, port in zip(_AGENTS, free_ports(len(_AGENTS)), strict=True)]
        program = [str(Path(sys.executable).with_name("ray")), "start", *where, *_START, *ports]
        with (self.folder / f"node-{len(self.nodes) + 1}.log").open("wb") as file:
            node = subprocess.Popen(
                program, stdout=file, stderr=subprocess.STDOUT, env=self.environment, start_new_session=True
            )
        self.nodes.append(node)
        return node

    def lose(self, node: subprocess.Popen[bytes]) -> None:
        """Kill a node with all its processes."""
        kill(family(node.pid))
        node.wait()

    def end(self) -> None:
        """End all nodes, the head last."""
        for node in reversed(self.nodes):
            self.lose(node)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def cluster(environment: dict[str, str] | None = None) -> Iterator[Cluster]:
    """Start a head, yield the cluster, and end it."""
    found = Cluster({**os.environ, **(environment or {})})
    try:
        found.begin()
        yield found
    finally:
        found.end()
