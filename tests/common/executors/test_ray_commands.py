"""In what order commands go to a Ray that is not there, and what becomes of them; tests/evaluate has a real one."""

import sys
import types
from dataclasses import dataclass, field
from typing import Any

import pytest

from sclmkb.common.console import Terminated
from sclmkb.common.errors import UserError
from sclmkb.common.executors.ray import RaySettings
from sclmkb.common.executors.ray_commands import Command, run_commands


class RayError(Exception):
    """Stands for ray.exceptions.RayError."""


@dataclass(eq=False)
class Ref:
    """What an actor was asked for: to begin, or to run."""

    actor: "Actor"
    arguments: list[str] | None = None


@dataclass
class Method:
    """A method of an actor."""

    do: Any

    def remote(self, *arguments: Any) -> Any:
        return self.do(*arguments)


class Actor:
    """An actor, which has a node once there is room."""

    def __init__(self, ray: "FakeRay", options: dict[str, Any]) -> None:
        self.ray, self.options, self.node, self.told = ray, options, "", False
        self.begin = Method(lambda folder: ray.asked(Ref(self)))
        self.run = Method(lambda arguments: ray.asked(Ref(self, arguments)))
        self.stop = Method(lambda: setattr(self, "told", True))


@dataclass
class FakeRay:
    """Gives room to whoever fits first; with no room to give, the command that began first ends.

    Attributes:
        room: resources by node.
        ends: what becomes of the attempts of a command, one after the other; otherwise it ends well.
        refusing: nodes on which nothing can begin.
        later: nodes that join once all wait.
        log: what happened: ``+NAME NODE`` and ``-NAME``.
    """

    room: dict[str, dict[str, float]]
    ends: dict[str, list[Any]] = field(default_factory=dict)
    refusing: set[str] = field(default_factory=set)
    later: dict[str, dict[str, float]] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    pending: list[Ref] = field(default_factory=list)
    killed: list[Actor] = field(default_factory=list)
    actors: list[Actor] = field(default_factory=list)
    address: Any = None

    def __post_init__(self) -> None:
        self.exceptions = types.SimpleNamespace(RayError=RayError)
        self.all = dict(self.room)

    def init(self, **given: Any) -> None:
        self.address = given["address"]

    def shutdown(self) -> None:
        self.log.append("shutdown")

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": name, "Alive": name in self.room, "Resources": has} for name, has in self.all.items()]

    def remote(self, kind: type) -> Any:
        def options(**given: Any) -> Any:
            return types.SimpleNamespace(remote=lambda: self._actor(given))

        return types.SimpleNamespace(options=options)

    def _actor(self, options: dict[str, Any]) -> Actor:
        self.actors.append(Actor(self, options))
        return self.actors[-1]

    def asked(self, ref: Ref) -> Ref:
        self.pending.append(ref)
        if ref.arguments:
            self.log.append(f"+{ref.arguments[-1]} {ref.actor.node}")
        return ref

    def kill(self, actor: Actor) -> None:
        self.killed.append(actor)
        self.pending = [ref for ref in self.pending if ref.actor is not actor]

    def wait(self, refs: list[Ref], num_returns: int, timeout: float | None = None) -> tuple[list[Ref], list[Ref]]:
        if num_returns > 1 or timeout is None:
            return refs, []
        for ref in refs:
            if not ref.actor.node and (node := self._free(ref.actor)):
                ref.actor.node = node
                return [ref], []
        at_work = [ref for ref in refs if ref.actor.node]
        if not at_work:
            self.room.update(self.later)
            self.all.update(self.later)
        return at_work[:1], at_work[1:]

    def _free(self, actor: Actor) -> str:
        for name, has in self.room.items():
            taken = [ref.actor for ref in self.pending if ref.actor.node == name]
            left = has["CPU"] - sum(other.options["num_cpus"] for other in taken)
            avoided = actor.options.get("scheduling_strategy", ())
            has_gpus = has.get("GPU", 0) >= actor.options["num_gpus"]
            if left >= actor.options["num_cpus"] and has_gpus and name not in avoided:
                return name
        return ""

    def get(self, ref: Ref) -> Any:
        self.pending.remove(ref)
        node = ref.actor.node
        if ref.arguments is None:
            return node, node, "no such folder" if node in self.refusing else ""
        name = ref.arguments[-1]
        self.log.append(f"-{name}")
        end = self.ends[name].pop(0) if self.ends.get(name) else (0, "")
        if isinstance(end, BaseException):
            raise end
        if callable(end):
            end = end()
        return end


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(ray: FakeRay) -> FakeRay:
        labels: Any = types.ModuleType("ray.util.scheduling_strategies")
        labels.NotIn = lambda *nodes: nodes
        labels.NodeLabelSchedulingStrategy = lambda hard: hard["ray.io/node-id"]
        for name, module in {"ray": ray, "ray.util": types.ModuleType("ray.util"), labels.__name__: labels}.items():
            monkeypatch.setitem(sys.modules, name, module)
        return ray

    return install


