from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from commands import must_run, refusal
from measuring import inputs, save_jscc, table_rows

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.files import read_json
from sclmkb.common.errors import UserError
from sclmkb.common.link.link import QueryLink
from sclmkb.common.link.sources import LinkSettings
from sclmkb.common.tasks.trained import TrainedSystem
from sclmkb.evaluate.measure.retrieval import Measurements
from sclmkb.evaluate.measure.run import run_sweep
from sclmkb.evaluate.measure.settings import RunInputs, RunSettings
from sclmkb.evaluate.separate import run as sscc_run
from sclmkb.evaluate.separate.classical import Scheme
from sclmkb.evaluate.separate.huffman import HuffmanCode
from sclmkb.evaluate.separate.modern import ModernScheme
from sclmkb.evaluate.separate.run import run_sscc
from sclmkb.evaluate.separate.sscc import BEST, MODERN_BEST, SsccBench, SsccSettings

pytestmark = pytest.mark.usefixtures("one_text_encoder")
SCHEMES = (Scheme(qam=4, rate=0.5), Scheme(qam=16, rate=0.75))
SETTINGS = SsccSettings(snrs_db=(-20.0, 60.0), schemes=SCHEMES, csi_source="perfect", keep_damaged=False, threads=1)


def changed(**settings: Any) -> SsccSettings:
    return SETTINGS.model_copy(update=settings)


def save(root: Path, system: str = "no-link", **more: Any) -> Path:
    return save_jscc(root, system, **{"num_uses": 192, "link": {"channel": "none"}, **more})


def test_the_text_arrives_at_high_snr_and_nothing_at_low(tiny_artifacts: Any, tmp_path: Path) -> None:
    save(tmp_path)
    given = inputs(tiny_artifacts, tmp_path)
    out = run_sscc(SETTINGS, given, tmp_path / "sscc")
    shared = {name: getattr(SETTINGS, name) for name in ("snrs_db", "receivers", "steps", "seed")}
    without = run_sweep(RunSettings(**shared, threads=1), given, tmp_path / "eval")
    systems = {*(scheme.name for scheme in SCHEMES), BEST}
    assert {row["system"] for row in table_rows(out)} == systems
    assert len(table_rows(out)) == len(systems) * 2 * 2 * 3  # receivers, SNRs, same / changed / sentence
    measures = ("queries", "map", "rank1", "rank5", "rank10")
    for row in table_rows(out, snr_db=60.0):
        assert (row["overflow"], row["decoding_failures"], row["delivered"]) == (0, 0, 1)
        wanted = {name: row[name] for name in ("receiver", "snr_db", "wording")}
        (reference,) = table_rows(without, **wanted)
        assert [row[m] for m in measures] == [reference[m] for m in measures]
    nothing = table_rows(out, snr_db=-20.0)
    assert {row["delivered"] for row in nothing} == {0.0}
    assert all(row["decoding_failures"] > 0.9 for row in nothing)
    # Every query retrieves as the empty text does; a rank is then the same for all items of an identity's pictures.
    empty = [table_rows(out, system=s, snr_db=-20.0, receiver="literal", wording="same")[0]["map"] for s in systems]
    assert max(empty) - min(empty) < 0.15
    errors = [
        table_rows(out, "symbol_mse", system=BEST, snr_db=snr, receiver="dmrs")[0]["symbol_mse"] for snr in (-20, 60)
    ]
    assert errors[0] > 0.5 > 1e-3 > errors[1]


def test_all_that_is_lost_retrieves_with_the_empty_text(tiny_artifacts: Any, tmp_path: Path) -> None:
    save(tmp_path)
    out = run_sscc(changed(snrs_db=(-40.0,)), inputs(tiny_artifacts, tmp_path), tmp_path / "a")
    save(tmp_path / "short", num_uses=10)
    few = changed(snrs_db=(60.0,), schemes=(Scheme(qam=16, rate=0.5),))
    short = run_sscc(few, inputs(tiny_artifacts, tmp_path / "short"), tmp_path / "b")
    lost = {(row["overflow"], row["decoding_failures"], row["delivered"]) for row in table_rows(short)}
    assert lost == {(1.0, 0.0, 0.0)}
    for folder in (out, short):  # the ranking is one for all queries, so a rank belongs to an identity
        pairs = {(q["identity"], q["rank"]) for q in table_rows(folder, "queries", receiver="literal", system=BEST)}
        assert len(pairs) == len({identity for identity, _ in pairs})


