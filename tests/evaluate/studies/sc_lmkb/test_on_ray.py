"""Cells of a study for Ray: what they ask for, and what the command says; test_paper_real_ray.py has a real one."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sclmkb.common.artifacts.files import write_json
from sclmkb.common.errors import UserError
from sclmkb.common.executors.ray_commands import Command, Ended
from sclmkb.evaluate.cli import app
from sclmkb.evaluate.studies.sc_lmkb import on_ray
from sclmkb.evaluate.studies.sc_lmkb.cells import Cell, Record, Study
from sclmkb.evaluate.studies.sc_lmkb.options import split_options


def three(out: Path) -> Study:
    cells = {}
    for name, command, needs, cores in (("a", "corpus", (), 1), ("b/1", "sdg", ("a",), 0), ("c", "csi", ("b/1",), 1)):
        words = ("sclmkb-gen", command, "--out", str(out / name))
        cells[name] = Cell(name=name, command=words, out=out / name, needs=needs, cores=cores)
    return Study(out=out, cells=cells, missing={})


def do(study: Study, name: str) -> None:
    cell = study.cells[name]
    cell.out.mkdir(parents=True)
    study.write_record(cell, Record(key=study.keys()[name], seconds=3.0, peak_gb=0.1, command=cell.line()))


class Handed:
    """Takes the commands instead of Ray; each ends as ``ends`` says, or well."""

    def __init__(self, study: Study, **ends: str) -> None:
        self.study, self.ends, self.commands, self.where = study, ends, dict[str, Command](), dict[str, Any]()

    def __call__(self, what: str, commands: Sequence[Command], ended: Ended, **where: Any) -> dict[str, str]:
        self.commands, self.where = {command.name: command for command in commands}, where
        failed, lacking = dict[str, str](), set(self.commands)
        for command in commands:
            if lacking.isdisjoint(command.needs):
                if problem := self.ends.get(command.name, ""):
                    failed[command.name] = problem
                else:
                    do(self.study, command.name)
                    lacking.remove(command.name)
                ended(command.name, "n1", problem)
        return failed


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return three(tmp_path / "out")


@pytest.fixture
def handed(study: Study, monkeypatch: pytest.MonkeyPatch) -> Handed:
    handed = Handed(study)
    monkeypatch.setattr(on_ray, "run_commands", handed)
    return handed


def run(study: Study, *overrides: str, config: Path | None = None, **more: Any) -> str:
    own, options, _ = split_options(None, config, overrides)
    assert own == []
    return on_ray.run_on_ray(study, options, ["-m", "it"], **more)


def test_cells_ask_for_what_they_keep_busy_and_settings_go_over_it(
    study: Study, handed: Handed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    do(study, "a")
    assert run(study, address="here:1") == ""
    assert handed.where == {"address": "here:1", "cores": None}
    assert list(handed.commands) == ["b/1", "c"], "what is done is left out"
    wide, narrow = handed.commands.values()
    assert (wide.arguments, wide.needs) == (("-m", "it", "--cell", "b/1"), ("a",))
    assert [(c.cores, c.settings.cpus, c.takes_a_node) for c in (wide, narrow)] == [(0, None, True), (1, None, False)]
    assert "paper: 2/3 b/1, 3 s on n1\n" in capsys.readouterr().err
    config = tmp_path / "site.yaml"
    write_json(config, {"ray": {"gpus": 1, "max_attempts": 2}, "ray-gen-sdg": {"cpus": 4.5}, "slurm": {"hours": 1}})
    other = three(tmp_path / "other")
    handed.study = other
    run(other, "ray.gpus=0.5", config=config, jobs=3)
    settings = {name: command.settings for name, command in handed.commands.items()}
    assert {name: (of.cpus, of.gpus, of.max_attempts) for name, of in settings.items()} == {
        "a": (None, 0.5, 2), "b/1": (4.5, 0.5, 2), "c": (None, 0.5, 2),
    }  # fmt: skip
    assert handed.commands["b/1"].arguments[-2:] == ("--jobs", "4")
    assert handed.commands["c"].arguments[-2:] == ("--jobs", "3")
    write_json(config, {"ray-gen-csi": {"cores": 1}})
    with pytest.raises(UserError, match=r"'ray-gen-csi\.cores' does not exist"):
        run(three(tmp_path / "third"), config=config)


def test_what_failed_is_named_as_on_one_machine(study: Study, handed: Handed) -> None:
    handed.ends["a"] = "on n1: exit code 2: bad: mend it"
    said = "1 of 3 cells failed, and 2 cells that need what failed were not run; first a: on n1: exit code 2: bad"
    assert run(study).startswith(said)


def test_nothing_to_do_needs_no_ray(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'sclmkb\[ray\]'"):
        run(study)
    for name in study.cells:
        do(study, name)
    assert run(study) == ""


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handed: Handed) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", "of:1")

    def call(*more: str) -> Any:
        words = ["paper", "--preset", "demo", "--set", "seeds=[0]", "--set", "ray.gpus=1", "--jobs", "2", *more]
        return CliRunner().invoke(app, words)

    def command(what: str, commands: Sequence[Command], ended: Ended, **where: Any) -> dict[str, str]:
        handed.commands, handed.where = {c.name: c for c in commands}, where
        return {"csi/umi-los": "on n1: bad"}

    monkeypatch.setattr(on_ray, "run_commands", command)
    found = call("--executor", "ray")
    assert isinstance(found.exception, UserError)
    assert "1 of " in str(found.exception)
    assert (tmp_path / "artifacts/demo/paper/report.html").exists(), "what there is is drawn"
    assert handed.where == {"address": "of:1", "cores": 2}
    corpus = handed.commands["people-emoji/corpus"]
    own = "--preset demo --set seeds=[0] --cell people-emoji/corpus --jobs 2"
    assert " ".join(corpus.arguments) == f"-m sclmkb.evaluate.cli paper {own}"
    assert corpus.settings.gpus == 1
    for wrong, message in {
        ("--executor", "ray", "--draw"): "leave them out with --executor ray",
        ("--executor", "ray", "--cell", "x"): "leave them out with --executor ray",
        ("--executor", "ray", "--print"): "add --executor slurm",
        ("--ray-address", "x:1"): "add --executor ray",
    }.items():
        assert message in str(call(*wrong).exception)
