"""The tables of sclmkb-eval run: right numbers, differences with intervals, no comparison of unequal measurements."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from measuring import rewrite, table_rows, write_config, write_measurement

from sclmkb.common.errors import UserError
from sclmkb.evaluate.intervals import Gain
from sclmkb.evaluate.measure.retrieval import MeasuredRetrieval, Measurements, retrieval_tables, write_tables

NUM_IDENTITIES = 40


def write_measured(
    root: Path, levels: dict[str, float], seeds: int = 3, counts: dict[str, int] | None = None, **more: Any
) -> Path:
    """Write systems whose average precision is that of the query, and theirs, and a little noise; rows in disorder.

    At low SNR it is half of that. A system may have fewer queries.
    """
    draw = np.random.default_rng(0)
    hard, of_seed = draw.normal(0.5, 0.2, NUM_IDENTITIES), draw.normal(0, 0.01, seeds)

    def ap(at: dict[str, Any]) -> np.ndarray:
        own = np.random.default_rng(zlib.crc32(f"{at['system']} {at['seed']} {at['wording']}".encode()))
        found = levels[at["system"]] + hard + of_seed[at["seed"]] + own.normal(0, 0.01, NUM_IDENTITIES)
        return found[: (counts or {}).get(at["system"])] * (0.5 if at["snr_db"] < 0 else 1)

    write_measurement(root, levels, ap, seeds=range(seeds), wordings=("label", "sentence"), **more)
    queries = pq.read_table(root / "queries.parquet")
    pq.write_table(queries.take(draw.permutation(len(queries))), root / "queries.parquet")
    return root


def at_15_db(root: Path, levels: dict[str, float], **more: Any) -> MeasuredRetrieval:
    return Measurements(write_measured(root, levels, **more)).at(15)


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]


def test_differences_are_of_the_means_and_clear_though_queries_scatter(tmp_path: Path) -> None:
    measured = at_15_db(tmp_path / "eval", {"sc-lmkb": 0.05, "without-sdg": 0.0, "x": 0.02})
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
    head, *levels = cells(at_15.split("### mAP of sc-lmkb less that of another system")[0])
    assert head[4] == "same, 40 queries"
    assert [row[0] for row in levels] == ["sc-lmkb", "without-sdg", "perfect-csi"]
    assert [row[2] for row in levels] == ["mixed", "sources", "mixed"]
    _, *differences = cells(at_15.split("### mAP of sc-lmkb less that of another system")[1])
    assert [(row[0], row[1][0]) for row in differences] == [("without-sdg", "+"), ("perfect-csi", "-")]
    over = cells(over_snr)
    assert len(over) == 1 + 2 * 3
    mean = np.mean(Measurements(root).at(15).values("sc-lmkb", "literal", "changed"))
    assert over[4] == ["sc-lmkb", "changed", f"{mean:.3f}"]


def test_without_a_main_system_nothing_is_compared(tmp_path: Path) -> None:
    (table,) = retrieval_tables(at_15_db(tmp_path / "eval", {"x": 0.05, "y": 0.0}))
    assert table.title == "mAP at 15 dB, receiver literal"


def test_one_seed_of_a_kind_makes_no_difference_clear(tmp_path: Path) -> None:
    measured = at_15_db(tmp_path / "eval", {"sc-lmkb": 0.3, "without-sdg": 0.0}, seeds=1)
    assert measured.difference("without-sdg", "literal", "same").verdict == "no clear difference"
    root = write_measured(tmp_path / "kinds", {"sc-lmkb": 0.3, "perfect-csi": 0.0}, sources={"perfect-csi": "stale"})
    for name in ("results", "queries"):
        rewrite(root, name, lambda row: None if row["system"] == "perfect-csi" and row["seed"] else {})
    assert Measurements(root).at(15).difference("perfect-csi", "literal", "same").verdict == "no clear difference"


def test_what_cannot_be_compared_is_named(tmp_path: Path) -> None:
    root = write_measured(tmp_path / "eval", {"sc-lmkb": 0.05})
    with pytest.raises(UserError, match=r"nothing was measured at 3 dB, only at \[15.0\]"):
        Measurements(root).at(3)
    with pytest.raises(UserError, match=r"system 'x' was not measured at 15 dB in .*there are sc-lmkb"):
        Measurements(root).at(15).difference("x", "literal", "same")
    (root / "queries.parquet").unlink()
    with pytest.raises(UserError, match=r"no queries.parquet in .*run sclmkb-eval run"):
        write_tables(root, 15)
    levels = {"sc-lmkb": 0.05, "without-sdg": 0.0}
    with pytest.raises(UserError, match="without-sdg seed 0 was measured on other queries than sc-lmkb"):
        write_tables(write_measured(tmp_path / "fewer", levels, counts={"without-sdg": 30}), 15)
    one = at_15_db(tmp_path / "one", levels, counts=dict.fromkeys(levels, 1))
    with pytest.raises(UserError, match=r"1 queries .* about 1 identities; an interval needs at least 2"):
        one.level("sc-lmkb", "literal", "same")


def write_apart(root: Path, **systems: float) -> list[Path]:
    """Write one folder a system; the second has a column that the first lacks."""
    folders = [write_measured(root / name, {name.replace("_", "-"): level}) for name, level in systems.items()]
    rewrite(folders[-1], "results", lambda row: {"overflow": 0.5})
    return folders


def test_several_folders_are_compared_as_one(tmp_path: Path) -> None:
    folders = write_apart(tmp_path / "apart", sc_lmkb=0.05, without_sdg=0.0)
    joined = write_measured(tmp_path / "joined", {"sc-lmkb": 0.05, "without-sdg": 0.0})
    for name in ("results", "queries"):
        tables = [pq.read_table(folder / f"{name}.parquet") for folder in folders]
        pq.write_table(pa.concat_tables(tables, promote_options="default"), joined / f"{name}.parquet")
    apart, one = Measurements(*folders), Measurements(joined)
    assert apart.results == one.results
    assert {row["overflow"] for row in apart.results} == {None, 0.5}
    for wording in ("same", "changed", "sentence"):
        found = [m.at(15).difference("without-sdg", "literal", wording) for m in (apart, one)]
        assert found[0] == found[1]
        assert found[0].verdict == "gain"
    with pytest.raises(UserError, match="both measured system 'sc-lmkb' seed 0: leave one of them out"):
        Measurements(*folders, joined)


def test_schemes_that_nothing_is_trained_of_make_no_other_interval_narrower(tmp_path: Path) -> None:
    folders = write_apart(tmp_path, sc_lmkb=0.05, without_sdg=0.0)
    trained = [{"system": "no-link", "seed": seed, "link": {"channel": "none"}} for seed in range(3)]
    coded = write_config(tmp_path / "coded", trained, kind="sscc", settings={"link": {}, "csi_source": "stale"})
    for name in ("results", "queries"):
        still = [
            {**row, "system": f"sscc-{i}", "scheme": "x"} | ({"ap": 0.1} if "ap" in row else {})
            for i in range(6)
            for row in table_rows(folders[1], name)
        ]
        pq.write_table(pa.Table.from_pylist(still), coded / f"{name}.parquet")
    alone, beside = Measurements(*folders), Measurements(*folders, coded)
    found = [m.at(15).difference("without-sdg", "literal", "same") for m in (alone, beside)]
    assert found[0] == found[1]


def test_ranks_have_intervals_too(tmp_path: Path) -> None:
    root = write_measured(tmp_path / "eval", {"sc-lmkb": 0.05, "without-sdg": 0.0})
    ranks = {"sc-lmkb": 1, "without-sdg": 6}
    rewrite(root, "queries", lambda row: {"rank": ranks[row["system"]] + row["identity"] % 10})
    measured = Measurements(root).at(15)
    for measure, level in {"rank1": 0.1, "rank5": 0.5, "rank10": 1.0}.items():
        found = measured.level("sc-lmkb", "literal", "same", measure)
        assert found.mean == pytest.approx(level)
        assert (1e-9 < found.half_width < 0.3) == (level < 1)  # a share that no query changes is certain
    less = measured.difference("without-sdg", "literal", "same", "rank5")
    assert (less.mean, less.verdict) == (pytest.approx(0.5), "gain")


def test_a_relative_gain_is_that_of_the_means_within_its_interval(tmp_path: Path) -> None:
    measured = at_15_db(tmp_path / "eval", {"sc-lmkb": 0.1, "without-sdg": 0.0, "x": 0.1})
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
    finds = {"sc-lmkb": range(NUM_IDENTITIES), "without-sdg": range(NUM_IDENTITIES), "nothing": (), "once": (3,)}
    rewrite(root, "queries", lambda row: {"rank": 1 if row["identity"] in finds[row["system"]] else 99})
    measured, other = (Measurements(root).at(15, main) for main in ("sc-lmkb", "nothing"))
    nothing, without, once = (
        measured.relative_gain(name, "literal", "same", "rank1") for name in ("nothing", "without-sdg", "once")
    )
    assert nothing == Gain(None)
    assert without.verdict == "no clear difference"
    assert once.text() == "+3900.0 % (interval undefined)"  # more than one resample in 40 leaves that identity out
    assert other.relative_gain("sc-lmkb", "literal", "same", "rank1") == Gain(-1.0)
    for gain in (nothing, once, without):
        assert not {"nan", "inf", "-inf"} & set(gain.text().split())


def test_several_snrs_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = Measurements(write_measured(tmp_path / "eval", {"sc-lmkb": 0.1}, snrs_db=(15.0, -5.0)))
    monkeypatch.setattr(pq, "read_table", lambda *_, **__: 1 / 0)
    assert measured.snrs_db == [-5.0, 15.0]
    low, high = (measured.at(snr_db).level("sc-lmkb", "literal", "same").mean for snr_db in measured.snrs_db)
    assert low == pytest.approx(high / 2)
