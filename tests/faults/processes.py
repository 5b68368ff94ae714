"""Runs SDG in processes that are forked, killed and set on each other; a program, so that pytest need not fork."""

import json
import os
import random
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import faiss  # noqa: F401 (here, so that no child spends its time on it)
import sdg_fakes
import torch

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.generate.engines.base import Completion, Hear, Request, unheard


class SaltedEngine(sdg_fakes.FakeEngine):
    """Writes something else in every process, as engines do whose sums depend on the batch."""

    def __init__(self, salt: int, delay: float) -> None:
        super().__init__(delay)
        self.salt = salt

    def _write(self, request: Request) -> Completion:
        other = Request(messages=request.messages, seed=request.seed + self.salt)
        return super()._write(other)


class ReadyEngine(sdg_fakes.FakeEngine):
    """Tells the parent when it is asked for the first time."""

    def __init__(self, delay: float, pipe: int) -> None:
        super().__init__(delay)
        self.pipe = pipe

    def generate(self, requests: Sequence[Request], hear: Hear = unheard) -> list[Completion]:
        if not self.calls:
            os.write(self.pipe, b"r")
        return super().generate(requests, hear)


def work(corpus: str, out: str, engine: sdg_fakes.FakeEngine, retry: str | None = None) -> None:
    sdg_fakes.Job(Path(out).parent, Path(corpus))(Path(out).name, engine, retry=retry and Path(retry).name)


def fork(job: Callable[[], None]) -> int:
    """Start a job in a child; it is quiet unless it fails."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        torch.set_num_threads(1)
        keep = os.dup(2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            job()
            code = 0
        except BaseException as error:
            os.write(keep, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)


def wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_often(corpus: str, out: str, kills: int, seed: int, retry: bool) -> dict[str, Any]:
    """Kill a run ``kills`` times at random moments, start it again each time, and begin a new one when one is done.

    Returns:
        ``finished``: the folders of the runs, all of them finished; ``progress``: how many chunks and shards were
        there at each kill, as one number.
    """
    draw = random.Random(seed)
    folders, progress = [], []

    def begin() -> str:
        folder = f"{out}-{len(folders)}"
        folders.append(folder)
        if retry:
            assert wait(fork(lambda: work(corpus, f"{folder}-broken", sdg_fakes.FlakyEngine()))) == 0
        return folder

    reader, writer = os.pipe()

    def job() -> None:
        work(corpus, folder, ReadyEngine(0.005, writer), f"{folder}-broken" if retry else None)
        os.write(writer, b"d")  # perhaps there was nothing left to ask

    def is_ready(timeout: float) -> bool:
        ready = bool(select.select([reader], [], [], timeout)[0])
        if ready:
            os.read(reader, 100)
        return ready

    folder = begin()
    pid = fork(job)
    assert is_ready(60)
    started = time.monotonic()
    assert wait(pid) == 0
    length = time.monotonic() - started
    folder = begin()
    while len(progress) < kills:
        pid = fork(job)
        if draw.random() < 0.1:
            time.sleep(draw.uniform(0, 0.1))  # while it starts
        else:
            is_ready(60)
            time.sleep(draw.uniform(0, 0.3 * length))
        os.kill(pid, signal.SIGKILL)
        is_ready(0)
        if wait(pid) == 0:
            folder = begin()  # it was done before it could be killed
            continue
        root = Path(folder)
        progress.append(len(list(root.glob("work/*/chunk-*.json"))) + 100 * len(list(root.glob("manifests/*.json"))))
    if wait(fork(job)) != 0:
        raise SystemExit("the last run failed")
    return {"finished": folders, "progress": progress}


def together(corpus: str, out: str, salts: Sequence[int], retry: bool = False) -> list[int]:
    """Let several processes work on one run at once, each with an engine of its own, and return their exit codes."""

    def job(salt: int) -> Callable[[], None]:
        return lambda: work(corpus, out, SaltedEngine(salt, 0.002), f"{out}-broken" if retry else None)

    if retry:
        assert wait(fork(lambda: work(corpus, f"{out}-broken", sdg_fakes.FlakyEngine()))) == 0
    return [wait(pid) for pid in [fork(job(salt)) for salt in salts]]


def together_after_each_other(corpus: str, out: str, times: int) -> list[int]:
    """Like :func:`together` with equal engines, ``times`` times in folders of their own."""
    codes = []
    for number in range(times):
        codes += together(corpus, f"{out}-{number}", [0, 0, 0])
        Artifact.open(Path(f"{out}-{number}"), "sdg")
    return codes


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](**json.loads(sys.argv[2]))))
