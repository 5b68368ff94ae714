"""sclmkb-eval paper on tiny settings: its plan holds commands that the program takes, and figures come of them."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commands import Done, run_command

NUM_CELLS = 30


def run_paper(out: Path, *options: str | Path) -> Done:
    return run_command(["sclmkb-eval", "paper", "--preset", "tiny", "--out", out, *options])


def cells_run(done: Done) -> list[str]:
    """Return the names of the cells that were run."""
    lines = [line.split() for line in done.err.splitlines() if line.startswith("paper: ")]
    return [words[2].rstrip(",") for words in lines if "/" in words[1] and words[1].replace("/", "").isdecimal()]


@pytest.mark.long
def test_a_study_from_nothing_to_its_page(tmp_path: Path) -> None:
    out = tmp_path / "paper"
    done = run_paper(out)
    assert done.code == 0, done.err[-4000:]
    assert len(cells_run(done)) == NUM_CELLS
    figures = {path.stem for path in (out / "figures").iterdir()}
    drawn = {f"figure-{n}-people-emoji-{receiver}" for n in (6, 9, 10, 12) for receiver in ("literal", "dmrs")}
    assert figures == drawn | {"figure-11"}
    claims = pq.read_table(out / "claims.parquet").to_pylist()
    assert any(row["verdict"].startswith("not measured: 25 dB") for row in claims)
    assert "<svg" in (out / "report.html").read_text("utf-8")

    again = run_paper(out, "--set", "snrs_db=[0, 5, 15]")
    assert again.code == 0, again.err[-4000:]
    assert all("/eval/" in name and "512bit" in name for name in cells_run(again))
    results = out / "people-emoji" / "eval" / "umi-los-512bit" / "sc-lmkb" / "results.parquet"
    assert {row["snr_db"] for row in pq.read_table(results).to_pylist()} == {0.0, 5.0, 15.0}

    drawn_again = run_paper(out, "--set", "snrs_db=[0, 5, 15]", "--draw")
    assert drawn_again.code == 0
    assert cells_run(drawn_again) == []


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    for options, words in (
        (("--set", "systems=[deepsc-mimo]"), "name sc-lmkb"),
        (("--set", "corpora.people-emoji.reader=1"), "reader"),
        (("--set", "seeds=[0, 0]"), "names one twice"),
        (("--set", "corpora.people-emoji.root=nowhere", "--data", tmp_path), "no folder"),
    ):
        done = run_paper(tmp_path / "out", *options)
        assert done.code == 2, options
        lines = done.err.strip().splitlines()
        assert len(lines) == 1, done.err
        assert words in lines[0]
        assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()
