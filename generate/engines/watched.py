"""An engine in a process of its own, watched: when it dies or hangs, the work goes on without it.

::

    wave ─► batches ─► worker 0 ─► completions    what a dead worker has not told of its batch is tried again on a new
                  └──► worker 1 ─► completions    one, then in halves, down to the request that kills: an error

The workers ignore the signals that stop a run in good order, since their work is to be committed first. They die with
the process that started them, also when that is killed.
"""

import contextlib
import ctypes
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.util import Finalize
from typing import Any

from sclmkb.common.config import Settings, speed_only
from sclmkb.common.console import say
from sclmkb.common.errors import UserError, first_line
from sclmkb.generate.engines.base import Completion, Engine, Hear, Request, refused, unheard

Environment = Mapping[str, str]


class WatchSettings(Settings):
    """When an engine process is given up."""

    start_timeout_s: float = speed_only(
        1800.0, gt=0, description="longest time that an engine may take to load its model [s]"
    )
    silence_timeout_s: float = speed_only(
        3600.0, gt=0, description="longest time without a finished sample [s]; after it the engine counts as hung"
    )
    max_deaths: int = speed_only(
        32,
        ge=1,
        description="engine deaths in one wave that end the run; one deadly request takes about log2(wave size) + 2",
    )


@dataclass(eq=False)
class _Batch:
    """Some requests of a wave.

    Attributes:
        indices: their places in the wave.
        retried: whether a worker died of them before.
    """

    indices: list[int]
    retried: bool = False


@dataclass(eq=False)
class _Worker:
    process: Any
    connection: Connection
    deadline: float
    ready: bool = False
    batch: _Batch | None = None


@dataclass
class _Wave:
    """A call of :meth:`WatchedEngine.generate` under way."""

    requests: Sequence[Request]
    hear: Hear
    todo: list[_Batch]
    results: dict[int, Completion] = field(default_factory=dict)
    deaths: int = 0

    def take(self, place: int, completion: Completion) -> None:
        """Take in a completion."""
        self.results[place] = completion
        self.hear(place, completion)


class WatchedEngine:
    """Satisfies :class:`sclmkb.generate.engines.base.Engine`."""

    def __init__(
        self,
        build: Callable[[], Engine],
        settings: WatchSettings | None = None,
        environments: Sequence[Environment] = ({},),
    ) -> None:
        """Start the workers and wait until they are ready.

        Args:
            build: makes the engine; it is pickled and called in each worker.
            settings: when a worker is given up.
            environments: variables that each worker starts with, one mapping per worker.

        Raises:
            UserError: if an engine cannot be built, or dies while it is.
        """
        self._build, self._settings, self._environments = build, settings or WatchSettings(), list(environments)
        _quieten_tracker()
        self._workers = [self._start(environment) for environment in self._environments]
        # Before multiprocessing joins its children at exit: they would wait for work for ever.
        self._close = Finalize(self, _end_all, args=(self._workers,), exitpriority=100)
        try:
            while not all(worker.ready for worker in self._workers):
                self._step(None)
        except BaseException:
            self.close()
            raise

    def generate(self, requests: Sequence[Request], hear: Hear = unheard) -> list[Completion]:
        """Return one completion per request; one that the engine dies of comes back as an error.

        Raises:
            UserError: if the engine dies again and again, or cannot be started again.
        """
        if not requests:
            return []
        size = math.ceil(len(requests) / len(self._workers))
        parts = [range(i, min(i + size, len(requests))) for i in range(0, len(requests), size)]
        wave = _Wave(requests, hear, [_Batch(list(part)) for part in parts])
        try:
            while len(wave.results) < len(requests) or any(worker.batch for worker in self._workers):
                self._step(wave)
        except BaseException:
            self.close()  # a worker that is still writing would answer the next call with this one's texts
            raise
        return [wave.results[i] for i in range(len(requests))]

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a method of the first worker's engine and return what it returns (for measurements).

        Raises:
            RuntimeError: if it raises, or the worker dies.
        """
        worker = self._workers[0]
        try:
            worker.connection.send((name, arguments))
            kind, value = worker.connection.recv()
        except (EOFError, OSError) as error:
            raise RuntimeError(f"the engine process died in {name}") from error
        if kind != "done":
            raise RuntimeError(f"{name}: {value}")
        return value

    def close(self) -> None:
        """End the workers."""
        self._close()

    def _step(self, wave: _Wave | None) -> None:
        """Hand out batches, then wait until a worker says something, dies or is late."""
        for number, worker in enumerate(self._workers):
            if wave and wave.todo and worker.ready and worker.batch is None:
                self._hand_out(number, wave)
        waiting = {worker.connection: i for i, worker in enumerate(self._workers) if not worker.ready or worker.batch}
        deadline = min(self._workers[i].deadline for i in waiting.values())
        heard = wait(list(waiting), max(0.0, deadline - time.monotonic()))
        for number in [waiting[connection] for connection in heard if isinstance(connection, Connection)]:
            self._hear(number, wave)
        for number in waiting.values():
            worker = self._workers[number]
            if (not worker.ready or worker.batch) and time.monotonic() >= worker.deadline:
                self._bury(number, wave, "was silent for too long")

    def _hand_out(self, number: int, wave: _Wave) -> None:
        worker, batch = self._workers[number], wave.todo.pop()
        worker.batch, worker.deadline = batch, time.monotonic() + self._settings.silence_timeout_s
        try:
            worker.connection.send(("generate", ([wave.requests[i] for i in batch.indices],)))
        except OSError:  # it died between two waves
            self._bury(number, wave, _epitaph(worker.process))

    def _hear(self, number: int, wave: _Wave | None) -> None:
        worker = self._workers[number]
        try:
            kind, value = worker.connection.recv()
        except (EOFError, OSError):
            self._bury(number, wave, _epitaph(worker.process))
            return
        if kind == "user error":
            raise UserError(value)
        if kind == "ready":
            worker.ready, worker.deadline = True, math.inf
        elif kind == "wrote" and wave is not None and worker.batch is not None:
            place, completion = value
            wave.take(worker.batch.indices[place], completion)
            worker.deadline = time.monotonic() + self._settings.silence_timeout_s
        elif kind == "done" and wave is not None and worker.batch is not None:
            if wave.results.keys() >= set(worker.batch.indices):
                worker.batch = None
            else:
                self._bury(number, wave, "kept completions to itself")
        else:  # an exception inside leaves the engine in a state that nobody knows
            self._bury(number, wave, f"failed: {value}")

    def _bury(self, number: int, wave: _Wave | None, reason: str) -> None:
        """Put a new worker in a dead one's place, and its batch back, whole or in halves."""
        dead = self._workers[number]
        _kill(dead)
        if not dead.ready:
            raise UserError(f"the engine process {reason} while it was starting: too little memory, or see its output")
        assert wave is not None
        wave.deaths += 1
        if wave.deaths > self._settings.max_deaths:
            raise UserError(
                f"the engine died {wave.deaths} times in one wave, the last time it {reason}: see its output; the same"
                " command goes on where this one stopped"
            )
        if (batch := dead.batch) and (left := [i for i in batch.indices if i not in wave.results]):
            if not batch.retried:
                wave.todo.append(_Batch(left, retried=True))
            elif len(left) == 1:
                wave.take(left[0], refused(f"the engine {reason} at this request"))
            else:
                half = len(left) // 2
                wave.todo += [_Batch(part, retried=True) for part in (left[half:], left[:half])]
        say(f"sdg: the engine process {reason}; starting a new one, death {wave.deaths} of this wave")
        self._workers[number] = self._start(self._environments[number])

    def _start(self, environment: Environment) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        # Not a daemon: vLLM starts processes of its own for tensor parallelism.
        process = context.Process(target=_serve, args=(theirs, os.getpid(), self._build), daemon=False)
        with _variables(environment):  # what reads them may be loaded before the first line of _serve
            process.start()
        theirs.close()
        return _Worker(process, ours, time.monotonic() + self._settings.start_timeout_s)


