"""The tables of sclmkb-eval run: right numbers, differences with intervals, no comparison of unequal measurements."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sclmkb.common.errors import UserError
from sclmkb.evaluate.retrieval import MeasuredRetrieval, retrieval_tables, write_tables

NUM_IDENTITIES = 40


def write_measured(root: Path, levels: dict[str, float], seeds: int = 3, **queries: int) -> Path:
    """Write measurements of systems whose average precision is that of the query, and theirs, and a little noise."""
    draw = np.random.default_rng(0)
    hard = draw.normal(0.5, 0.2, NUM_IDENTITIES)
    of_seed = draw.normal(0, 0.01, seeds)
    rows: list[dict[str, Any]] = []
    results = []
    for system, level in levels.items():
        for seed in range(seeds):
            for wording, named in (("same", "label"), ("changed", "sentence")):
                aps = level + hard + of_seed[seed] + draw.normal(0, 0.01, NUM_IDENTITIES)
                aps = aps[: queries.get(system.replace("-", "_"), NUM_IDENTITIES)]
                at = {"system": system, "seed": seed, "receiver": "literal", "snr_db": 15.0}
                rows += [
                    at | {"row_id": f"{named}/{i:03}", "identity": i, "wording": named, "ap": ap, "rank": 1}
                    for i, ap in enumerate(aps)
                ]
                results.append(
                    at
                    | {
                        "csi_source": "perfect" if "perfect" in system else "predicted",
                        "sdg": "sdg" not in system,
                        "fusion": "mixed",
                        "wording": wording,
                    }
                    | {"queries": len(aps), "map": aps.mean(), "rank1": 1.0, "rank5": 1.0, "rank10": 1.0}
                )
    root.mkdir()
    pq.write_table(
        pa.Table.from_pylist(draw.permutation(np.asarray(rows, dtype=object)).tolist()), root / "queries.parquet"
    )
    pq.write_table(pa.Table.from_pylist(results), root / "results.parquet")
    return root


def test_differences_are_of_the_means_and_clear_though_queries_scatter(tmp_path: Path) -> None:
    measured = MeasuredRetrieval(
        write_measured(tmp_path / "eval", {"sc-lmkb": 0.05, "without-sdg": 0.0, "x": 0.02}), 15
    )
    for wording in ("same", "changed"):
        found = measured.difference("without-sdg", "literal", wording)
        means = [np.mean(measured.values(name, "literal", wording)) for name in ("sc-lmkb", "without-sdg")]
        assert found.mean == pytest.approx(means[0] - means[1])
        assert 0 < found.half_width < 0.02  # the queries alone scatter by 0.2
        assert found.verdict == "gain"


def test_tables_say_systems_queries_and_differences(tmp_path: Path) -> None:
    root = write_measured(tmp_path / "eval", {"sc-lmkb": 0.05, "without-sdg": 0.0, "perfect-csi": 0.06})
    text = write_tables(root, 12)  # measured at 15 dB alone
    assert text == (root / "tables.md").read_text()
    assert "### mAP at 15 dB, receiver literal" in text
    at_15, over_snr = text.split("### mAP over SNR, receiver literal")
    levels, differences = at_15.split("### mAP of sc-lmkb less that of another system")
    lines = [line for line in levels.splitlines() if line.startswith("| ")]
    assert "same, 40 queries" in lines[0]
    assert [line.split("|")[1].strip() for line in lines[1:]] == ["sc-lmkb", "without-sdg", "perfect-csi"]
    assert [line.split("|")[3].strip() for line in lines[1:]] == ["mixed", "sources", "mixed"]
    lines = [line for line in differences.splitlines() if line.startswith("| ")]
    assert [line.split("|")[1].strip() for line in lines[1:]] == ["without-sdg", "perfect-csi"]
    assert [line.split("|")[2].strip()[0] for line in lines[1:]] == ["+", "-"]
    lines = [line for line in over_snr.splitlines() if line.startswith("| ")]
    assert len(lines) == 1 + 2 * 3
    mean = np.mean(MeasuredRetrieval(root, 15).values("sc-lmkb", "literal", "changed"))
    assert lines[4].split("|")[1:4] == [" sc-lmkb     ", " changed ", f" {mean:.3f} "]


def test_without_a_main_system_nothing_is_compared(tmp_path: Path) -> None:
    measured = MeasuredRetrieval(write_measured(tmp_path / "eval", {"x": 0.05, "y": 0.0}), 15)
    (table,) = retrieval_tables(measured)
    assert table.title == "mAP at 15 dB, receiver literal"


def test_one_seed_makes_no_difference_clear(tmp_path: Path) -> None:
    root = write_measured(tmp_path / "eval", {"sc-lmkb": 0.3, "without-sdg": 0.0}, seeds=1)
    assert MeasuredRetrieval(root, 15).difference("without-sdg", "literal", "same").verdict == "no clear difference"


def test_unequal_queries_are_not_compared(tmp_path: Path) -> None:
    root = write_measured(tmp_path / "eval", {"sc-lmkb": 0.05, "without-sdg": 0.0}, without_sdg=30)
    with pytest.raises(UserError, match="without-sdg seed 0 was measured on other queries than sc-lmkb"):
        write_tables(root, 15)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    root = write_measured(tmp_path / "eval", {"sc-lmkb": 0.05})
    with pytest.raises(UserError, match=r"nothing was measured at 3 dB, only at \[15.0\]"):
        MeasuredRetrieval(root, 3)
    (root / "queries.parquet").unlink()
    with pytest.raises(UserError, match=r"no queries.parquet in .*run sclmkb-eval run"):
        write_tables(root, 15)


def test_one_seed_of_the_other_kind_of_csi_makes_no_difference_clear_either(tmp_path: Path) -> None:
    root = write_measured(tmp_path / "eval", {"sc-lmkb": 0.3, "perfect-csi": 0.0})
    for name in ("results", "queries"):
        rows = pq.read_table(root / f"{name}.parquet").to_pylist()
        stale = [
            row | ({"csi_source": "stale"} if name == "results" else {})
            for row in rows
            if row["system"] == "perfect-csi" and not row["seed"]
        ]
        kept = [row for row in rows if row["system"] != "perfect-csi"] + stale
        pq.write_table(pa.Table.from_pylist(kept), root / f"{name}.parquet")
    assert MeasuredRetrieval(root, 15).difference("perfect-csi", "literal", "same").verdict == "no clear difference"