def test_symbols_are_as_many_as_the_checkpoint_s_and_meet_the_same_link(
    tiny_artifacts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path)
    save(tmp_path, "perfect-csi", link={})
    drawn: list[QueryLink] = []
    sent: list[torch.Tensor] = []
    draw, convey = QueryLink.draw, QueryLink.convey

    def watched(*args: Any, **kwargs: Any) -> QueryLink:
        drawn.append(draw(*args, **kwargs))
        return drawn[-1]

    def listened(self: QueryLink, f: torch.Tensor, *args: Any) -> Any:
        sent.append(f)
        return convey(self, f, *args)

    monkeypatch.setattr(QueryLink, "draw", watched)
    monkeypatch.setattr(QueryLink, "convey", listened)
    given = inputs(tiny_artifacts, tmp_path)
    settings = RunSettings(snrs_db=(10.0,), threads=1)
    evaluated = run_sweep(settings, given, tmp_path / "eval")
    systems = {row["system"]: i for i, row in enumerate(table_rows(evaluated, "symbol_mse", receiver="literal"))}
    own = drawn[2 * systems["perfect-csi"]]  # then the queries that are shown
    drawn.clear()
    sent.clear()
    run_sscc(changed(snrs_db=(10.0,)), given, tmp_path / "sscc")
    assert {tuple(f.shape[1:]) for f in sent} == {(2, 2 * 192)}  # both schemes side by side
    powers = [float(part.abs().square().sum(1).mean()) for f in sent for part in f.split(192, 2)]
    assert powers == pytest.approx([1.0] * 4, abs=0.05)
    test = drawn[1]  # after the validation split
    for a, b in zip((*test.noise, test.first.h), (*own.noise, own.first.h), strict=True):
        assert torch.equal(a, b)


def test_tables_join_those_of_trained_systems(tiny_artifacts: Any, tmp_path: Path) -> None:
    save(tmp_path)
    save(tmp_path, "sc-lmkb", csi_source="predicted", link={})
    given = inputs(tiny_artifacts, tmp_path)
    measured = run_sweep(RunSettings(snrs_db=(15.0,), threads=1), given, tmp_path / "eval")
    own = run_sscc(changed(snrs_db=(15.0,)), given, tmp_path / "sscc", compared=measured)
    joined = Measurements(measured, own).at(15.0)
    assert {"overflow", "csi_source"} <= set(joined.results[0])
    assert joined.systems[0] == "sc-lmkb"
    assert np.isfinite(joined.difference(BEST, "literal", "same").mean)


def test_the_best_scheme_is_chosen_on_validation(tiny_artifacts: Any, tmp_path: Path) -> None:
    folder = save(tmp_path)
    bench = SsccBench(
        SETTINGS, inputs(tiny_artifacts, tmp_path), Artifact.open(tiny_artifacts.corpus, "corpus"), 2, 192
    )
    splits: list[str] = []
    score = SsccBench._score

    def spoilt(self: SsccBench, split: str, *args: Any) -> Any:
        splits.append(split)
        for arrival, scores, of in score(self, split, *args):
            worse = split == "val" and arrival.scheme == SCHEMES[0]
            yield arrival, {**scores, "ap": scores["ap"] / (1 + 100 * worse)}, of

    bench._score = spoilt.__get__(bench)  # type: ignore[method-assign]
    table = bench.measure(TrainedSystem.load(folder), lambda: None)["results"]
    chosen = table.filter(pc.equal(table.column("system"), BEST)).column("scheme").unique().to_pylist()
    assert chosen == [SCHEMES[1].name]
    assert splits == ["val", "test"]


