"""sclmkb-eval paper on tiny settings: its plan holds commands that the program takes, and figures come of them."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

NUM_CELLS = 30


def run_paper(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sclmkb.evaluate.cli", "paper", "--preset", "tiny", "--out", str(out), *options]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, env=offline)


def cells_run(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the names of the cells that were run."""
    lines = [line.split() for line in done.stderr.splitlines() if line.startswith("paper: ")]
    return [words[2].rstrip(",") for words in lines if "/" in words[1] and words[1].replace("/", "").isdecimal()]


@pytest.mark.long
def test_a_study_from_nothing_to_its_page(tmp_path: Path) -> None:
    out = tmp_path / "paper"
    done = run_paper(out)
    assert done.returncode == 0, done.stderr[-4000:]
    assert len(cells_run(done)) == NUM_CELLS
    figures = {path.stem for path in (out / "figures").iterdir()}
    drawn = {f"figure-{n}-people-emoji-{receiver}" for n in (6, 9, 10, 12) for receiver in ("literal", "dmrs")}
    assert figures == drawn | {"figure-11"}
    claims = pq.read_table(out / "claims.parquet").to_pylist()
    assert any(row["verdict"].startswith("not measured: 25 dB") for row in claims)
    assert "<svg" in (out / "report.html").read_text("utf-8")

    again = run_paper(out, "--set", "snrs_db=[0, 5, 15]")
    assert again.returncode == 0, again.stderr[-4000:]
    assert all("/eval/" in name and "512bit" in name for name in cells_run(again))
    results = out / "people-emoji" / "eval" / "umi-los-512bit" / "sc-lmkb" / "results.parquet"
    assert {row["snr_db"] for row in pq.read_table(results).to_pylist()} == {0.0, 5.0, 15.0}

    drawn_again = run_paper(out, "--set", "snrs_db=[0, 5, 15]", "--draw")
    assert drawn_again.returncode == 0
    assert cells_run(drawn_again) == []


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    for options, words in (
        (("--set", "systems=[deepsc-mimo]"), "name sc-lmkb"),
        (("--set", "corpora.people-emoji.reader=1"), "reader"),
        (("--set", "seeds=[0, 0]"), "names one twice"),
        (("--set", "corpora.people-emoji.root=nowhere", "--data", str(tmp_path)), "no folder"),
    ):
        done = run_paper(tmp_path / "out", *options)
        assert done.returncode == 2, options
        lines = done.stderr.strip().splitlines()
        assert len(lines) == 1, done.stderr
        assert words in lines[0]
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