def _quieten_tracker() -> None:
    """Start the process that frees what killed workers leave behind, so that it does not speak of it at the end."""
    with _variables({"PYTHONWARNINGS": "ignore::UserWarning:multiprocessing.resource_tracker"}):
        resource_tracker.ensure_running()


@contextlib.contextmanager
def _variables(environment: Environment) -> Iterator[None]:
    """Set variables for processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _epitaph(process: Any) -> str:
    process.join(timeout=5)
    code = process.exitcode
    if code is not None and code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def _kill(worker: _Worker) -> None:
    worker.connection.close()
    worker.process.kill()
    worker.process.join()


def _end_all(workers: Sequence[_Worker]) -> None:
    """End idle workers by telling them that nothing more comes, and the others at once."""
    for worker in workers:
        if worker.ready and worker.batch is None:
            worker.connection.close()
    for worker in workers:
        if worker.ready and worker.batch is None:
            worker.process.join(timeout=10)
        _kill(worker)


def _serve(connection: Connection, parent: int, build: Callable[[], Engine]) -> None:
    """Build an engine and answer calls until the parent closes the pipe or dies."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(signum, signal.SIG_IGN)
    _die_with(parent)
    try:
        engine = build()
        connection.send(("ready", None))
        while True:
            name, arguments = connection.recv()
            if name == "generate":  # told one by one
                (requests,) = arguments
                engine.generate(requests, lambda place, written: connection.send(("wrote", (place, written))))
                connection.send(("done", None))
            else:
                connection.send(("done", getattr(engine, name)(*arguments)))
    except (EOFError, BrokenPipeError):  # the parent wants no more
        return
    except UserError as error:
        connection.send(("user error", str(error)))
    except BaseException as error:  # the parent says it, without a traceback of this process
        connection.send(("raised", f"{type(error).__name__}: {first_line(error)}"))
    connection.close()
    os._exit(1)  # without waiting for whatever the engine left running


def _die_with(parent: int) -> None:
    """End this process when the parent does: by the kernel on Linux, by looking twice a second elsewhere."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, int(signal.SIGKILL))

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()
