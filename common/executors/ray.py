"""Hands the shards of a plan that are left to Ray actors, here or on the nodes of a cluster.

::

    driver: plan ─► shards left ─► free actor: Work of the same command line ─► makes it ─► committed: the next one
                         ▲                                                          │
                         └───────── its actor or node died, or it raised ◄──────────┘  max_attempts times at most

Ray starts the actors where there is room, and says when one is dead. Nothing but shard numbers travels: each actor
reads plan and inputs itself and keeps its engine from shard to shard. Only the manifests say what is done, so the
driver may be killed at any time and started again.
"""

import math
import os
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.plan import format_ranges
from sclmkb.common.config import Settings
from sclmkb.common.console import progress, say, waiting_environment
from sclmkb.common.errors import UserError
from sclmkb.common.executors.base import work_of_command
from sclmkb.common.executors.ray_cluster import PATIENCE_S, actor_with, connected, naming_the_node, reason
from sclmkb.common.executors.stage import Work


class RaySettings(Settings):
    """What actors ask of Ray: section ``ray`` of a preset or YAML file, or ``--set ray.NAME=VALUE``.

    None of it can change what is made.
    """

    workers: int | None = Field(
        default=None,
        ge=1,
        description="actors at work at the same time; default: as many as the nodes have room for at the start. "
        "Further actors wait for room and let an autoscaling cluster grow",
    )
    cpus: float | None = Field(default=None, gt=0, description="CPU cores per actor; default: 1")
    gpus: float = Field(default=0, ge=0, description="GPUs per actor; with 0.5 two actors share one GPU")
    max_attempts: int = Field(
        default=3, ge=1, description="how often a shard is tried, or an actor started, before it counts as failed"
    )
    max_failed: int = Field(
        default=10, ge=1, description="number of failed shards after which no further shards are handed out"
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="more options of an actor, as Ray names them, e.g. `resources: {A100: 1}` or `runtime_env: "
        "{env_vars: {HF_HOME: /data/hf}}`",
    )


class _Maker:
    """An actor: the work of a command line, and with it the engine, in a process of its own."""

    def join(self, program: str, arguments: Sequence[str], folder: str) -> None:
        """Go to the run that is there; nothing is loaded yet."""
        os.environ.update(waiting_environment(os.environ))
        with naming_the_node():
            try:
                os.chdir(folder)  # in which the driver was started
            except OSError as error:
                raise UserError(f"{folder}: {error.strerror}; all nodes must see the folder of the command") from None
            self._work = work_of_command(program, arguments)

    def make(self, number: int) -> None:
        """Make a shard, which is committed then."""
        with naming_the_node():
            self._work.make([self._work.run.plan.shards[number]])


@dataclass(frozen=True)
class _Task:
    """What an actor works on: a shard, or its n-th try to join. Its handle keeps the actor alive."""

    actor: Any
    shard: int | None = None
    starts: int = 1


@dataclass(frozen=True, kw_only=True)
class Ray:
    """Makes the shards that are left with actors, then does the last step here.

    Attributes:
        settings: what to ask for.
        program: module of the command line.
        arguments: of an actor: the command that joins the run.
        address: of the cluster, as ``ray.init`` takes it; without it, Ray is started on this machine and ended.
    """

    settings: RaySettings
    program: str
    arguments: Sequence[str]
    address: str | None = None

    def execute(self, work: Work) -> Artifact:
        """Make the shards and return the artifact; Ray is not even imported if there are none to make.

        Raises:
            UserError: if there is no Ray, no node can run an actor, or shards cannot be made.
        """
        if left := work.left():
            with connected(self.address):
                failed = _Driver(self, work, left).run()
            if failed:
                first, rest = min(failed), format_ranges(work.left())
                raise UserError(
                    f"shards {rest} of {work.run.root} are not done; shard {first}"
                    f" ({work.run.plan.shards[first].name}): {failed[first]}; mend that, then run the same command"
                    f" again: it makes what is missing (or only that one, here: --executor local --shards {first})"
                )
        return work.finish()


