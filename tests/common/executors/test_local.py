import sys
from pathlib import Path
from typing import Any

import pytest

from sclmkb.common.artifacts.artifact import UnfinishedError
from sclmkb.common.errors import UserError
from sclmkb.common.executors.choose import choose_executor
from sclmkb.common.executors.local import Local
from sclmkb.common.executors.slurm import Slurm
from sclmkb.common.options import ExecutorName, RunOptions


def test_all_shards_are_made_once(stage: Any) -> None:
    artifact = Local().execute(stage.work())
    assert artifact is not None
    assert artifact.table("rows")["row_id"].to_pylist() == [f"row-{i}" for i in range(10)]
    assert len(stage.made) == 5
    assert Local().execute(stage.work()) is not None
    assert len(stage.made) == 5


def test_shards_are_left_to_others(stage: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert Local("1,3").execute(stage.work()) is None
    assert capsys.readouterr().err.endswith("toy: these shards are done, others are left: 0,2,4\n")
    assert stage.work().left() == [0, 2, 4]
    assert not (stage.out / "README.md").exists()
    assert Local("0-2,4").execute(stage.work()) is not None, "the last one does the last step"
    assert stage.work().left() == []


def test_the_last_step_alone_makes_nothing(stage: Any) -> None:
    with pytest.raises(UnfinishedError):
        Local("none").execute(stage.work())
    assert stage.made == []


def test_who_joins_starts_nothing(stage: Any) -> None:
    with pytest.raises(UserError, match=r"holds no run to join: start it first"):
        stage.work(join=True)
    assert not stage.out.exists()
    Local("0").execute(stage.work())
    assert stage.work(join=True).left() == [1, 2, 3, 4]


def choose(executor: str, *overrides: str, **options: Any) -> Any:
    run = RunOptions(executor=ExecutorName(executor), overrides=list(overrides), **options)
    return choose_executor(run, "sdg", Path("sdg"))


def test_options_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["sclmkb-gen", "sdg", "--executor=slurm", "--out", "r", "--print"])
    assert RunOptions(overrides=["seed=1", "slurm.hours=2"]).layers["overrides"] == ["seed=1"]
    assert choose("local", "seed=1", "slurm.hours=2", shards="0-3") == Local("0-3")
    slurm = choose("slurm", "seed=1", "slurm.hours=2", "slurm.gpus=1", print_script=True)
    assert isinstance(slurm, Slurm)
    assert slurm.settings.hours == 2
    assert slurm.settings.gpus == "1"
    assert slurm.command == [sys.executable, "-m", "sclmkb.generate.cli", "sdg", "--out", "r", "--join"]
    assert slurm.print_only


def test_settings_come_from_the_section_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["sclmkb-gen", "sdg"])
    config = tmp_path / "site.yaml"
    config.write_text("sdg: {seed: 3}\nslurm:\n  hours: 12\n  gpus: 1\n  sbatch: [--account=vision]\n")
    run = RunOptions(executor=ExecutorName.SLURM, preset="tiny", config=config, overrides=["slurm.hours=2"])
    slurm = choose_executor(run, "sdg", tmp_path / "sdg")
    assert isinstance(slurm, Slurm)
    assert slurm.settings.model_dump(exclude_defaults=True) == {
        "hours": 2,
        "gpus": "1",
        "sbatch": ("--account=vision",),
    }


@pytest.mark.parametrize(
    ("executor", "options", "message"),
    [
        ("local", {"print_script": True}, "add --executor slurm"),
        ("local", {"join": True, "new_run": True}, "leave one of them out"),
        ("slurm", {"shards": "0"}, "leave them out with --executor slurm"),
        ("slurm", {"join": True}, "leave them out with --executor slurm"),
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
    ],
)
def test_settings_that_cannot_be(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        choose("slurm", override)
