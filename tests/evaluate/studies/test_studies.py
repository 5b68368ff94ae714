"""The studies that the command offers: which commands each has, and what the command line says of them."""

import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sclmkb.common.errors import UserError
from sclmkb.common.studies.cells import Study
from sclmkb.evaluate.cli import app
from sclmkb.evaluate.studies.base import STUDIES, Where, open_study


def plan(name: str, out: Path, data: Path | None = None, **settings: Any) -> Study:
    kind = open_study(name)
    return kind.plan(kind.settings(**settings), Where(out=out, data=data))


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """Return the folder of a demo that is done."""
    (tmp_path / "demo" / "predicted").mkdir(parents=True)
    return tmp_path / "demo"


def test_each_study_is_commands_of_its_parts_that_name_what_comes_before(tmp_path: Path, demo: Path) -> None:
    data = tmp_path / "data"
    studies = {
        "demo": plan("demo", tmp_path / "d"),
        "csi": plan("csi", tmp_path / "c"),
        "retrieval": plan("retrieval", tmp_path / "r", data, demo=demo),
    }
    assert {name: len(study.cells) for name, study in studies.items()} == {"demo": 19, "csi": 79, "retrieval": 93}
    for study in studies.values():
        assert list(dict.fromkeys(cell.part for cell in study.cells.values())) == list(study.parts)
        for cell in study.cells.values():
            own = [word for word in cell.command if Path(word).is_relative_to(study.out) and Path(word) != cell.out]
            assert cell.command[0] == "cp" or bool(own) == bool(cell.needs), f"{cell.name} reads what nobody makes"
            assert all(study.cells[need] for need in cell.needs)


def test_the_demo_measures_and_draws_what_it_made(tmp_path: Path) -> None:
    cells = plan("demo", tmp_path, seeds=(0, 7)).cells
    trained = [name for name in cells if name.startswith("jscc/")]
    assert len(trained) == 10
    assert set(cells["jscc/sc-lmkb/seed-7"].needs) == {"corpus", "csi", "predicted", "sdg", "backbone/seed-7"}
    assert set(cells["eval"].needs) == {*trained, "corpus", "csi", "predicted"}
    assert set(cells["report.html"].needs) == {"eval", "corpus", "sdg", "predicted"}


def test_the_knobs_of_the_study_of_csi(tmp_path: Path) -> None:
    (tmp_path / "test" / "umi-own").mkdir(parents=True)
    (tmp_path / "test" / "umi-own.old-1").mkdir()
    study = plan("csi", tmp_path, steps=10, seeds=(4,), drops=5, tests="umi-*-30")
    assert "num_steps=10" in study.cells["models/gru/seed-4"].command
    assert "num_steps=200" in study.cells["models/few/cdg/seed-4"].command
    measured = study.cells["eval"]
    assert [Path(w).name for w in measured.command if "/test/" in w] == ["umi-los-30", "umi-nlos-30"]
    assert "max_drops=5" in measured.command
    own = plan("csi", tmp_path, tests="umi-own*").cells["eval"]
    assert [Path(w).name for w in own.command if "/test/" in w] == ["umi-own"], "what somebody put beside them"


def test_retrieval_needs_the_demo_and_leaves_out_what_has_no_folder(tmp_path: Path, demo: Path) -> None:
    with pytest.raises(UserError, match="run make demo first"):
        plan("retrieval", tmp_path / "r", demo=tmp_path)
    study = plan("retrieval", tmp_path / "r", demo=demo)
    assert set(study.missing) == {"motion", "sound"}
    with pytest.raises(UserError, match="motion is left out: no folder was named with --data"):
        study.only(["motion"])


def call(*words: str) -> Any:
    return CliRunner().invoke(app, [*words])


def test_the_command_lists_and_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    listed = call("study", "demo", "--preset", "tiny", "--only", "csi", "--dry-run").stdout
    assert listed == "# csi\nsclmkb-gen csi --preset tiny --scenario umi-los --out artifacts/tiny/csi\n"
    listed = call("study", "mtsc", "--only", "evaluation", "--dry-run").stdout
    assert listed.startswith("# eval/mtsc\nsclmkb-eval mtsc --preset mtsc --corpus artifacts/mtsc/corpora")
    for words, message in (
        (("study", "none"), f"there is no study 'none': {', '.join(STUDIES)}"),
        (("study", "demo", "--only", "none"), "study demo has no part 'none': corpus, sdg"),
        (("study", "demo", "--draw"), "draws nothing"),
        (("study", "demo", "--set", "seed=0"), "does not exist"),
        (("study", "demo", "--cell", "none"), "there is no cell 'none'"),
        (("paper", "--preset", "demo", "--print"), "add --executor slurm"),
        (("paper", "--preset", "demo", "--executor", "slurm", "--draw"), "leave them out"),
        (("paper", "--preset", "demo", "--executor", "slurm", "--cell", "x"), "leave them out"),
    ):
        found = call(*words)
        assert isinstance(found.exception, UserError), words
        assert message in str(found.exception)
    assert not (tmp_path / "artifacts").exists()


def test_jobs_make_the_same_study(fake_slurm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = ["--preset", "demo", "--set", "seeds=[0]", "--set", "slurm.hours=2", "--jobs", "2"]
    for words, cell in (
        (["paper"], "study paper --preset demo --jobs 2 --set 'seeds=[0]' --cell people-emoji/corpus"),
        (
            ["study", "demo", "--only", "csi"],
            "study demo --preset demo --jobs 2 --only csi --set 'seeds=[0]' --cell csi",
        ),
    ):
        found = call(*words, *own, "--executor", "slurm", "--print")
        assert found.exception is None, found.output
        assert f"{sys.executable} -m sclmkb.evaluate.cli {cell} &" in found.output
        assert "--time=120" in found.output
    assert not fake_slurm.submitted()
