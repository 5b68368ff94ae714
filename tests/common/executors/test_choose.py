"""From options and sections of settings to an executor."""

import sys
from pathlib import Path
from typing import Any

import pytest

from sclmkb.common.errors import UserError
from sclmkb.common.executors.base import work_of_command
from sclmkb.common.executors.choose import choose_executor
from sclmkb.common.executors.local import Local
from sclmkb.common.executors.ray import RaySettings
from sclmkb.common.executors.slurm import Slurm
from sclmkb.common.executors.slurm_script import SlurmSettings
from sclmkb.common.options import ExecutorName, RunOptions

CONFIG = """
sdg: {seed: 3}
ray: {workers: 4, gpus: 2, options: {resources: {A100: 1}}}
slurm: {hours: 12, gpus: 1, sbatch: [--account=vision]}
"""


def choose(executor: str, *overrides: str, **options: Any) -> Any:
    run = RunOptions(executor=ExecutorName(executor), overrides=list(overrides), **options)
    return choose_executor(run, "sdg", Path("sdg"))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "site.yaml").write_text(CONFIG)
    return tmp_path / "site.yaml"


def test_overrides_of_executors_are_not_those_of_the_command() -> None:
    assert RunOptions(overrides=["seed=1", "slurm.hours=2"]).layers["overrides"] == ["seed=1"]
    assert choose("local", "seed=1", "slurm.hours=2", shards="0-3") == Local("0-3")


def test_slurm(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["sclmkb-gen", "sdg", "--executor=slurm", "--out", "r", "--print"])
    assert choose("slurm", "seed=1", "slurm.hours=2", preset="tiny", config=config, print_script=True) == Slurm(
        settings=SlurmSettings(hours=2, gpus="1", sbatch=("--account=vision",)),
        command=[sys.executable, "-m", "sclmkb.generate.cli", "sdg", "--out", "r", "--join"],
        print_only=True,
    )


def test_ray(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    typed = ["sdg", "--executor", "ray", "--ray-address=a:1", "--set", "ray.gpus=1", "--new-run", "--out", "r"]
    monkeypatch.setattr(sys, "argv", ["sclmkb-gen", *typed])
    monkeypatch.setenv("RAY_ADDRESS", "b:2")
    ray = choose("ray", "seed=1", "ray.gpus=0.5", "slurm.hours=2", config=config, ray_address="a:1")
    assert ray.settings == RaySettings(workers=4, gpus=0.5, options={"resources": {"A100": 1}})
    assert (ray.address, ray.program) == ("a:1", "sclmkb.generate.cli")
    assert ray.arguments == ["sdg", "--set", "ray.gpus=1", "--out", "r", "--join"]
    assert choose("ray").address == "b:2"
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert choose("ray").address is None


@pytest.mark.parametrize(
    ("executor", "options", "message"),
    [
        ("local", {"print_script": True}, "add --executor slurm"),
        ("ray", {"print_script": True}, "add --executor slurm"),
        ("local", {"ray_address": "a:1"}, "add --executor ray"),
        ("local", {"join": True, "new_run": True}, "leave one of them out"),
        *((name, {"shards": "0"}, f"leave them out with --executor {name}") for name in ("ray", "slurm")),
        *((name, {"join": True}, f"leave them out with --executor {name}") for name in ("ray", "slurm")),
    ],
)
def test_options_that_do_not_go_together(executor: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        choose(executor, **options)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("slurm.hours=0.1", "leaves no time"),
        ("slurm.sbatch=[account]", "one each, not 'account'"),
        ("slurm.nodes=2", "setting 'slurm.nodes' does not exist"),
        ("slurm.shards_per_task=0", "greater than or equal to 1"),
        ("ray.cpus=0", "greater than 0"),
        ("ray.nodes=2", "setting 'ray.nodes' does not exist"),
    ],
)
def test_settings_that_cannot_be(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        choose(override.partition(".")[0], override)


def test_a_command_hands_over_its_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "of:1")  # actors may have it
    arguments = [str(tmp_path / "out"), "--moods", str(tmp_path), "--set", "ray.cpus=2"]
    work = work_of_command("toy_stage", arguments)
    assert work.left() == [0, 1, 2]
    for shard in work.shards(None):
        work.make([shard])
    work_of_command("toy_stage", [*arguments, "--join"]).finish()
    with pytest.raises(UserError, match="holds no run to join"):
        work_of_command("toy_stage", [str(tmp_path / "other"), "--moods", str(tmp_path), "--join"])