def command(name: str, *needs: str, cores: int = 1, **settings: Any) -> Command:
    return Command(name=name, arguments=("-m", name), needs=needs, cores=cores, settings=RaySettings(**settings))


def run(*commands: Command, address: str | None = "somewhere") -> tuple[dict[str, str], list[tuple[str, str, str]]]:
    ended: list[tuple[str, str, str]] = []
    failed = run_commands("x", commands, lambda *end: ended.append(end), address=address)
    return failed, ended


def test_a_command_waits_for_what_it_needs_and_a_failure_keeps_nothing_else(fake: Any) -> None:
    ends: dict[str, list[Any]] = {"bad": [(2, "at work\nerror: bad: no such thing: make it")]}
    ray = fake(FakeRay({"n1": {"CPU": 1}, "n2": {"CPU": 1}}, ends))
    failed, ended = run(
        command("a", "done-before"), command("bad"), command("after", "a", "bad"), command("b", "a"), command("c", "b")
    )
    assert failed == {"bad": "on n2: no such thing: make it"}
    assert ended == [("a", "n1", ""), ("bad", "n2", failed["bad"]), ("b", "n1", ""), ("c", "n1", "")]
    assert ray.log == ["+a n1", "+bad n2", "-a", "+b n1", "-bad", "-b", "+c n1", "-c", "shutdown"]
    assert ray.address == "somewhere"


def test_who_waits_for_a_whole_node_lets_no_later_one_before_it(fake: Any) -> None:
    ray = fake(FakeRay({"small": {"CPU": 1}, "large": {"CPU": 4, "GPU": 1}, "plain": {"CPU": 8}}))
    many = [command(f"n{i}") for i in range(24)]
    run(command("first", cores=6), command("wide", "first", cores=0, gpus=1), *many)
    wide = next(actor for actor in ray.actors if actor.options["num_gpus"])
    assert (wide.node, wide.options["num_cpus"]) == ("large", 4), "the largest that has a GPU"
    order = [entry.split()[0] for entry in ray.log if entry.startswith("+")]
    assert order.index("+wide") == 16, "behind 'first', seven that were at work, and eight that waited already"
    assert len(order) == 26


def test_a_command_that_is_named_its_cores_does_not_take_a_node(fake: Any) -> None:
    ray = fake(FakeRay({"n": {"CPU": 4}}))
    run(command("wide", cores=0, cpus=2), command("b", cpus=1.5), command("c"))
    assert [actor.options["num_cpus"] for actor in ray.actors] == [2, 1.5, 1]


