from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from commands import refusal
from measuring import TABLES, inputs, save_jscc, table_rows, transceiver

from sclmkb.common.artifacts.artifact import Artifact, UnfinishedError
from sclmkb.common.artifacts.files import read_json, write_json
from sclmkb.common.errors import UserError
from sclmkb.common.link.sources import LinkSettings
from sclmkb.common.tasks.trained import JsccSettings, Trained, TrainedSystem
from sclmkb.evaluate.measure.run import Share, by_work_name, measure_missing, run_sweep
from sclmkb.evaluate.measure.settings import RunInputs, RunSettings
from sclmkb.evaluate.measure.sweeps import Bench
from sclmkb.evaluate.measure.systems import find_checkpoints, warn_of_other_inputs

pytestmark = pytest.mark.usefixtures("one_text_encoder")
SETTINGS = RunSettings(snrs_db=(-5.0, 20.0), num_shown=3, threads=1)


def assert_same(one: Path, other: Path, *more: str) -> None:
    """Compare the tables of two measurements, byte for byte."""
    for name in (*(f"{table}.parquet" for table in TABLES), *more):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_every_condition_has_one_row(tiny_artifacts: Any, tmp_path: Path) -> None:
    for system, source in (("perfect-csi", "perfect"), ("without-cdg", "stale"), ("sc-lmkb", "predicted")):
        save_jscc(tmp_path, system, 0, source)
    save_jscc(tmp_path, "sc-lmkb", 1, "predicted")
    out = run_sweep(SETTINGS, inputs(tiny_artifacts, tmp_path), tmp_path / "eval")
    rows = table_rows(out)
    conditions = {(r["system"], r["seed"], r["receiver"], r["snr_db"], r["wording"]) for r in rows}
    assert len(rows) == len(conditions) == 4 * 2 * 2 * 3  # checkpoints, receivers, SNRs, same / changed / sentence
    assert {r["queries"] for r in rows} == {10}  # of the test split: ten identities, each wording once
    assert all(0 < r["map"] <= 1 and r["rank1"] <= r["rank5"] <= r["rank10"] for r in rows)
    assert table_rows(out, wording="changed")[0]["map"] == table_rows(out, wording="sentence")[0]["map"]
    for row in rows:
        wanted = {name: row[name] for name in ("system", "seed", "receiver", "snr_db")}
        of_queries = table_rows(out, "queries", **wanted, wording="label" if row["wording"] == "same" else "sentence")
        assert row["map"] == pytest.approx(sum(q["ap"] for q in of_queries) / 10)
        assert row["rank1"] == pytest.approx(sum(q["rank"] == 1 for q in of_queries) / 10)
    shown = table_rows(out, "retrievals")
    assert {row["system"] for row in shown} == {"perfect-csi", "without-cdg", "sc-lmkb"}
    assert len(shown) == 3 * 3 * 3  # captions, SNRs, systems; one seed of each
    assert [row["snr_db"] for row in shown[:9]] == [-10.0] * 3 + [0.0] * 3 + [15.0] * 3
    corpus = Artifact.open(tiny_artifacts.corpus, "corpus")
    shows = {i["item_id"]: i["identity"] for i in corpus.table("items", "test").to_pylist()}
    captions = corpus.table("captions", "test").to_pylist()
    for row in shown:
        means = {c["identity"] for c in captions if (c["text"], c["wording"]) == (row["text"], row["wording"])}
        assert len(row["item_ids"]) == 5
        assert row["hits"] == [shows[item] in means for item in row["item_ids"]]
    config = read_json(out / "config.json")
    assert len(config["checkpoints"]) == 4
    assert set(config["inputs"]) == {"corpus", "csi", "predicted"}


def test_systems_meet_the_same_link_and_stale_csi_costs_symbols(tiny_artifacts: Any, tmp_path: Path) -> None:
    for system, source in (("p", "perfect"), ("same", "perfect"), ("s", "stale")):
        save_jscc(tmp_path, system, csi_source=source)
    out = run_sweep(SETTINGS, inputs(tiny_artifacts, tmp_path), tmp_path / "eval")
    keep = ("map", "rank1", "rank5", "rank10")
    one, other = ([[r[k] for k in keep] for r in table_rows(out, system=s)] for s in ("p", "same"))
    assert one == other

    def error(system: str, receiver: str, snr_db: float = 20.0) -> float:
        row = table_rows(out, "symbol_mse", system=system, receiver=receiver, snr_db=snr_db)[0]
        return float(row["symbol_mse"])

    assert error("p", "literal") < 0.05 < 0.2 < error("s", "literal")  # the tiny channel turns from step to step
    assert error("s", "dmrs") < 0.1
    assert error("p", "literal", -5.0) > error("p", "literal")


