"""Cells of a study: which ones there are, what runs again after a change, what a failure stops."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sclmkb.common.errors import UserError
from sclmkb.evaluate.studies.sc_lmkb import runner
from sclmkb.evaluate.studies.sc_lmkb.cells import Cell, Record, Study
from sclmkb.evaluate.studies.sc_lmkb.plan import SWEPT, csi_name, make_study
from sclmkb.evaluate.studies.sc_lmkb.settings import SYSTEMS, CorpusSettings, PaperSettings

PROGRAM = """
import sys, time
from pathlib import Path
out = Path(sys.argv[sys.argv.index("--out") + 1])
if "fail" in sys.argv:
    sys.exit("error: no such thing: make it first")
if "slow" in sys.argv:
    time.sleep(30)
out.mkdir(parents=True, exist_ok=True)
with (out / "runs").open("a") as runs:
    runs.write(" ".join(sys.argv[1:]) + "\\n")
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every command be a small program that writes down how it was called."""
    (tmp_path / "fake_command.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(runner, "_MODULES", dict.fromkeys(runner._MODULES, "fake_command"))


def cell(out: Path, name: str, *words: str, needs: tuple[str, ...] = (), cores: int = 1) -> Cell:
    command = ("sclmkb-gen", *words, "--out", str(out / name))
    return Cell(name=name, command=command, out=out / name, needs=needs, cores=cores)


def study(out: Path, *cells: Cell) -> Study:
    return Study(out=out, cells={c.name: c for c in cells}, missing={})


def runs(out: Path, name: str) -> int:
    return len((out / name / "runs").read_text().splitlines())


def three(out: Path, word: str = "x") -> Study:
    return study(
        out, cell(out, "a", word), cell(out, "b/1", needs=("a",)), cell(out, "c", "only", needs=("a", "b/1"), cores=0)
    )


def settings(**more: object) -> PaperSettings:
    people = CorpusSettings(title="people", task="person", reader="people-emoji", preset="demo", ablation=True)
    sounds = CorpusSettings(title="sounds", task="sound", reader="esc10", root="esc10", preset="esc10")
    return PaperSettings.model_validate({"corpora": {"people": people, "sounds": sounds}, **more})


@pytest.mark.usefixtures("fake")
def test_what_stands_is_not_run_again_and_what_changed_is_with_all_that_needs_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    runner.run_study(three(out), 2)
    runner.run_study(three(out), 2)
    assert [runs(out, name) for name in ("a", "b/1", "c")] == [1, 1, 1]
    (out / "b/1" / "runs").unlink()
    (out / "b/1").rmdir()
    runner.run_study(three(out), 2)
    assert [runs(out, name) for name in ("a", "b/1", "c")] == [1, 1, 1], "only the folder that was gone"
    runner.run_study(three(out, "y"), 2)
    assert [runs(out, name) for name in ("a", "b/1", "c")] == [2, 2, 2]


@pytest.mark.usefixtures("fake")
def test_a_study_that_was_moved_still_stands(tmp_path: Path) -> None:
    runner.run_study(three(tmp_path / "out"), 1)
    (tmp_path / "out").rename(tmp_path / "moved")
    assert set(three(tmp_path / "moved").done()) == {"a", "b/1", "c"}


@pytest.mark.usefixtures("fake")
def test_a_failure_stops_what_needs_it_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    cells = [cell(out, "bad", "fail"), cell(out, "after", needs=("bad",)), cell(out, "good")]
    failures = runner.run_study(study(out, *cells), 2)
    assert failures.startswith("1 of 3 cells failed, and 1 cells that need what failed were not run; first bad: exit")
    assert "no such thing: make it first" in failures
    assert runs(out, "good") == 1
    assert not (out / "after").exists()
    assert "no such thing" in (out / "logs" / "bad.log").read_text()
    mended = [cell(out, "bad"), *cells[1:]]
    assert runner.run_study(study(out, *mended), 2) == ""
    assert [runs(out, name) for name in ("bad", "after", "good")] == [1, 1, 1]


def test_a_wide_cell_waits_for_all_cores_and_lets_none_go_before_it(tmp_path: Path) -> None:
    cells = {c.name: c for c in (cell(tmp_path, "wide", cores=0), cell(tmp_path, "narrow"))}
    assert [c.name for c in runner._startable(cells, set(), 2, 2)] == ["wide"]
    assert runner._startable(cells, set(), 1, 2) == []
    waiting = {"first": cell(tmp_path, "first", needs=("other",)), **cells}
    assert [c.name for c in runner._startable(waiting, set(), 4, 4)] == ["wide"]


@pytest.mark.usefixtures("fake")
def test_an_interrupted_study_stops_its_processes_and_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        "from sclmkb.common.console import run_app; import typer;"
        "from sclmkb.evaluate.studies.sc_lmkb import runner;"
        "from sclmkb.evaluate.studies.sc_lmkb.cells import Cell, Study;"
        "runner._MODULES['sclmkb-gen'] = 'fake_command'; out = Path(sys.argv[2]);"
        "made = Cell(name='a', command=('sclmkb-gen', 'slow', '--out', str(out / 'a')), out=out / 'a');"
        "study = Study(out=out, cells={'a': made}, missing={});"
        "app = typer.Typer(); app.command()(lambda: runner.run_study(study, 1));"
        "sys.argv = ['x']; run_app(app)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(out)], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not (out / "logs" / "a.log").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 75
    kept = json.loads((out / "cells" / "a.json").read_text())
    assert kept["key"] == "", "it did not end"
    assert kept["seconds"] > 0


@pytest.mark.usefixtures("fake")
def test_what_a_cell_took_is_counted_over_its_attempts(tmp_path: Path) -> None:
    made = three(tmp_path / "out")
    runner.run_study(made, 1)
    alone = made.done()["a"].seconds
    made.write_record(made.cells["a"], Record(key="", seconds=100.0, peak_gb=9.0, command=""))
    runner.run_study(made, 1)
    assert 100 <= made.done()["a"].seconds < 130 + alone
    assert made.done()["a"].peak_gb == 9.0


def test_the_plan_holds_every_figure_and_asks_for_each_folder_that_it_reads(tmp_path: Path) -> None:
    (tmp_path / "data" / "esc10").mkdir(parents=True)
    made = make_study(settings(swept_bits=(64, 512)), tmp_path / "out", tmp_path / "data")
    trained, zero_shot, swept = csi_name("umi-los", 512), csi_name("uma-nlos", 512), csi_name("umi-los", 64)
    for system in SYSTEMS:
        assert f"people/eval/{trained}/{system}" in made.cells
    for system in (*SWEPT, "sscc"):
        assert f"people/eval/{zero_shot}/{system}" in made.cells
        assert f"people/eval/{swept}/{system}" in made.cells
        assert f"sounds/eval/{trained}/{system}" in made.cells
    assert "sounds/jscc/random-backbone/seed-0" not in made.cells
    seen: set[str] = set()
    for name, one in made.cells.items():
        assert seen.issuperset(one.needs), f"{name} comes before what it needs"
        read = [Path(w) for w in one.command if w.startswith(str(tmp_path / "out")) and Path(w) != one.out]
        needed = [made.cells[need].out for need in one.needs]
        for folder in read:  # a folder of several cells stands for all of them
            assert any(n == folder or n.is_relative_to(folder) for n in needed), f"{name} reads {folder}"
        seen.add(name)


def test_another_snr_or_seed_changes_the_cells_that_it_concerns_alone(tmp_path: Path) -> None:
    def keys(**more: object) -> dict[str, str]:
        return make_study(settings(**more), tmp_path, None).keys()

    first, more_snrs, more_seeds = keys(snrs_db=(0, 15)), keys(snrs_db=(0, 5, 15)), keys(snrs_db=(0, 15), seeds=(0, 3))
    changed = {name for name, key in first.items() if more_snrs[name] != key}
    assert changed
    assert all("/eval/" in name for name in changed)
    assert all(first[name] == key for name, key in more_seeds.items() if "/jscc/" in name and name.endswith("seed-0"))


def test_what_is_not_there_is_left_out_with_a_reason_and_nothing_left_is_an_error(tmp_path: Path) -> None:
    made = make_study(settings(), tmp_path, None)
    assert list(made.missing) == ["sounds"]
    assert "--data" in made.missing["sounds"]
    assert not any(name.startswith("sounds/") for name in made.cells)
    sounds = settings().corpora["sounds"]
    with pytest.raises(UserError, match=r"no corpus is left .* no folder .*esc10"):
        make_study(PaperSettings(corpora={"sounds": sounds}), tmp_path, tmp_path)


def test_unknown_systems_and_a_study_without_the_main_one_are_refused() -> None:
    with pytest.raises(ValueError, match="'deepsc' is unknown"):
        settings(systems=("sc-lmkb", "deepsc"))
    with pytest.raises(ValueError, match="name sc-lmkb"):
        settings(systems=("deepsc-mimo",))