def test_the_table_is_that_of_training_captions(tiny_artifacts: Any, tmp_path: Path) -> None:
    corpus = Artifact.open(tiny_artifacts.corpus, "corpus")
    coders = SsccBench(SETTINGS, inputs(tiny_artifacts, tmp_path), corpus, 2, 192).coders
    texts = corpus.table("captions", "train", ["text"]).column("text").to_pylist()
    assert coders[0].huffman.words == HuffmanCode.fit(texts).words


def test_seeds_share_what_arrives_and_a_second_run_measures_only_what_is_new(
    tiny_artifacts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, seed=0)
    save(tmp_path, seed=1)
    given = inputs(tiny_artifacts, tmp_path)
    draws: list[int] = []
    draw = QueryLink.draw
    monkeypatch.setattr(QueryLink, "draw", lambda *a, **k: draws.append(1) or draw(*a, **k))
    out = run_sscc(SETTINGS, given, tmp_path / "sscc")
    assert len(draws) == 2  # validation and test
    first = table_rows(out)
    alone = [row["overflow"] for row in table_rows(out, seed=0)]
    assert alone == [row["overflow"] for row in table_rows(out, seed=1)]
    next((out / "work").glob("no-link-1-*/all/queries.parquet")).unlink()  # killed before it was done
    run_sscc(SETTINGS, given, out)
    assert len(draws) == 4
    assert table_rows(out) == first
    run_sscc(SETTINGS, given, out)
    assert len(draws) == 4
    assert read_json(out / "config.json")["codes"]["sscc-4qam-rs0.5"].startswith("1 x RS(96, 48)")


def test_damaged_text_may_be_kept_and_other_links_measured(tiny_artifacts: Any, tmp_path: Path) -> None:
    save(tmp_path)
    given = inputs(tiny_artifacts, tmp_path)
    for source in ("stale", "feedback", "predicted"):
        one = changed(snrs_db=(60.0,), csi_source=source, schemes=SCHEMES[:1])
        found = table_rows(run_sscc(one, given, tmp_path / source), system=BEST, receiver="dmrs", wording="same")[0]
        assert found["csi_source"] == source
        assert found["delivered"] == 1  # pilots mend what the transmitter does not know
    without_csi = RunInputs(checkpoints=given.checkpoints, corpus=given.corpus)
    link = LinkSettings(channel="rayleigh", power="water_filling")
    kept, dropped = (
        table_rows(run_sscc(changed(snrs_db=(2.0,), link=link, keep_damaged=keep), without_csi, tmp_path / f"{keep}"))
        for keep in (True, False)
    )
    pairs = list(zip(kept, dropped, strict=True))
    assert all(a["decoding_failures"] == b["decoding_failures"] for a, b in pairs if a["system"] != BEST)
    assert all(a["delivered"] >= b["delivered"] for a, b in pairs if a["system"] != BEST)
    assert [a["map"] for a, _ in pairs] != [b["map"] for _, b in pairs]
    assert {row["csi_source"] for row in kept} == {"perfect"}


def test_modern_schemes_are_measured_beside_and_have_their_own_envelope(tiny_artifacts: Any, tmp_path: Path) -> None:
    pytest.importorskip("sionna.phy")
    save(tmp_path)
    given = inputs(tiny_artifacts, tmp_path)
    both = (ModernScheme(qam=4, rate=0.5), ModernScheme(qam=16, rate=0.5))
    out = run_sscc(changed(modern_schemes=both), given, tmp_path / "both")
    alone = run_sscc(SETTINGS, given, tmp_path / "alone")
    old = {*(scheme.name for scheme in SCHEMES), BEST}
    assert {row["system"] for row in table_rows(out)} == {*old, "sscc-4qam-ldpc0.5", "sscc-16qam-ldpc0.5", MODERN_BEST}
    assert [row for row in table_rows(out) if row["system"] in old] == table_rows(alone)
    assert {row["scheme"] for row in table_rows(out, system=BEST)} <= {scheme.name for scheme in SCHEMES}
    assert {row["scheme"] for row in table_rows(out, system=MODERN_BEST)} <= {scheme.name for scheme in both}
    for row in table_rows(out, system=MODERN_BEST, snr_db=60.0):
        (reference,) = table_rows(out, system=BEST, **{name: row[name] for name in ("receiver", "snr_db", "wording")})
        assert (row["overflow"], row["decoding_failures"], row["delivered"]) == (0, 0, 1)
        assert row["map"] == reference["map"]
    for row in table_rows(out, system=MODERN_BEST, snr_db=-20.0):
        assert (row["decoding_failures"], row["delivered"]) == (1, 0)
    codes = read_json(out / "config.json")["codes"]
    assert codes["sscc-16qam-ldpc0.5"] == "LDPC(1536, 768), 768 bits per caption"


