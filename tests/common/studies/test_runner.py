"""Cells of a study of toy commands: what runs again after a change, what a failure stops, what is printed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import studying
from waiting import wait_for

from sclmkb.common.errors import UserError
from sclmkb.common.studies.cells import Planner, Record, Study
from sclmkb.common.studies.runner import run_cell, run_study, startable


@pytest.fixture(autouse=True)
def _program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every command be a small program that writes down how it was called."""
    studying.write_program(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")


def runs(out: Path, *names: str) -> list[int]:
    return [len((out / name / "runs").read_text().splitlines()) for name in names]


def three(out: Path, word: str = "x", **more: Any) -> Study:
    planner = Planner(out)
    for name, words, cores in (("a", [word], 1), ("b/1", [out / "a"], 1), ("c", [out / "a", out / "b"], 0)):
        planner.part = f"part {name}"
        planner.add(name, "sclmkb-gen", "run", *words, cores=cores)
    return studying.make_study(out, planner, parts={f"part {name}": name.upper() for name in ("a", "b/1", "c")}, **more)


def test_a_command_needs_whoever_makes_what_it_names_or_something_below(tmp_path: Path) -> None:
    needs = {name: cell.needs for name, cell in three(tmp_path).cells.items()}
    assert needs == {"a": (), "b/1": ("a",), "c": ("a", "b/1")}


def test_what_stands_is_not_run_again_and_what_changed_is_with_all_that_needs_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for study, expected in ((three(out), [1, 1, 1]), (three(out), [1, 1, 1]), (three(out, "y"), [2, 2, 2])):
        assert run_study(study, 2) == ""
        assert runs(out, "a", "b/1", "c") == expected
    (out / "b/1" / "runs").unlink()
    (out / "b/1").rmdir()
    run_study(three(out, "y"), 2)
    assert runs(out, "a", "b/1", "c") == [2, 1, 2], "only the folder that was gone"
    assert "--new-run" in (out / "a" / "runs").read_text()
    out.rename(tmp_path / "moved")
    assert set(three(tmp_path / "moved", "y").done()) == {"a", "b/1", "c"}


def test_an_artifact_of_another_study_counts_by_its_plan(tmp_path: Path) -> None:
    other = tmp_path / "other"

    def key() -> str:
        planner = Planner(tmp_path / "out")
        planner.add("a", "sclmkb-gen", "run", other / "made")
        return studying.make_study(planner.out, planner, inputs={"OTHER": other}).keys()["a"]

    before = key()
    (other / "made").mkdir(parents=True)
    (other / "made" / "plan.json").write_text("{}")
    assert key() != before


def test_a_failure_stops_what_needs_it_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def study(word: str) -> Study:
        planner = Planner(out)
        planner.add("after", "sclmkb-gen", "run", planner.add("bad", "sclmkb-gen", "run", word))
        planner.add("good", "sclmkb-gen", "run", cores=2)
        return studying.make_study(out, planner)

    failures = run_study(study("fail"), 2)
    assert failures.startswith("1 of 3 cells failed, and 1 cells that need what failed were not run; first bad: exit")
    assert "no such thing: make it first" in failures
    assert runs(out, "good") == [1]
    assert not (out / "after").exists()
    assert "no such thing" in (out / "logs" / "bad.log").read_text()
    assert run_study(study("x"), 2) == ""
    assert runs(out, "bad", "after", "good") == [1, 1, 1]


def test_a_wide_cell_waits_for_all_cores_and_lets_none_go_before_it(tmp_path: Path) -> None:
    planner = Planner(tmp_path)
    other = planner.add("other", "sclmkb-gen", "run")
    planner.add("first", "sclmkb-gen", "run", other)
    planner.add("wide", "sclmkb-gen", "run", cores=0)
    planner.add("narrow", "sclmkb-gen", "run")
    todo = {name: cell for name, cell in planner.cells.items() if name != "other"}
    assert [cell.name for cell in startable(todo, set(), 2, 2)] == ["wide"]
    assert startable(todo, set(), 1, 2) == []
    assert [cell.name for cell in startable(todo, {"other"}, 2, 2)] == ["first"]


def test_commands_are_printed_and_one_at_a_time_has_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    planner = Planner(out, part="one")
    for name in ("first", "second"):
        planner.add(name, "sclmkb-gen", "run", name)
    planner.part = "two"
    planner.add("last", "sclmkb-eval", "run", out / "first", out / "second", again=True, new_run=False)
    planner.add("copy", "cp", "-r", out / "last", out / "copy", says_out=False, new_run=False)
    parts = {"one": "First things", "two": "Last things"}
    study = studying.make_study(out, planner, parts=parts, shown=True, side_by_side=2)
    assert run_study(study) == ""
    said = capfd.readouterr()
    assert [line for line in said.err.splitlines() if line] == [
        "[1/2, 0:00] First things",
        f"$ sclmkb-gen run first --out {out}/first",
        f"$ sclmkb-gen run second --out {out}/second &   # output in {out}/logs/second.log",
        *[line for line in said.err.splitlines() if line.startswith("[2/2, ")],
        f"$ sclmkb-eval run {out}/first {out}/second --out {out}/last",
        f"$ cp -r {out}/last {out}/copy",
    ]
    assert said.out == "at work\n" * 2, "the first, and the last"
    assert "at work" in (out / "logs" / "second.log").read_text()
    assert (out / "copy" / "runs").exists()
    assert run_study(study) == ""
    assert capfd.readouterr().err.count("   # done") == 3
    assert runs(out, "first", "second", "last") == [1, 1, 2], "a report takes whatever is there"
    assert "--new-run" not in (out / "last" / "runs").read_text()


def test_parts_that_are_chosen_take_the_others_to_be_there(tmp_path: Path) -> None:
    study = three(tmp_path / "out", missing={"part a": "nowhere"})
    assert run_study(study.only(["part c"]), 1) == ""
    assert set(study.done()) == {"c"}
    assert study.only(["part b/1"]).listing().count("sclmkb-gen") == 1
    for part, message in {"d": "has no part 'd': part a, part b/1, part c", "part a": "left out: nowhere"}.items():
        with pytest.raises(UserError, match=message):
            study.only([part])


def test_an_interrupted_study_stops_its_processes_and_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "words").write_text("slow")
    process = subprocess.Popen(
        [sys.executable, str(studying.__file__), str(tmp_path), str(out), "--jobs", "1"], stderr=subprocess.PIPE
    )
    log = out / "logs" / "a.log"
    wait_for(lambda: log.exists() and "\nat work\n" in log.read_text())
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 75
    kept = json.loads((out / "cells" / "a.json").read_text())
    assert kept["key"] == "", "it did not end"
    assert kept["seconds"] > 0