@pytest.mark.parametrize("end", [RayError("the node is gone"), (75, "stopped in good order"), (-9, "")])
def test_what_was_stopped_or_lost_is_begun_again_so_many_times(
    end: Any, fake: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(FakeRay({"n": {"CPU": 1}}, {"a": [end], "b": [end, end, end]}))
    failed, ended = run(command("a", max_attempts=2), command("b", max_attempts=2), command("c", "b"))
    assert list(failed) == ["b"]
    assert failed["b"].startswith("given up after 2 attempts: ")
    assert [name for name, *_ in ended] == ["a", "b"]
    assert capsys.readouterr().err.count("x: a goes to another worker: ") == 1


def test_a_defect_is_said_in_full_and_else_the_last_line(fake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fake(FakeRay({"n": {"CPU": 1}}, {"a": [(1, "Traceback …\n  line 3\nZeroDivisionError")]}))
    failed, _ = run(command("a"))
    assert failed == {"a": "on n: ZeroDivisionError"}
    fake(FakeRay({"n": {"CPU": 1}}, {"a": [(2, "╭─ Error ─╮\n│ No such option: --x │\n╰─────────╯")], "b": [(3, "")]}))
    assert run(command("a"), command("b"))[0] == {"a": "on n: No such option: --x", "b": "on n: it printed nothing"}
    assert "line 3" in capsys.readouterr().err


def test_a_node_that_cannot_begin_gets_nothing_more(fake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    ray = fake(FakeRay({"blind": {"CPU": 4}, "n": {"CPU": 1}}, refusing={"blind"}))
    failed, ended = run(*(command(f"c{i}", max_attempts=1) for i in range(12)))
    assert not failed
    assert {host for _, host, _ in ended} == {"n"}
    assert capsys.readouterr().err.count("x: nothing more goes to blind: no such folder") == 1
    own = {"scheduling_strategy": "SPREAD"}
    fake(FakeRay({"blind": {"CPU": 1}, "n": {"CPU": 1}}, refusing={"blind"}))
    failed, _ = run(command("a", options=own, max_attempts=2))
    assert failed == {"a": "given up after 2 attempts: on blind: no such folder"}
    ray = fake(FakeRay({"blind": {"CPU": 4}, "other": {"CPU": 1}}, refusing={"blind", "other"}))
    with pytest.raises(UserError, match="no node can begin: on other: no such folder"):
        run(command("a"), command("b"))
    assert ray.log == ["shutdown"]


def test_a_stopped_driver_tells_what_is_at_work_and_asks_for_nothing_more(fake: Any) -> None:
    def stop() -> None:
        raise Terminated

    ray = fake(FakeRay({"n": {"CPU": 2}}, {"a": [stop]}))
    with pytest.raises(Terminated):
        run(command("a"), command("b"), command("waits"))
    assert [actor.told for actor in ray.actors] == [False, True, False]
    assert ray.killed == [ray.actors[2]]
    assert ray.log[-1] == "shutdown"


def test_that_there_is_no_room_is_said(fake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    ray = fake(FakeRay({"n": {"CPU": 2}}, later={"g": {"CPU": 2, "GPU": 1}}))
    assert run(command("a", gpus=0.5), command("b"))[0] == {}
    assert "waiting for room in the cluster for a (1 CPUs and 0.5 GPUs)" in capsys.readouterr().err
    assert ray.log == ["+b n", "-b", "+a g", "-a", "shutdown"]


def test_who_waits_for_a_node_that_is_gone_asks_for_another(fake: Any) -> None:
    ray = fake(FakeRay({"small": {"CPU": 2}, "large": {"CPU": 4}}))
    lost = RayError("the node is gone")

    def lose() -> Any:
        del ray.room["large"]
        raise lost

    ray.ends["a"] = [lose]
    run(command("a", cpus=3, max_attempts=1), command("wide", cores=0), command("b"))
    assert [actor.options["num_cpus"] for actor in ray.actors] == [3, 4, 2, 1]
    assert ray.killed == [ray.actors[1]]


def test_a_ray_of_this_machine_must_have_room(fake: Any) -> None:
    ray = fake(FakeRay({"n": {"CPU": 2}}))
    with pytest.raises(UserError, match="no room for b: 1 CPUs and 1 GPUs; lower"):
        run(command("a"), command("b", gpus=1), address=None)
    assert ray.log == ["shutdown"]
