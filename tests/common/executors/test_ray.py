"""What the Ray executor does without Ray; test_real_ray.py has the real one."""

import sys
from pathlib import Path
from typing import Any

import pytest

from sclmkb.common.errors import UserError
from sclmkb.common.executors.base import work_of_command
from sclmkb.common.executors.choose import choose_executor
from sclmkb.common.executors.local import Local
from sclmkb.common.executors.ray import Ray, RaySettings
from sclmkb.common.executors.ray_cluster import actor_with
from sclmkb.common.options import ExecutorName, RunOptions


def choose(*overrides: str, config: Path | None = None, **options: Any) -> Any:
    run = RunOptions(executor=ExecutorName.RAY, config=config, overrides=list(overrides), **options)
    return choose_executor(run, "sdg", Path("sdg"))


def executor(**settings: Any) -> Ray:
    return Ray(settings=RaySettings(**settings), program="p", arguments=["toy", "--join"], address="127.0.0.1:1")


def test_options_choose(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    typed = ["sdg", "--executor", "ray", "--ray-address=a:1", "--set", "ray.gpus=1", "--new-run", "--out", "r"]
    monkeypatch.setattr(sys, "argv", ["sclmkb-gen", *typed])
    monkeypatch.setenv("RAY_ADDRESS", "b:2")
    config = tmp_path / "site.yaml"
    config.write_text(
        "sdg: {seed: 3}\nray: {workers: 4, gpus: 2, options: {resources: {A100: 1}}}\nslurm: {hours: 1}\n"
    )
    ray = choose("seed=1", "ray.gpus=0.5", "slurm.hours=2", config=config, ray_address="a:1")
    assert ray.settings == RaySettings(workers=4, gpus=0.5, options={"resources": {"A100": 1}})
    assert (ray.address, ray.program) == ("a:1", "sclmkb.generate.cli")
    assert ray.arguments == ["sdg", "--set", "ray.gpus=1", "--out", "r", "--join"]
    assert choose().address == "b:2"
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert choose().address is None


@pytest.mark.parametrize(
    ("overrides", "options", "message"),
    [
        ([], {"shards": "0"}, "leave them out with --executor ray"),
        ([], {"join": True}, "leave them out with --executor ray"),
        ([], {"print_script": True}, "add --executor slurm"),
        (["ray.cpus=0"], {}, "greater than 0"),
        (["ray.nodes=2"], {}, "setting 'ray.nodes' does not exist"),
    ],
)
def test_what_does_not_go_together(overrides: list[str], options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        choose(*overrides, **options)


def test_an_address_is_for_ray(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="add --executor ray"):
        choose_executor(RunOptions(ray_address="a:1"), "sdg", tmp_path)


def test_nothing_to_do_needs_no_ray(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'sclmkb\[ray\]'"):
        executor().execute(stage.work())
    Local().execute(stage.work())
    (stage.out / "README.md").unlink()
    executor().execute(stage.work())
    assert (stage.out / "README.md").exists()


def test_nobody_there_is_said_soon(stage: Any) -> None:
    pytest.importorskip("ray")
    with pytest.raises(UserError, match=r"cannot work with the Ray cluster at 127\.0\.0\.1:1: .*refused"):
        executor().execute(stage.work())


class Toy:
    """Any actor."""


@pytest.mark.parametrize("options", [{"colour": "red"}, {"resources": 3}])
def test_options_that_ray_does_not_take_are_one_line(options: dict[str, Any]) -> None:
    ray = pytest.importorskip("ray")
    with pytest.raises(UserError, match=f"ray.options: .*{next(iter(options))}"):
        actor_with(ray.remote(Toy), options)


def test_a_command_hands_over_its_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setenv("RAY_ADDRESS", "of:1")  # actors may have it
    arguments = [str(tmp_path / "out"), "--moods", str(tmp_path), "--set", "ray.cpus=2"]
    work = work_of_command("toy_stage", arguments)
    assert work.left() == [0, 1, 2]
    for shard in work.shards(None):
        work.make([shard])
    work_of_command("toy_stage", [*arguments, "--join"]).finish()
    with pytest.raises(UserError, match="holds no run to join"):
        work_of_command("toy_stage", [str(tmp_path / "other"), "--moods", str(tmp_path), "--join"])