def test_without_sionna_modern_schemes_are_left_out_with_a_line(
    tiny_artifacts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path)
    monkeypatch.setattr(sscc_run, "has_sionna", lambda: False)
    asked = changed(snrs_db=(60.0,), modern_schemes=(ModernScheme(qam=16, rate=0.5),))
    out = run_sscc(asked, inputs(tiny_artifacts, tmp_path), tmp_path / "out")
    assert capsys.readouterr().err.count("need Sionna: pip install sionna-no-rt") == 1
    assert {row["system"] for row in table_rows(out)} == {*(scheme.name for scheme in SCHEMES), BEST}
    assert read_json(out / "config.json")["settings"]["modern_schemes"] == []


def options(tiny: Any, root: Path, *more: str | Path) -> list[str | Path]:
    given = ["--checkpoints", root / "jscc", "--corpus", tiny.corpus, "--csi", tiny.csi, "--out", root / "out"]
    return ["sclmkb-eval", "sscc", *given, *more]


def test_bad_input_is_one_line(tiny_artifacts: Any, tmp_path: Path) -> None:
    given = options(tiny_artifacts, tmp_path)
    save(tmp_path, "perfect-csi", link={})
    assert "was trained without a link" in refusal(given)
    save(tmp_path, num_uses=2)
    assert "compare systems of one size" in refusal(given)
    (tmp_path / "jscc" / "perfect-csi").rename(tmp_path / "away")
    for more, message in (
        (["--set", "schemes=[[4, 0.5]]"], "too few for any Reed-Solomon code"),
        (["--set", "schemes=[[8, 0.5]]"], "Input should be 4, 16, 64 or 256"),
        (["--set", "schemes=[[4, 1.5]]"], "less than 1"),
        (["--set", "modern_schemes=[[4, 0.1]]"], "greater than or equal to 0.2"),
        (["--eval", tmp_path], "holds no measurement of sclmkb-eval run"),
    ):
        assert message in refusal([*given, *more])
    save(tmp_path, "other")
    assert "several systems below" in refusal(given)


def test_unequal_conditions_are_refused(tiny_artifacts: Any, tmp_path: Path) -> None:
    save(tmp_path, "perfect-csi", link={"feedback_bits": 64})
    measured = RunSettings(snrs_db=(0.0, 40.0), threads=1, seed=3)
    run_sweep(measured, inputs(tiny_artifacts, tmp_path), tmp_path / "eval")
    save(tmp_path)
    given = options(tiny_artifacts, tmp_path, "--preset", "tiny", "--eval", tmp_path / "eval")
    line = refusal([*given, "--set", "seed=0", "--set", "link.channel=awgn"])
    assert "other conditions (seed, csi, link)" in line
    printed = must_run(given).out
    assert "sscc-best" in printed
    assert "overflow" in printed
    assert {row["snr_db"] for row in table_rows(tmp_path / "out")} == {0.0, 40.0}  # taken over
    settings = read_json(tmp_path / "out" / "config.json")["settings"]
    assert (settings["seed"], settings["link"]["feedback_bits"]) == (3, 64)
    save(tmp_path / "small", num_uses=95)
    small = options(tiny_artifacts, tmp_path / "small", "--preset", "tiny", "--eval", tmp_path / "eval")
    assert "compare systems of one size" in refusal(small)


def test_a_checkpoint_of_motion_retrieves(write_items: Callable[[str], Any]) -> None:
    tiny = write_items("motion")
    save(tiny.root, kind="motion")
    with pytest.raises(UserError, match="no split 'train' for the Huffman table"):
        run_sscc(SETTINGS, inputs(tiny, tiny.root), tiny.root / "s")