class _Driver:
    """Hands each free actor the next shard."""

    def __init__(self, ray_: Ray, work: Work, left: Sequence[int]) -> None:
        import ray

        self._ray = ray
        self._to_join = ray_.program, list(ray_.arguments), str(Path.cwd())
        self._settings, self._address, self._work = ray_.settings, ray_.address, work
        self._cpus = ray_.settings.cpus or 1
        asked = {**ray_.settings.options, "num_cpus": self._cpus, "num_gpus": ray_.settings.gpus}
        self._actor = actor_with(ray.remote(_Maker), asked)
        self._todo, self._under_way = deque(left), dict[Any, _Task]()
        self._attempts, self._failed = Counter[int](), dict[int, str]()
        self._refused = ""

    def run(self) -> dict[int, str]:
        """Make the shards; return why some could not be made.

        Raises:
            UserError: if no actor could begin.
        """
        sizes = [len(shard.row_ids) for shard in self._work.run.plan.shards]
        missing = sum(sizes[number] for number in self._todo)
        for _ in range(min(self._num_workers(), len(self._todo))):
            self._start()
        with progress(self._work.name, sum(sizes), sum(sizes) - missing) as ticker:
            while self._todo or any(task.shard is not None for task in self._under_way.values()):
                if not self._under_way:
                    raise UserError(f"no Ray actor could begin: {self._refused}")
                if (number := self._step()) is not None:
                    busy = sum(task.shard is not None for task in self._under_way.values())
                    ticker.advance(sizes[number], f"{busy} actors at work")
        return self._failed

    def _num_workers(self) -> int:
        wanted = {"CPU": self._cpus, "GPU": self._settings.gpus}
        room = sum(
            math.floor(min(node["Resources"].get(name, 0) / number for name, number in wanted.items() if number))
            for node in self._ray.nodes()
            if node["Alive"]
        )
        if not room and self._address is None:
            raise UserError(f"this machine has no room for a Ray actor: {self._needs()}; lower ray.cpus or ray.gpus")
        return self._settings.workers or max(room, 1)

    def _needs(self) -> str:
        return f"{self._cpus:g} CPUs and {self._settings.gpus:g} GPUs each"

    def _start(self, starts: int = 1) -> None:
        """Ask for an actor, which begins once there is room for it."""
        actor = self._actor.remote()
        self._under_way[actor.join.remote(*self._to_join)] = _Task(actor, starts=starts)

    def _step(self) -> int | None:
        """Wait until an actor is free, or dead; return the number of the shard that it made."""
        ready, _ = self._ray.wait(list(self._under_way), num_returns=1, timeout=PATIENCE_S)
        if not ready:
            if all(task.shard is None for task in self._under_way.values()):
                say(f"{self._work.name}: waiting for room in the cluster for {len(self._under_way)} actors,"
                    f" {self._needs()}; `ray status` says what there is")  # fmt: skip
            return None
        task = self._under_way.pop(ready[0])
        try:
            self._ray.get(ready[0])
        except self._ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            why, is_lasting = reason(error, cause), isinstance(cause, UserError)
            if cause is not None and not is_lasting:
                say(str(error))  # a defect: where it is
            if task.shard is None:
                self._not_begun(task, why, is_lasting)
            else:
                self._not_made(task.shard, why, is_lasting)
            return None
        if self._todo:  # an actor without work ends, and leaves its place to others
            number = self._todo.popleft()
            self._under_way[task.actor.make.remote(number)] = _Task(task.actor, number)
        return task.shard

    def _not_begun(self, task: _Task, why: str, is_lasting: bool) -> None:
        say(f"{self._work.name}: a Ray actor could not begin: {why}")
        if is_lasting or task.starts >= self._settings.max_attempts:
            self._refused = why
        else:
            self._start(task.starts + 1)

    def _not_made(self, number: int, why: str, is_lasting: bool) -> None:
        """Put a shard back, or give it up; its actor, if it lives, may be in any state and is replaced."""
        self._attempts[number] += 1
        if is_lasting or self._attempts[number] >= self._settings.max_attempts:
            self._failed[number] = why
            outcome = "given up"
            if len(self._failed) >= self._settings.max_failed:
                self._todo.clear()
                outcome += ", and no more shards are handed out (ray.max_failed)"
        else:
            self._todo.appendleft(number)
            outcome = "goes to another actor"
        say(f"{self._work.name}: shard {number} {outcome}: {why}")
        if self._todo:
            self._start()