@pytest.mark.parametrize("kind", ["pictures", "motion", "audio"])
def test_media_of_any_kind_are_measured_on_a_checkpoint_s_own_link(
    write_items: Callable[[str], Any], kind: str
) -> None:
    tiny = write_items(kind)
    fed_back = {"feedback_bits": 64, "feedback_delay": 2}
    save_jscc(tiny.root, "fed-back", csi_source="feedback", kind=kind, link=fed_back)
    drawn = {"channel": "rician", "power": "water_filling"} if kind == "pictures" else {"channel": "rayleigh"}
    save_jscc(tiny.root, "drawn", csi_source="stale", kind=kind, link=drawn)
    save_jscc(tiny.root, "no-link", kind=kind, link={"channel": "none"})
    given = RunInputs(checkpoints=tiny.root / "jscc", corpus=tiny.corpus, csi=tiny.csi)
    out = run_sweep(SETTINGS, given, tiny.root / "eval")
    assert {row["queries"] for row in table_rows(out)} == {10 if kind == "pictures" else 6}
    assert {row["symbol_mse"] for row in table_rows(out, "symbol_mse", system="no-link")} == {0.0}
    assert len({row["map"] for row in table_rows(out, system="no-link", wording="same")}) == 1  # at all SNRs
    for system in ("fed-back", "drawn"):
        low, high = (
            table_rows(out, "symbol_mse", system=system, receiver="dmrs", snr_db=snr)[0] for snr in (-5.0, 20.0)
        )
        assert 1.5 > low["symbol_mse"] > high["symbol_mse"] > 0
        assert low["spectral_efficiency"] < high["spectral_efficiency"]


def test_another_link_may_be_named_and_without_shards_no_csi_is_needed(write_items: Callable[[str], Any]) -> None:
    tiny = write_items("motion")
    save_jscc(tiny.root, "awgn", kind="motion", link={"channel": "awgn"})
    given = RunInputs(checkpoints=tiny.root / "jscc", corpus=tiny.corpus)
    assert len(table_rows(run_sweep(SETTINGS, given, tiny.root / "eval"))) == 4
    save_jscc(tiny.root, "shards", kind="motion")
    with pytest.raises(UserError, match="needs a CSI artifact"):
        run_sweep(SETTINGS, given, tiny.root / "eval")
    awgn = SETTINGS.model_copy(update={"link": LinkSettings(channel="awgn")})
    errors = table_rows(run_sweep(awgn, given, tiny.root / "eval-awgn"), "symbol_mse", snr_db=20.0)
    assert len(errors) == 4
    assert len({row["spectral_efficiency"] for row in errors}) == 1
    assert all(0 < row["symbol_mse"] < 0.02 for row in errors if row["receiver"] == "literal")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """What is measured from now on: systems and parts."""
    found: list[tuple[str, list[str]]] = []
    measure = Bench.measure

    def counted(self: Bench, checkpoint: Any, wanted: list[str], tick: Callable[[], None]) -> Any:
        found.append((checkpoint.settings.system, wanted))
        return measure(self, checkpoint, wanted, tick)

    monkeypatch.setattr(Bench, "measure", counted)
    return found