def test_what_a_cell_took_is_counted_over_its_attempts(tmp_path: Path) -> None:
    made = three(tmp_path / "out")
    run_study(made, 1)
    alone = made.done()["a"].seconds
    made.write_record(made.cells["a"], Record(key="", seconds=100.0, peak_gb=9.0, command=""))
    run_study(made, 1)
    assert 100 <= made.done()["a"].seconds < 130 + alone
    assert made.done()["a"].peak_gb == 9.0


def test_what_needs_an_optional_cell_goes_without_it_until_it_can_be_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def study(word: str) -> Study:
        planner = Planner(tmp_path / "out")
        planner.add("in/a", "sclmkb-gen", "run", word, optional=True)
        planner.add("in/b", "sclmkb-gen", "run", "x", optional=True)
        planner.add("fit", "sclmkb-gen", "run", tmp_path / "out" / "in")
        planner.add("draw", "sclmkb-eval", "run", tmp_path / "out" / "fit")
        return studying.make_study(tmp_path / "out", planner)

    out = tmp_path / "out"
    assert run_study(study("fail"), 2) == ""
    assert "goes without in/a, which failed" in capsys.readouterr().err
    assert runs(out, "in/b", "fit", "draw") == [1, 1, 1]
    assert set(study("fail").done()) == {"in/b"}, "what went without it is looked at again"
    assert run_study(study("x"), 2) == ""
    assert runs(out, "in/a", "in/b", "fit", "draw") == [1, 1, 2, 2]
    assert set(study("x").done()) == {"in/a", "in/b", "fit", "draw"}


def test_a_job_of_what_needs_an_optional_cell_runs_without_it(tmp_path: Path) -> None:
    planner = Planner(tmp_path / "out")
    planner.add("in/a", "sclmkb-gen", "run", "fail", optional=True)
    planner.add("fit", "sclmkb-gen", "run", tmp_path / "out" / "in")
    study = studying.make_study(tmp_path / "out", planner)
    assert run_cell(study, "in/a") == ""
    assert run_cell(study, "fit") == ""
    assert runs(tmp_path / "out", "fit") == [1]
    assert study.done() == {}
