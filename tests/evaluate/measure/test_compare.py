"""sclmkb-eval compare: what differs is named with both values, differences are paired where they can be."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import must_run, refusal
from measuring import rewrite, write_measurement

from sclmkb.common.artifacts.files import read_json, write_json

NUM_QUERIES = 30


def write_run(root: Path, levels: dict[str, float], seeds: tuple[int, ...] = (0, 1), **trained: Any) -> Path:
    """Write a measurement whose average precisions are that of the query and the system's, with a little noise."""
    draw = np.random.default_rng(sum(root.name.encode()))
    hard = np.random.default_rng(0).normal(0.5, 0.2, NUM_QUERIES)
    return write_measurement(
        root,
        levels,
        lambda at: levels[at["system"]] + 0.01 * at["seed"] + hard + draw.normal(0, 0.01, NUM_QUERIES),
        seeds=seeds,
        trained={"num_steps": 900, "threads": int(draw.integers(99)), **trained},
    )


def compare(*arguments: Any) -> str:
    return must_run(["sclmkb-eval", "compare", *arguments]).out


def cells(text: str, first: str) -> list[str]:
    return [
        cell.strip() for line in text.splitlines() if line.startswith(f"| {first} ") for cell in line.split("|")[2:-1]
    ]


def test_what_differs_comes_first_with_both_values(tmp_path: Path) -> None:
    levels = {"sc-lmkb": 0.05, "stale": 0.0}
    a, b = write_run(tmp_path / "a", levels), write_run(tmp_path / "b", levels, num_steps=500)
    config = read_json(b / "config.json")
    config["settings"] |= {"link": {"power": "water_filling"}, "snrs_db": [15.0, 20.0]}
    config["inputs"] = {"corpus": "c1", "csi": "h0", "predicted": "p"}
    config["checkpoints"][0]["settings"]["learning_rate"] = 0.1
    write_json(b / "config.json", config)
    text = compare(a, b, "--out", tmp_path / "out" / "table.md")
    assert (tmp_path / "out" / "table.md").read_text().strip() == text.strip()
    assert text.index(f"First: {a}") < text.index("### What differs") < text.index("### 15 dB, receiver literal")
    assert cells(text, "snrs_db") == ["–", "15 20"]
    assert cells(text, "link.power") == ["–", "water_filling"]
    assert cells(text, "input: corpus") == ["c0", "c1"]
    assert cells(text, "input: predicted") == ["–", "p"]
    assert cells(text, "training: num_steps") == ["900", "500"]  # of all systems
    assert cells(text, "training: learning_rate (sc-lmkb)") == ["–", "0.1"]
    assert "threads" not in text


def test_differences_are_paired_over_queries_and_seeds(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", {"sc-lmkb": 0.05, "stale": 0.0, "old": 0.0}, seeds=(0, 1, 2))
    b = write_run(tmp_path / "b", {"sc-lmkb": 0.10, "stale": 0.0, "new": 0.0}, seeds=(1, 2))
    text = compare(a, b)
    assert cells(text, "training: seeds") == ["0 1 2", "1 2"]
    measure, first, second, less = cells(text, "sc-lmkb")
    assert measure == "mAP"
    mean, half_width = (float(x) for x in less.split(" ± "))
    assert mean == pytest.approx(0.05, abs=0.01)
    assert 0 < half_width < 0.02 < float(first.split(" ± ")[1])  # queries scatter by 0.2, seeds by 0.01
    assert float(second.split(" ± ")[0]) - float(first.split(" ± ")[0]) == pytest.approx(0.055, abs=0.01)
    assert f"Only in {a}: old" in text
    assert f"Only in {b}: new" in text
    text = compare(a, a)
    assert "Nothing: settings, inputs and trainings are the same." in text
    assert cells(text, "sc-lmkb")[-1] == "+0.000 ± 0.000"


def test_without_pairs_there_is_no_interval(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", {"x": 0.05})
    others = write_run(tmp_path / "queries", {"x": 0.05})
    rewrite(others, "queries", lambda row: {"row_id": f"other-{row['row_id']}"})
    for b, why in (
        (others, "other queries"),
        (write_run(tmp_path / "seeds", {"x": 0.05}, seeds=(5, 6)), "other seeds"),
        (write_run(tmp_path / "one", {"x": 0.05}, seeds=(1,)), "one seed"),
    ):
        assert f"({why}: no interval)" in cells(compare(a, b), "x")[-1]


def test_folders_with_one_system_each_are_compared_whatever_it_is_called(tmp_path: Path) -> None:
    a, b = (write_run(tmp_path / name, {name: level}) for name, level in (("deepsc-mimo", 0.0), ("sc-lmkb", 0.1)))
    assert cells(compare(a, b), "deepsc-mimo / sc-lmkb")[-1].startswith("+0.1")


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", {"x": 0.05, "y": 0.0})
    b, c = (write_run(tmp_path / name, {"z": 0.05}) for name in "bc")
    rewrite(b, "results", lambda row: {"receiver": "dmrs"})
    for folders, message in (
        ((a, tmp_path / "nowhere"), f"{tmp_path / 'nowhere'} holds no measurement of"),
        ((a, c), f"no system in common: {a} has x, y and {c} has z"),
        ((a, a, "--snr", 3), f"{a}: nothing was measured at 3.0 dB, only at [15.0]"),
        ((c, b), f"{c} and {b} have no receiver in common"),
    ):
        assert message in refusal(["sclmkb-eval", "compare", *folders])
    (b / "results.parquet").unlink()
    assert "no results.parquet in" in refusal(["sclmkb-eval", "compare", c, b])
