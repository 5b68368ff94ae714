"""Runs commands that need each other with Ray actors, here or on the nodes of a cluster.

::

    driver: commands ─► what it needs is done ─► an actor, where there is room ─► the command, in the driver's folder
                                 ▲                                                   │
                                 └──── its actor or node died, or it was stopped ◄───┘  max_attempts times at most

An actor is there for one command and holds what that command asks for. Ray starts it where there is room, and says when
it is dead; its command is then told to stop. What is done is kept by the commands themselves, so the driver may be
killed at any time and started again.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sclmkb.common.console import EXIT_REQUEUE, EXIT_USER_ERROR, say
from sclmkb.common.errors import UserError
from sclmkb.common.executors.ray import RaySettings
from sclmkb.common.executors.ray_cluster import PATIENCE_S, actor_with, connected, reason
from sclmkb.common.executors.ray_worker import CommandRunner

_MAX_WAITING = 8
"""Actors that may wait for room at once and ask for the same: a cluster that grows by itself must see some, and who
waits for a whole node must not wait for all that came before."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command to run on some node.

    Attributes:
        name: unique.
        arguments: of Python.
        settings: what to ask for; ``workers`` and ``max_failed`` do not count here.
        needs: names of commands that must have ended well before.
        cores: to ask for where the settings name no ``cpus``; 0: all of a node.
    """

    name: str
    arguments: tuple[str, ...]
    settings: RaySettings
    needs: tuple[str, ...] = ()
    cores: int = 1

    @property
    def takes_a_node(self) -> bool:
        """Whether it asks for all cores of a node."""
        return not (self.settings.cpus or self.cores)


Ended = Callable[[str, str, str], None]
"""Told of each command that ended: its name, the host, and what went wrong (or nothing)."""


def run_commands(
    what: str, commands: Sequence[Command], ended: Ended, *, address: str | None = None, cores: int | None = None
) -> dict[str, str]:
    """Run commands on any node, each once what it needs ended well; what fails keeps only what needs it from running.

    Args:
        what: they are, for messages.
        commands: in an order in which they can run; needs that are not among them are done.
        ended: is called for each, in the order in which they end for good.
        address: of the cluster, as ``ray.init`` takes it; without it, Ray is started on this machine and ended.
        cores: of that Ray; all if left out.

    Returns:
        What went wrong, by name; commands that need these were not run.

    Raises:
        UserError: if there is no Ray, or no node can run a command.
    """
    with connected(address, cores):
        return _Driver(what, commands, ended, address).run()


@dataclass(frozen=True)
class _Task:
    """A command and its actor, whose handle keeps it alive; no host as long as it waits for room."""

    command: Command
    actor: Any
    options: Mapping[str, Any]
    host: str = ""


class _Driver:
    def __init__(self, what: str, commands: Sequence[Command], ended: Ended, address: str | None) -> None:
        import ray

        self._ray, self._actor = ray, ray.remote(CommandRunner)
        self._what, self._ended, self._address = what, ended, address
        self._todo = {command.name: command for command in commands}
        self._open = set(self._todo)
        self._under_way = dict[Any, _Task]()
        self._attempts, self._failed = Counter[str](), dict[str, str]()
        self._refusing, self._elsewhere = set[str](), dict[str, Any]()

    def run(self) -> dict[str, str]:
        if self._address is None:
            for command in self._todo.values():
                self._check_room(command)
        try:
            self._start()
            while self._under_way:
                self._step()
                self._start()
        finally:
            self._stop()
        return self._failed

    def _check_room(self, command: Command) -> None:
        options = self._options(command)
        if not any(_fits(node, {"CPU": options["num_cpus"], **_wanted(options)}) for node in self._nodes()):
            raise UserError(
                f"this machine has no room for {command.name}: {_needs(options)}; lower ray.cpus or ray.gpus"
            )

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"]]

    def _options(self, command: Command) -> dict[str, Any]:
        """Return what the actor of a command asks for; a whole node is the largest that has what else it wants."""
        asked = command.settings
        options = {**asked.options, "num_gpus": asked.gpus, "max_concurrency": 2}
        cpus = asked.cpus or command.cores
        if not cpus:
            rooms = [node["Resources"].get("CPU", 0) for node in self._nodes() if _fits(node, _wanted(options))]
            cpus = max(rooms, default=0) or 1
        options["num_cpus"] = cpus
        return {**self._elsewhere, **options}

    def _start(self) -> None:
        """Ask for actors in the order of the commands; one that waits for a whole node lets no later one before it."""
        waiting = [task for task in self._under_way.values() if not task.host]
        for command in list(self._todo.values()):
            if any(task.command.takes_a_node for task in waiting):
                break
            if self._open.isdisjoint(command.needs):
                options = self._options(command)
                if sum(task.options == options for task in waiting) < _MAX_WAITING:
                    waiting.append(self._ask(self._todo.pop(command.name), options))

    def _ask(self, command: Command, options: Mapping[str, Any]) -> _Task:
        actor = actor_with(self._actor, options).remote()
        task = _Task(command, actor, options)
        self._under_way[actor.begin.remote(str(Path.cwd()))] = task
        return task

    def _step(self) -> None:
        """Wait until an actor begins, or its command ends, or it is dead."""
        ready, _ = self._ray.wait(list(self._under_way), num_returns=1, timeout=PATIENCE_S)
        if not ready:
            self._wait_on()
            return
        task = self._under_way.pop(ready[0])
        try:
            answer = self._ray.get(ready[0])
        except self._ray.exceptions.RayError as error:
            self._again(task, reason(error, getattr(error, "cause", None)))
            return
        if task.host:
            self._end(task, *answer)
        else:
            self._begin(task, *answer)

    def _wait_on(self) -> None:
        """Say that there is no room; whoever waits for a node that is gone asks for another."""
        waiting = {ref: task for ref, task in self._under_way.items() if not task.host}
        for ref, task in waiting.items():
            if task.command.takes_a_node and self._options(task.command) != task.options:
                del self._under_way[ref]
                self._ray.kill(task.actor)
                self._todo = {task.command.name: task.command, **self._todo}
        if len(waiting) == len(self._under_way):
            names = ", ".join(f"{task.command.name} ({_needs(task.options)})" for task in waiting.values())
            say(f"{self._what}: waiting for room in the cluster for {names}; `ray status` says what there is")

    def _begin(self, task: _Task, host: str, node: str, problem: str) -> None:
        if not problem:
            ref = task.actor.run.remote(list(task.command.arguments))
            self._under_way[ref] = replace(task, host=host)
            return
        if "scheduling_strategy" in task.command.settings.options:
            self._again(task, f"on {host}: {problem}")  # where to go is not ours to say
            return
        if node not in self._refusing:
            say(f"{self._what}: nothing more goes to {host}: {problem}")
        self._refusing.add(node)
        if self._refusing.issuperset(other["NodeID"] for other in self._nodes()):
            raise UserError(f"no node can begin: on {host}: {problem}")
        from ray.util.scheduling_strategies import NodeLabelSchedulingStrategy, NotIn

        strategy = NodeLabelSchedulingStrategy(hard={"ray.io/node-id": NotIn(*self._refusing)})
        self._elsewhere = {"scheduling_strategy": strategy}
        self._todo = {task.command.name: task.command, **self._todo}

    def _end(self, task: _Task, code: int, printed: str) -> None:
        name = task.command.name
        lines = [line.strip(" │") for line in printed.splitlines() if any(map(str.isalnum, line))]  # Typer draws boxes
        line = lines[-1].removeprefix("error: ").removeprefix(f"{name}: ") if lines else "it printed nothing"
        if code == 0:
            self._open.remove(name)
            self._ended(name, task.host, "")
        elif code == EXIT_REQUEUE or code < 0:
            self._again(task, f"on {task.host}: exit code {code}: {line}")
        else:
            if code != EXIT_USER_ERROR:
                say(printed)  # a defect: where it is
            self._fail(task, f"on {task.host}: {line}")

    def _again(self, task: _Task, why: str) -> None:
        """Put a command back, or give it up."""
        name = task.command.name
        self._attempts[name] += 1
        if self._attempts[name] >= task.command.settings.max_attempts:
            self._fail(task, f"given up after {self._attempts[name]} attempts: {why}")
        else:
            say(f"{self._what}: {name} goes to another worker: {why}")
            self._todo = {name: task.command, **self._todo}

    def _fail(self, task: _Task, why: str) -> None:
        self._failed[task.command.name] = why
        self._ended(task.command.name, task.host, why)

    def _stop(self) -> None:
        """Tell what still runs to stop in good order, and wait for it."""
        at_work = {ref: task for ref, task in self._under_way.items() if task.host}
        for task in self._under_way.values():
            if task.host:
                task.actor.stop.remote()
            else:
                self._ray.kill(task.actor)
        refs = list(at_work)
        while refs:
            _, refs = self._ray.wait(refs, num_returns=len(refs))


def _wanted(options: Mapping[str, Any]) -> dict[str, float]:
    """Return the resources other than cores that an actor asks for, as nodes name them."""
    kind = options.get("accelerator_type")
    more = {f"accelerator_type:{kind}": 0.001} if kind else {}
    return {"GPU": options["num_gpus"], **options.get("resources", {}), **more}


def _fits(node: Mapping[str, Any], wanted: Mapping[str, float]) -> bool:
    return all(node["Resources"].get(name, 0) >= number for name, number in wanted.items())


def _needs(options: Mapping[str, Any]) -> str:
    return f"{options['num_cpus']:g} CPUs and {options['num_gpus']:g} GPUs"
