"""sclmkb-eval compare: what differs is named with both values, differences are paired where they can be."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sclmkb.common.artifacts.files import read_json, write_json
from sclmkb.evaluate import cli

NUM_QUERIES = 30


def write_run(
    root: Path, levels: dict[str, float], *, seeds: tuple[int, ...] = (0, 1), captions: str = "row", **trained: Any
) -> Path:
    """Write a measurement whose average precisions are that of the query and the system's, with a little noise."""
    draw = np.random.default_rng(sum(root.name.encode()))
    hard = np.random.default_rng(0).normal(0.5, 0.2, NUM_QUERIES)
    results, rows, checkpoints = [], [], []
    for system, level in levels.items():
        for seed in seeds:
            ap = level + 0.01 * seed + hard + draw.normal(0, 0.01, NUM_QUERIES)
            at = {"system": system, "seed": seed, "receiver": "literal", "snr_db": 15.0}
            found = {"queries": NUM_QUERIES, "map": ap.mean(), "rank1": 0.0, "rank5": 1.0, "rank10": 1.0}
            results.append(at | {"csi_source": "stale", "sdg": True, "fusion": "mixed", "wording": "same"} | found)
            rows += [
                at | {"row_id": f"{captions}/{i:02}", "identity": i, "wording": "label", "ap": value, "rank": 2}
                for i, value in enumerate(ap)
            ]
            settings = {"system": system, "seed": seed, "num_steps": 900, "threads": int(draw.integers(99))} | trained
            checkpoints.append({"settings": settings, "inputs": {"corpus": "c0"}})
    root.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), root / "queries.parquet")
    pq.write_table(pa.Table.from_pylist(results), root / "results.parquet")
    settings = {"seed": 0, "link": None, "snrs_db": [15.0]}
    write_json(
        root / "config.json",
        {"kind": "eval", "settings": settings, "inputs": {"corpus": "c0"}, "checkpoints": checkpoints},
    )
    return root


def compare(*arguments: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["sclmkb-eval", "compare", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
    assert exit_.value.code in (0, None)


def fails(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["sclmkb-eval", "compare", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def cells(text: str, first: str) -> list[str]:
    return [
        cell.strip() for line in text.splitlines() if line.startswith(f"| {first} ") for cell in line.split("|")[2:-1]
    ]


def test_what_differs_comes_first_with_both_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    levels = {"sc-lmkb": 0.05, "stale": 0.0}
    a, b = write_run(tmp_path / "a", levels), write_run(tmp_path / "b", levels, num_steps=500)
    config = read_json(b / "config.json")
    config["settings"] |= {"link": {"power": "water_filling"}, "snrs_db": [15.0, 20.0]}
    config["inputs"] = {"corpus": "c1", "csi": "h1"}
    config["checkpoints"][0]["settings"]["learning_rate"] = 0.1
    write_json(b / "config.json", config)
    compare(a, b, "--out", tmp_path / "out" / "table.md")
    text = capsys.readouterr().out
    assert (tmp_path / "out" / "table.md").read_text().strip() == text.strip()
    assert text.index(f"First: {a}") < text.index("### What differs") < text.index("### 15 dB, receiver literal")
    assert cells(text, "snrs_db") == ["15", "15 20"]
    assert cells(text, "link.power") == ["–", "water_filling"]
    assert cells(text, "input: corpus") == ["c0", "c1"]
    assert cells(text, "input: csi") == ["–", "h1"]
    assert cells(text, "training: num_steps") == ["900", "500"]  # of all systems
    assert cells(text, "training: learning_rate (sc-lmkb)") == ["–", "0.1"]
    assert "threads" not in text


def test_differences_are_paired_over_queries_and_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_run(tmp_path / "a", {"sc-lmkb": 0.05, "stale": 0.0, "old": 0.0}, seeds=(0, 1, 2))
    b = write_run(tmp_path / "b", {"sc-lmkb": 0.10, "stale": 0.0, "new": 0.0}, seeds=(1, 2))
    compare(a, b)
    text = capsys.readouterr().out
    assert cells(text, "training: seeds") == ["0 1 2", "1 2"]
    measure, first, second, less = cells(text, "sc-lmkb")
    assert measure == "mAP"
    mean, half_width = (float(x) for x in less.split(" ± "))
    assert mean == pytest.approx(0.05, abs=0.01)
    assert 0 < half_width < 0.02 < float(first.split(" ± ")[1])  # queries scatter by 0.2, seeds by 0.01
    assert float(second.split(" ± ")[0]) - float(first.split(" ± ")[0]) == pytest.approx(0.055, abs=0.01)
    assert f"Only in {a}: old" in text
    assert f"Only in {b}: new" in text
    compare(a, a)
    text = capsys.readouterr().out
    assert "Nothing: settings, inputs and trainings are the same." in text
    assert cells(text, "sc-lmkb")[-1] == "+0.000 ± 0.000"


def test_without_pairs_there_is_no_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_run(tmp_path / "a", {"x": 0.05})
    compare(a, write_run(tmp_path / "queries", {"x": 0.05}, captions="other"))
    assert "(other queries: no interval)" in cells(capsys.readouterr().out, "x")[-1]
    compare(a, write_run(tmp_path / "seeds", {"x": 0.05}, seeds=(5, 6)))
    assert "(other seeds: no interval)" in cells(capsys.readouterr().out, "x")[-1]
    compare(a, write_run(tmp_path / "one", {"x": 0.05}, seeds=(1,)))
    assert "(one seed: no interval)" in cells(capsys.readouterr().out, "x")[-1]


def test_folders_with_one_system_each_are_compared_whatever_it_is_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = (write_run(tmp_path / name, {name: level}) for name, level in (("deepsc-mimo", 0.0), ("sc-lmkb", 0.1)))
    compare(a, b)
    assert cells(capsys.readouterr().out, "deepsc-mimo / sc-lmkb")[-1].startswith("+0.1")


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_run(tmp_path / "a", {"x": 0.05, "y": 0.0})
    b = write_run(tmp_path / "b", {"z": 0.05})
    assert f"{tmp_path / 'nowhere'} holds no measurement of" in fails(capsys, a, tmp_path / "nowhere")
    assert f"no system in common: {a} has x, y and {b} has z" in fails(capsys, a, b)
    assert f"{a}: nothing was measured at 3.0 dB, only at [15.0]" in fails(capsys, a, a, "--snr", 3)
    results = pq.read_table(b / "results.parquet")
    place = results.schema.get_field_index("receiver")
    pq.write_table(results.set_column(place, "receiver", pa.array(["dmrs"] * 2)), b / "results.parquet")
    c = write_run(tmp_path / "c", {"z": 0.05})
    assert f"{c} and {b} have no receiver in common" in fails(capsys, c, b)
    (b / "results.parquet").unlink()
    assert "no results.parquet in" in fails(capsys, c, b)