def test_a_second_run_measures_only_what_is_new(tiny_artifacts: Any, tmp_path: Path, measured: list[Any]) -> None:
    save_jscc(tmp_path, "one")
    save_jscc(tmp_path, "two", seed=5)
    given, out = inputs(tiny_artifacts, tmp_path), tmp_path / "eval"
    run_sweep(SETTINGS.model_copy(update={"seeds": (0,)}), given, out)
    first = table_rows(out)
    assert {(row["system"], row["seed"]) for row in first} == {("one", 0)}
    measured.clear()
    run_sweep(SETTINGS, given, out)
    assert [system for system, _ in measured] == ["two"]
    assert table_rows(out, system="one") == first
    run_sweep(SETTINGS, given, out)
    assert len(measured) == 1
    next((out / "work").glob("one-*/dmrs+20.0dB/queries.parquet")).unlink()
    run_sweep(SETTINGS, given, out)
    assert measured[1:] == [("one", ["dmrs+20.0dB"])]
    folder = save_jscc(tmp_path, "two", seed=6).parent  # trained again: other weights under the same name
    (folder / "seed-5" / "plan.json").unlink()
    run_sweep(SETTINGS, given, out)
    assert [system for system, _ in measured] == ["two", "one", "two"]
    assert {row["seed"] for row in table_rows(out, system="two")} == {6}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"snrs_db": (0.0, 15.0)}, ["literal+5.0dB", "dmrs+5.0dB"]),
        ({"receivers": ("dmrs",)}, [f"literal{snr}dB" for snr in ("+0.0", "+5.0", "+15.0")]),
        (
            {"snrs_db": (0.0, 15.0), "receivers": ("literal",)},
            ["literal+5.0dB", *(f"dmrs{snr}dB" for snr in ("+0.0", "+5.0", "+15.0"))],
        ),
        ({"snrs_db": (15.0, 5.0, 0.0, 25.0)}, []),
        ({"shown_snrs_db": (15.0,)}, ["shown-10.0dB", "shown+0.0dB"]),
    ],
    ids=["an SNR", "a receiver", "both", "one SNR less", "shown SNRs"],
)
def test_a_run_that_was_extended_is_that_of_all_columns_at_once(
    tiny_artifacts: Any, tmp_path: Path, measured: list[Any], before: dict[str, Any], after: list[str]
) -> None:
    """Byte for byte, with every kind of link: drops and noise are of the seed alone."""
    save_jscc(tmp_path, "predicted", csi_source="predicted")
    save_jscc(tmp_path, "fed-back", csi_source="feedback", link={"feedback_bits": 64, "feedback_delay": 2})
    save_jscc(tmp_path, "rician", csi_source="stale", link={"channel": "rician", "power": "water_filling"})
    save_jscc(tmp_path, "no-link", link={"channel": "none"})
    given = inputs(tiny_artifacts, tmp_path)
    whole = SETTINGS.model_copy(update={"snrs_db": (0.0, 5.0, 15.0)})
    run_sweep(whole, given, tmp_path / "at-once")
    run_sweep(whole.model_copy(update=before), given, tmp_path / "extended")
    measured.clear()
    run_sweep(whole, given, tmp_path / "extended")
    assert sorted(name for _, parts in measured for name in parts) == sorted(4 * after)
    assert_same(tmp_path / "at-once", tmp_path / "extended", "config.json")
    measured.clear()
    run_sweep(whole.model_copy(update=before), given, tmp_path / "extended")  # what was left out was kept
    assert not measured


def test_one_shown_snr_may_be_a_number() -> None:
    assert RunSettings(shown_snrs_db=5).shown_snrs_db == (5.0,)
    with pytest.raises(ValueError, match="shown_snrs_db"):
        RunSettings(shown_snrs_db=())


