"""The tables of sclmkb-eval run: right numbers, differences with intervals, no comparison of unequal measurements."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from sclmkb.common.errors import UserError
from sclmkb.evaluate.intervals import Gain
from sclmkb.evaluate.measure.retrieval import MeasuredRetrieval, Measurements, retrieval_tables, write_tables

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
    with pytest.raises(UserError, match=r"system 'x' was not measured at 15 dB in .*there are sc-lmkb"):
        MeasuredRetrieval(root, 15).difference("x", "literal", "same")
    with pytest.raises(UserError, match="no folder of measurements is named"):
        Measurements([])
    (root / "queries.parquet").unlink()
    with pytest.raises(UserError, match=r"no queries.parquet in .*run sclmkb-eval run"):
        write_tables(root, 15)


def change_queries(root: Path, **columns: Any) -> None:
    """Give columns of all queries of a folder other values: a value, or what makes one of a row."""
    rows = pq.read_table(root / "queries.parquet").to_pylist()
    changed = [row | {name: of(row) if callable(of) else of for name, of in columns.items()} for row in rows]
    pq.write_table(pa.Table.from_pylist(changed), root / "queries.parquet")


def write_apart(root: Path, monkeypatch: pytest.MonkeyPatch, **systems: float) -> list[Path]:
    """Write one folder a system, of equal conditions; each has a column that the one before lacks."""
    monkeypatch.setattr("sclmkb.evaluate.measure.retrieval.shared_conditions", lambda _: None)
    root.mkdir(exist_ok=True)
    folders = []
    for i, (name, level) in enumerate(systems.items()):
        folder = write_measured(root / name, {name.replace("_", "-"): level})
        results = pq.read_table(folder / "results.parquet")
        if i:
            results = results.append_column("overflow", pa.array([0.5] * len(results)))
        pq.write_table(results, folder / "results.parquet")
        folders.append(folder)
    return folders


def test_several_folders_are_compared_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = write_apart(tmp_path / "apart", monkeypatch, sc_lmkb=0.05, without_sdg=0.0)
    joined = tmp_path / "joined"
    joined.mkdir()
    for name in ("results", "queries"):
        tables = [pq.read_table(folder / f"{name}.parquet") for folder in folders]
        pq.write_table(pa.concat_tables(tables, promote_options="default"), joined / f"{name}.parquet")
    apart, one = Measurements(folders), Measurements(joined)
    assert apart.results == one.results
    assert {row["overflow"] for row in apart.results} == {None, 0.5}
    for wording in ("same", "changed", "sentence"):
        found = [m.at(15).difference("without-sdg", "literal", wording) for m in (apart, one)]
        assert found[0] == found[1]
        assert found[0].verdict == "gain"


def test_schemes_that_nothing_is_trained_of_make_no_other_interval_narrower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = write_apart(tmp_path, monkeypatch, sc_lmkb=0.05, without_sdg=0.0)
    rows, queries = (pq.read_table(folders[1] / f"{name}.parquet").to_pylist() for name in ("results", "queries"))
    coded = tmp_path / "coded"
    coded.mkdir()
    for name, of in (("results", rows), ("queries", queries)):
        still = [
            {**row, "system": f"sscc-{i}", "scheme": "x"} | ({"ap": 0.1} if "ap" in row else {})
            for i in range(6)
            for row in of
        ]
        pq.write_table(pa.Table.from_pylist(still), coded / f"{name}.parquet")
    alone, beside = Measurements(folders), Measurements([*folders, coded])
    found = [m.at(15).difference("without-sdg", "literal", "same") for m in (alone, beside)]
    assert found[0] == found[1]


def test_the_same_system_twice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = write_apart(tmp_path, monkeypatch, sc_lmkb=0.05)
    with pytest.raises(UserError, match="both measured system 'sc-lmkb' seed 0: leave one of them out"):
        Measurements([*folders, write_measured(tmp_path / "again", {"sc-lmkb": 0.05})])


def test_several_folders_must_be_comparable(tmp_path: Path) -> None:
    folders = [write_measured(tmp_path / name, {name: 0.05}) for name in ("a", "b")]
    with pytest.raises(UserError, match="holds no measurement"):  # no config.json says how they were measured
        Measurements(folders)


def test_ranks_have_intervals_too(tmp_path: Path) -> None:
    root = write_measured(tmp_path / "eval", {"sc-lmkb": 0.05, "without-sdg": 0.0})
    change_queries(root, rank=lambda row: 1 + row["identity"] % 10 + 5 * (row["system"] == "without-sdg"))
    measured = MeasuredRetrieval(root, 15)
    expected = {"rank1": 0.1, "rank5": 0.5, "rank10": 1.0}
    for measure, level in expected.items():
        found = measured.level("sc-lmkb", "literal", "same", measure)  # type: ignore[arg-type]
        assert found.mean == pytest.approx(level)
        assert (1e-9 < found.half_width < 0.3) == (level < 1)  # a share that no query changes is certain
    assert measured.difference("without-sdg", "literal", "same", "rank5").mean == pytest.approx(0.5)
    assert measured.difference("without-sdg", "literal", "same", "rank5").verdict == "gain"
    own, other = (measured.level(name, "literal", "same").mean for name in ("sc-lmkb", "without-sdg"))
    found = measured.values("sc-lmkb", "literal", "same")
    assert own == pytest.approx(np.mean(found))
    assert own > other


def test_a_relative_gain_is_that_of_the_means_within_its_interval(tmp_path: Path) -> None:
    root = write_measured(tmp_path / "eval", {"sc-lmkb": 0.1, "without-sdg": 0.0, "x": 0.1})
    measured = MeasuredRetrieval(root, 15)
    means = {name: np.mean(measured.values(name, "literal", "same")) for name in measured.systems}
    found = measured.relative_gain("without-sdg", "literal", "same")
    assert found.low is not None
    assert found.mean is not None
    assert found.high is not None
    assert found.mean == pytest.approx(means["sc-lmkb"] / means["without-sdg"] - 1)
    assert 0.1 < found.low < found.mean < found.high < 0.4
    assert found.verdict == "gain"
    assert found.high - found.mean > found.mean - found.low  # even on the logarithmic scale
    assert measured.relative_gain("x", "literal", "same").verdict == "no clear difference"


def test_a_gain_over_nothing_is_undefined_and_spoils_no_other(tmp_path: Path) -> None:
    root = write_measured(tmp_path / "eval", {"sc-lmkb": 0.1, "without-sdg": 0.0, "nothing": 0.0, "once": 0.0})
    ranks = {"sc-lmkb": 1, "without-sdg": 1, "nothing": 99}

    def rank(row: dict[str, Any]) -> int:
        if row["system"] == "once":  # finds one identity
            return 1 if row["identity"] == 3 else 99
        return ranks[row["system"]]

    change_queries(root, rank=rank)
    measured = MeasuredRetrieval(root, 15)
    assert measured.relative_gain("nothing", "literal", "same", "rank1") == Gain(None)
    assert measured.relative_gain("without-sdg", "literal", "same", "rank1").verdict == "no clear difference"
    once = measured.relative_gain("once", "literal", "same", "rank1")
    assert once.text() == "+3900.0 % (interval undefined)"  # more than one resample in 40 leaves that identity out
    assert MeasuredRetrieval(root, 15, "nothing").relative_gain("sc-lmkb", "literal", "same", "rank1") == Gain(-1.0)
    for gain in (Gain(None), once, measured.relative_gain("without-sdg", "literal", "same", "rank1")):
        assert not {"nan", "inf", "-inf"} & set(gain.text().split())


def test_one_identity_has_no_interval(tmp_path: Path) -> None:
    root = write_measured(tmp_path / "eval", {"sc-lmkb": 0.1, "without-sdg": 0.0}, sc_lmkb=1, without_sdg=1)
    with pytest.raises(UserError, match=r"1 queries .* about 1 identities; an interval needs at least 2"):
        MeasuredRetrieval(root, 15).level("sc-lmkb", "literal", "same")


def test_several_snrs_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_measured(tmp_path / "eval", {"sc-lmkb": 0.1, "without-sdg": 0.0})
    for name in ("results", "queries"):
        table = pq.read_table(root / f"{name}.parquet")
        at = table.schema.get_field_index("snr_db")
        low = table.set_column(at, "snr_db", pa.array([-5.0] * len(table)))
        if name == "queries":
            place = low.schema.get_field_index("ap")
            low = low.set_column(place, "ap", pc.divide(low["ap"], 2.0))
        pq.write_table(pa.concat_tables([low, table]), root / f"{name}.parquet")
    expected = MeasuredRetrieval(root, 15).level("sc-lmkb", "literal", "same")
    measured = Measurements(root)
    monkeypatch.setattr(pq, "read_table", lambda *_, **__: 1 / 0)
    assert measured.snrs_db == [-5.0, 15.0]
    assert measured.at(15).level("sc-lmkb", "literal", "same") == expected
    assert measured.at(-5).level("sc-lmkb", "literal", "same").mean == pytest.approx(expected.mean / 2)


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
