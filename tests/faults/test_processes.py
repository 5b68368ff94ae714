"""Processes that are killed, and processes that work on the same run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sdg_fakes import files

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.generate.runs.verify import find_problems


def rows(root: Path) -> list[dict[str, Any]]:
    return Artifact.open(root, "sdg").table("rows").to_pylist()


def test_kill_nine_at_random_moments_changes_nothing(
    forked: Callable[..., Any], corpus: Path, whole: Path, tmp_path: Path, num_kills: int
) -> None:
    done = forked("kill_often", corpus=corpus, out=tmp_path / "run", kills=num_kills, seed=1, retry=False)
    assert len(done["progress"]) == num_kills
    if num_kills >= 20:
        assert len(set(done["progress"])) >= 8, "the kills did not hit different stages of the run"
    for folder in map(Path, done["finished"]):
        assert files(folder) == files(whole)
        assert list(find_problems(folder)) == []


def test_kill_nine_during_a_retry_changes_nothing(
    forked: Callable[..., Any], corpus: Path, whole: Path, tmp_path: Path, num_kills: int
) -> None:
    done = forked("kill_often", corpus=corpus, out=tmp_path / "run", kills=num_kills, seed=2, retry=True)
    for folder in map(Path, done["finished"]):
        assert rows(folder) == rows(whole)
        assert list(find_problems(folder)) == []
        attempts = Artifact.open(folder, "sdg").table("attempts").to_pylist()
        assert any(a["finish_reason"] == "error" for a in attempts), "the failed tries stay on record"


def test_processes_on_one_run_write_what_one_writes(
    forked: Callable[..., Any], corpus: Path, whole: Path, tmp_path: Path, num_kills: int
) -> None:
    times = max(1, num_kills // 10)
    assert forked("together_after_each_other", corpus=corpus, out=tmp_path / "run", times=times) == [0] * 3 * times
    for number in range(times):
        assert files(tmp_path / f"run-{number}") == files(whole)


@pytest.mark.parametrize("retry", [False, True])
def test_processes_whose_engines_disagree_end_with_one_whole_run(
    forked: Callable[..., Any], corpus: Path, tmp_path: Path, retry: bool
) -> None:
    out = tmp_path / "run"
    assert forked("together", corpus=corpus, out=out, salts=[0, 1, 2], retry=retry) == [0, 0, 0]
    assert list(find_problems(out)) == []
    assert len(rows(out)) == 100
    assert not list(out.rglob("*.tmp"))