def test_processes_share_the_columns(
    tiny_artifacts: Any, tmp_path: Path, measured: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two", "three"):
        save_jscc(tmp_path, name)
    given, out = inputs(tiny_artifacts, tmp_path), tmp_path / "eval"
    run_sweep(SETTINGS, given, tmp_path / "at-once")
    whole = sorted((name, part) for name, parts in measured for part in parts)
    shared: list[tuple[str, str]] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        measured.clear()
        monkeypatch.setenv("RANK", rank)
        if rank == "1":
            with pytest.raises(UnfinishedError, match="process 2 of 2 measured its share; 11 of 21 columns"):
                run_sweep(SETTINGS, given, out)
            assert not (out / "results.parquet").exists()
        else:
            run_sweep(SETTINGS, given, out)
        assert len(measured) == 2, "neighbours stay together: a checkpoint is loaded for many columns"
        shared += [(name, part) for name, parts in measured for part in parts]
    assert sorted(shared) == whole
    assert_same(tmp_path / "at-once", out)
    with pytest.raises(UserError, match="2 processes cannot set"):
        run_sweep(SETTINGS.model_copy(update={"seed": 1}), given, out, new_run=True)


def test_an_interrupted_run_keeps_its_columns(
    tiny_artifacts: Any, tmp_path: Path, measured: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_jscc(tmp_path, "one")
    given, out = inputs(tiny_artifacts, tmp_path), tmp_path / "eval"
    run_sweep(SETTINGS, given, tmp_path / "at-once")
    with monkeypatch.context() as patch:
        patch.setattr("sclmkb.common.tasks.retrieval.Retrieval.example", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_sweep(SETTINGS, given, out)
    measured.clear()
    run_sweep(SETTINGS, given, out)
    assert measured == [("one", ["shown-10.0dB", "shown+0.0dB", "shown+15.0dB"])]
    assert_same(tmp_path / "at-once", out)


@pytest.mark.parametrize("processes", [1, 2, 3, 5, 40])
def test_shares_are_all_parts_and_each_once(processes: int) -> None:
    for total in (1, 4, 21):
        shares = [[i for i in range(total) if Share(n, processes).has(i, total)] for n in range(processes)]
        assert [i for share in shares for i in share] == list(range(total))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_of_two_processes_with_one_column_the_first_wins_with_all_its_tables(tmp_path: Path) -> None:
    checkpoints = [TrainedSystem.load(save_jscc(tmp_path))]
    schemas = dict.fromkeys("ab", pa.schema([("x", pa.int64())]))

    def measure(own: int, others: int | None = None) -> list[int]:
        """Measure; another process may be done with the same column before."""

        def found(*_: Any) -> Any:
            if others is not None:
                measure(others)
            yield "part", {name: pa.table({"x": [own]}) for name in "ab"}

        measure_missing(found, by_work_name(checkpoints), {"part": "ab"}, schemas, tmp_path / "out")
        return [table_rows(tmp_path / "out", name)[0]["x"] for name in "ab"]

    assert measure(2, others=1) == [1, 1]
    (folder,) = (tmp_path / "out" / "work").iterdir()
    (folder / "part" / "b.parquet").unlink()
    assert measure(2) == [1, 2]
    assert [path.name for path in folder.iterdir()] == ["part"], "nothing is left behind"


def test_other_settings_need_another_folder_or_new_run(tiny_artifacts: Any, tmp_path: Path) -> None:
    save_jscc(tmp_path, "one")
    given, out = inputs(tiny_artifacts, tmp_path), tmp_path / "eval"
    run_sweep(SETTINGS, given, out)
    other = SETTINGS.model_copy(update={"seed": 3})
    for settings in (other, other.model_copy(update={"snrs_db": (0.0,)})):
        with pytest.raises(UserError, match=r"other settings \(seed: \d there, 3 now\)"):
            run_sweep(settings, given, out)
    run_sweep(other, given, out, new_run=True)
    assert (tmp_path / "eval.old-1" / "results.parquet").exists()


def test_checkpoints_that_cannot_be_measured_are_named(tmp_path: Path) -> None:
    root = tmp_path / "jscc"

    def refused(message: str, **options: Any) -> None:
        with pytest.raises(UserError, match=message):
            find_checkpoints(root, **options)

    refused("no jscc checkpoint below")
    folder = save_jscc(tmp_path, "one").parent
    save_jscc(tmp_path, "one", seed=1)
    (folder / "seed-1").rename(folder / "seed-1.old-1")  # set aside by --new-run
    assert len(find_checkpoints(root)) == 1
    write_json(folder / "seed-2" / "plan.json", {"kind": "jscc", "settings": {"seed": 2}})
    refused("unfinished")
    assert len(find_checkpoints(root, seeds=[0])) == 1, "another seed is not asked for"
    refused("no jscc checkpoint of seed 7 below", seeds=[7])
    (folder / "seed-2" / "plan.json").unlink()
    save_jscc(root, "one")  # jscc/jscc/one/seed-0
    refused("both hold system 'one' seed 0")


def test_other_inputs_than_those_of_training_are_named_and_unused_ones_are_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    trained_on = {"same": {"corpus": "c", "csi": "h"}, "other": {"corpus": "c", "csi": "x"}, "no-link": {"corpus": "c"}}
    found = [Trained(root=Path(name), settings=JsccSettings(), inputs=of) for name, of in trained_on.items()]
    warn_of_other_inputs(found, {"corpus": "c", "csi": "h", "predicted": "p"})
    (line,) = capsys.readouterr().err.splitlines()
    assert "other was trained on another csi" in line


def test_what_does_not_fit_is_one_line(make_tiny: Callable[[str], Any], tmp_path: Path) -> None:
    def refused(name: str, *options: Any) -> str:
        given = ["--checkpoints", tmp_path / name / "jscc", "--corpus", tiny.corpus, "--csi", tiny.csi, *options]
        return refusal(["sclmkb-eval", "run", "--preset", "tiny", *given, "--out", tmp_path / name / "eval"])

    tiny = make_tiny("tiny")
    tiny.write_corpus()
    tiny.write_csi()
    wider = transceiver().model_copy(update={"hidden_width": 48})
    save_jscc(tmp_path / "shape", model=wider.model_dump(mode="json"))
    line = refused("shape")
    assert "does not fit the model" in line
    assert "use the settings it was trained with" in line
    save_jscc(tmp_path / "predicted", csi_source="predicted")
    assert "no predicted artifact at" in refused("predicted", "--predicted", tmp_path / "nowhere")
    tiny = make_tiny("spoilt")
    tiny.write_corpus()
    tiny.write_csi(nan_in="future")
    save_jscc(tmp_path / "nan")
    assert "NaN" in refused("nan")
