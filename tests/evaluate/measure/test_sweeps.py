import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from sclmkb.common.artifacts.artifact import Artifact, UnfinishedError
from sclmkb.common.artifacts.checkpoints import save_checkpoint
from sclmkb.common.artifacts.files import write_json
from sclmkb.common.errors import UserError
from sclmkb.common.link.sources import LinkSettings
from sclmkb.common.models.encoders.image_cnn import CnnSettings
from sclmkb.common.models.transceiver import Transceiver, TransceiverSettings
from sclmkb.common.tasks.retrieval import RETRIEVAL
from sclmkb.common.tasks.trained import JsccSettings, Trained
from sclmkb.evaluate import cli
from sclmkb.evaluate.measure.run import Share, _keep, run_sweep
from sclmkb.evaluate.measure.schemas import tables_of
from sclmkb.evaluate.measure.settings import RunInputs, RunSettings
from sclmkb.evaluate.measure.sweeps import Bench
from sclmkb.evaluate.measure.systems import find_checkpoints, warn_of_other_inputs

MODEL = TransceiverSettings(
    num_streams=2, num_uses=4, hidden_width=32, embedding_width=16, media=CnnSettings(size=16, widths=(8, 8))
)
TABLES = tables_of(RETRIEVAL)
SETTINGS = RunSettings(snrs_db=(-5.0, 20.0), num_shown=3, threads=1)


@pytest.fixture(autouse=True)
def _cache(embedding_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCLMKB_CACHE", str(embedding_cache))


def save(root: Path, system: str, seed: int = 0, csi_source: str = "perfect", **other: Any) -> Path:
    """Save an untrained transceiver as ``sclmkb-train jscc`` saves a trained one."""
    folder = root / "jscc" / system / f"seed-{seed}"
    torch.manual_seed(seed)
    settings = {"system": system, "seed": seed, "csi_source": csi_source, "with_sdg": True, "fusion": "mixed"}
    settings |= {"text": {"name": "minilm"}, "model": MODEL.model_dump(mode="json")} | other
    write_json(folder / "plan.json", {"kind": "jscc", "settings": settings})
    save_checkpoint(folder, kind="jscc", settings=settings, tensors=Transceiver(MODEL).state_dict())
    return folder


def inputs(tiny: Any, root: Path) -> RunInputs:
    return RunInputs(checkpoints=root / "jscc", corpus=tiny.corpus, csi=tiny.csi, predicted=tiny.predicted)


def results(out: Path, table: str = "results", **wanted: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(out / f"{table}.parquet").to_pylist()
    return [row for row in rows if all(row[k] == v for k, v in wanted.items())]


def test_every_condition_has_one_row(tiny_artifacts: Any, tmp_path: Path) -> None:
    for system, source in (("perfect-csi", "perfect"), ("without-cdg", "stale"), ("sc-lmkb", "predicted")):
        save(tmp_path, system, 0, source)
    save(tmp_path, "sc-lmkb", 1, "predicted")
    out = run_sweep(SETTINGS, inputs(tiny_artifacts, tmp_path), tmp_path / "eval")
    rows = results(out)
    conditions = {(r["system"], r["seed"], r["receiver"], r["snr_db"], r["wording"]) for r in rows}
    assert len(rows) == len(conditions) == 4 * 2 * 2 * 3  # checkpoints, receivers, SNRs, same / changed / sentence
    assert {r["queries"] for r in rows} == {10}  # of the test split: ten identities, each wording once
    assert all(0 < r["map"] <= 1 and r["rank1"] <= r["rank5"] <= r["rank10"] for r in rows)
    assert results(out, wording="changed")[0]["map"] == results(out, wording="sentence")[0]["map"]
    for row in rows:
        wanted = {name: row[name] for name in ("system", "seed", "receiver", "snr_db")}
        of_queries = results(out, "queries", **wanted, wording="label" if row["wording"] == "same" else "sentence")
        assert row["map"] == pytest.approx(sum(q["ap"] for q in of_queries) / 10)
        assert row["rank1"] == pytest.approx(sum(q["rank"] == 1 for q in of_queries) / 10)
    shown = results(out, "retrievals")
    assert {row["system"] for row in shown} == {"perfect-csi", "without-cdg", "sc-lmkb"}
    assert len(shown) == 3 * 3 * 3  # captions, SNRs, systems; one seed of each
    assert [row["snr_db"] for row in shown[:9]] == [-10.0] * 3 + [0.0] * 3 + [15.0] * 3
    assert all(len(row["item_ids"]) == len(row["hits"]) == 5 for row in shown)
    config = json.loads((out / "config.json").read_text())
    assert len(config["checkpoints"]) == 4
    assert set(config["inputs"]) == {"corpus", "csi", "predicted"}


def test_hits_are_what_the_corpus_says(tiny_artifacts: Any, tmp_path: Path) -> None:
    save(tmp_path, "perfect-csi")
    out = run_sweep(SETTINGS, inputs(tiny_artifacts, tmp_path), tmp_path / "eval")
    corpus = Artifact.open(tiny_artifacts.corpus, "corpus")
    shows = {i["item_id"]: i["identity"] for i in corpus.table("items", "test").to_pylist()}
    captions = corpus.table("captions", "test").to_pylist()
    for row in results(out, "retrievals"):
        means = {c["identity"] for c in captions if (c["text"], c["wording"]) == (row["text"], row["wording"])}
        assert row["hits"] == [shows[item] in means for item in row["item_ids"]]


def test_systems_meet_the_same_channels_noise_and_queries(tiny_artifacts: Any, tmp_path: Path) -> None:
    save(tmp_path, "one")
    save(tmp_path, "same-weights")
    out = run_sweep(SETTINGS, inputs(tiny_artifacts, tmp_path), tmp_path / "eval")
    keep = ("map", "rank1", "rank5", "rank10")
    one, other = ([[r[k] for k in keep] for r in results(out, system=s)] for s in ("one", "same-weights"))
    assert one == other


def test_stale_csi_costs_symbols_under_literal_and_less_under_dmrs(tiny_artifacts: Any, tmp_path: Path) -> None:
    for system, source in (("p", "perfect"), ("s", "stale")):
        save(tmp_path, system, csi_source=source)
    out = run_sweep(SETTINGS, inputs(tiny_artifacts, tmp_path), tmp_path / "eval")

    def error(system: str, receiver: str, snr_db: float = 20.0) -> float:
        row = results(out, "symbol_mse", system=system, receiver=receiver, snr_db=snr_db)[0]
        return float(row["symbol_mse"])

    assert error("p", "literal") < 0.05 < 0.2 < error("s", "literal")  # the tiny channel turns from step to step
    assert error("s", "dmrs") < 0.1
    assert error("p", "literal", -5.0) > error("p", "literal")


def test_a_checkpoint_is_measured_on_its_own_link_or_on_another(tiny_artifacts: Any, tmp_path: Path) -> None:
    save(tmp_path, "fed-back", csi_source="feedback", link={"feedback_bits": 64, "feedback_delay": 2})
    save(tmp_path, "no-link", link={"channel": "none"})
    save(tmp_path, "rician", csi_source="stale", link={"channel": "rician", "power": "water_filling"})
    out = run_sweep(SETTINGS, inputs(tiny_artifacts, tmp_path), tmp_path / "eval")
    alone = results(out, "symbol_mse", system="no-link")
    assert {row["symbol_mse"] for row in alone} == {0.0}
    maps = {row["map"] for row in results(out, system="no-link", wording="same")}
    assert len(maps) == 1  # the same at every SNR with every receiver
    for system in ("fed-back", "rician"):
        errors = [results(out, "symbol_mse", system=system, snr_db=s, receiver="dmrs")[0] for s in (-5.0, 20.0)]
        assert 1.5 > errors[0]["symbol_mse"] > errors[1]["symbol_mse"] > 0
    awgn = SETTINGS.model_copy(update={"link": LinkSettings(channel="awgn")})
    without_csi = RunInputs(checkpoints=tmp_path / "jscc", corpus=tiny_artifacts.corpus)
    out = run_sweep(awgn, without_csi, tmp_path / "eval-awgn")
    assert len({row["spectral_efficiency"] for row in results(out, "symbol_mse", snr_db=20.0)}) == 1
    assert all(0 < row["symbol_mse"] < 0.02 for row in results(out, "symbol_mse", snr_db=20.0, receiver="literal"))


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
    save(tmp_path, "one")
    given = inputs(tiny_artifacts, tmp_path)
    run_sweep(SETTINGS, given, tmp_path / "eval")
    first = results(tmp_path / "eval")
    save(tmp_path, "two", seed=5)
    measured.clear()
    run_sweep(SETTINGS, given, tmp_path / "eval")
    assert [system for system, _ in measured] == ["two"]
    assert results(tmp_path / "eval", system="one") == first
    run_sweep(SETTINGS, given, tmp_path / "eval")
    assert len(measured) == 1
    next((tmp_path / "eval" / "work").glob("one-*/dmrs+20.0dB/queries.parquet")).unlink()
    run_sweep(SETTINGS, given, tmp_path / "eval")
    assert measured[1:] == [("one", ["dmrs+20.0dB"])]
    torch.manual_seed(99)  # trained again: other weights under the same name
    folder = save(tmp_path, "two", seed=6).parent
    (folder / "seed-5" / "plan.json").unlink()
    run_sweep(SETTINGS, given, tmp_path / "eval")
    assert [system for system, _ in measured] == ["two", "one", "two"]
    assert {row["seed"] for row in results(tmp_path / "eval", system="two")} == {6}


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
    save(tmp_path, "predicted", csi_source="predicted")
    save(tmp_path, "fed-back", csi_source="feedback", link={"feedback_bits": 64, "feedback_delay": 2})
    save(tmp_path, "rician", csi_source="stale", link={"channel": "rician", "power": "water_filling"})
    save(tmp_path, "no-link", link={"channel": "none"})
    given = inputs(tiny_artifacts, tmp_path)
    whole = SETTINGS.model_copy(update={"snrs_db": (0.0, 5.0, 15.0)})
    run_sweep(whole, given, tmp_path / "at-once")
    run_sweep(whole.model_copy(update=before), given, tmp_path / "extended")
    measured.clear()
    run_sweep(whole, given, tmp_path / "extended")
    assert sorted(name for _, parts in measured for name in parts) == sorted(4 * after)
    for name in ("config.json", *(f"{table}.parquet" for table in TABLES)):
        assert (tmp_path / "at-once" / name).read_bytes() == (tmp_path / "extended" / name).read_bytes()
    measured.clear()
    run_sweep(whole.model_copy(update=before), given, tmp_path / "extended")  # what was left out was kept
    assert not measured


def test_one_shown_snr_may_be_a_number() -> None:
    assert RunSettings(shown_snrs_db=5).shown_snrs_db == (5.0,)
    with pytest.raises(ValueError, match="shown_snrs_db"):
        RunSettings(shown_snrs_db=())


def test_an_interrupted_run_keeps_its_columns(
    tiny_artifacts: Any, tmp_path: Path, measured: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, "one")
    given = inputs(tiny_artifacts, tmp_path)
    run_sweep(SETTINGS, given, tmp_path / "at-once")
    with monkeypatch.context() as patch:
        patch.setattr(Bench, "_shown", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_sweep(SETTINGS, given, tmp_path / "eval")
    measured.clear()
    run_sweep(SETTINGS, given, tmp_path / "eval")
    assert measured == [("one", ["shown-10.0dB", "shown+0.0dB", "shown+15.0dB"])]
    for name in TABLES:
        path = f"{name}.parquet"
        assert (tmp_path / "at-once" / path).read_bytes() == (tmp_path / "eval" / path).read_bytes()


def test_processes_share_the_columns(
    tiny_artifacts: Any, tmp_path: Path, measured: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two", "three"):
        save(tmp_path, name)
    given = inputs(tiny_artifacts, tmp_path)
    run_sweep(SETTINGS, given, tmp_path / "at-once")
    whole = sorted((name, part) for name, parts in measured for part in parts)
    shared = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        measured.clear()
        monkeypatch.setenv("RANK", rank)
        if rank == "1":
            with pytest.raises(UnfinishedError, match="process 2 of 2 measured its share; 11 of 21 columns"):
                run_sweep(SETTINGS, given, tmp_path / "eval")
            assert not (tmp_path / "eval" / "results.parquet").exists()
        else:
            run_sweep(SETTINGS, given, tmp_path / "eval")
        assert len(measured) == 2, "neighbours stay together: a checkpoint is loaded for many columns"
        shared += [(name, part) for name, parts in measured for part in parts]
    assert sorted(shared) == whole
    for name in TABLES:
        path = f"{name}.parquet"
        assert (tmp_path / "at-once" / path).read_bytes() == (tmp_path / "eval" / path).read_bytes()
    with pytest.raises(UserError, match="2 processes cannot set"):
        run_sweep(SETTINGS.model_copy(update={"seed": 1}), given, tmp_path / "eval", new_run=True)


@pytest.mark.parametrize("processes", [1, 2, 3, 5, 40])
def test_shares_are_all_parts_and_each_once(processes: int) -> None:
    for total in (1, 4, 21):
        shares = [[i for i in range(total) if Share(n, processes).has(i, total)] for n in range(processes)]
        assert [i for share in shares for i in share] == list(range(total))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_of_two_processes_with_one_column_the_first_wins_with_all_its_tables(tmp_path: Path) -> None:
    first, second = ({name: pa.table({"x": [n]}) for name in ("a", "b")} for n in (1, 2))
    for tables in (first, second):
        _keep(tmp_path / "part", tables)
    assert [pq.read_table(tmp_path / "part" / f"{n}.parquet")["x"][0].as_py() for n in ("a", "b")] == [1, 1]
    (tmp_path / "part" / "b.parquet").unlink()
    _keep(tmp_path / "part", second)
    assert [pq.read_table(tmp_path / "part" / f"{n}.parquet")["x"][0].as_py() for n in ("a", "b")] == [1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["part"], "nothing is left behind"


def test_a_folder_of_an_older_version_is_measured_again(tiny_artifacts: Any, tmp_path: Path) -> None:
    save(tmp_path, "one")
    given = inputs(tiny_artifacts, tmp_path)
    out = run_sweep(SETTINGS, given, tmp_path / "eval")
    expected = {name: (out / f"{name}.parquet").read_bytes() for name in TABLES}
    (part,) = (out / "work").iterdir()
    shutil.rmtree(part)
    part.mkdir()
    write_json(part / "done.json", {})
    for name, of in expected.items():
        (part / f"{name}.parquet").write_bytes(of)  # all columns in one
    run_sweep(SETTINGS, given, out)
    assert {name: (out / f"{name}.parquet").read_bytes() for name in TABLES} == expected
    assert all(path.is_dir() for path in part.iterdir())


def test_other_settings_need_another_folder_or_new_run(tiny_artifacts: Any, tmp_path: Path) -> None:
    save(tmp_path, "one")
    given = inputs(tiny_artifacts, tmp_path)
    run_sweep(SETTINGS, given, tmp_path / "eval")
    other = SETTINGS.model_copy(update={"seed": 3})
    with pytest.raises(UserError, match=r"other settings \(seed: \d there, 3 now\)"):
        run_sweep(other, given, tmp_path / "eval")
    with pytest.raises(UserError, match=r"other settings \(seed: \d there, 3 now\)"):
        run_sweep(other.model_copy(update={"snrs_db": (0.0,)}), given, tmp_path / "eval")
    run_sweep(other, given, tmp_path / "eval", new_run=True)
    assert (tmp_path / "eval.old-1" / "results.parquet").exists()


def test_seeds_choose_checkpoints_and_another_one_is_measured_alone(tiny_artifacts: Any, tmp_path: Path) -> None:
    for seed in (0, 1):
        save(tmp_path, "one", seed)
    given = inputs(tiny_artifacts, tmp_path)
    out = run_sweep(SETTINGS.model_copy(update={"seeds": (1,)}), given, tmp_path / "eval")
    assert {row["seed"] for row in results(out)} == {1}
    kept = {path: path.stat().st_mtime_ns for path in (out / "work").rglob("*.parquet")}
    run_sweep(SETTINGS, given, out)
    assert {row["seed"] for row in results(out)} == {0, 1}
    assert all(path.stat().st_mtime_ns == at for path, at in kept.items())


def test_checkpoints_that_cannot_be_measured_are_named(tiny_artifacts: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no jscc checkpoint below"):
        find_checkpoints(tmp_path / "jscc")
    folder = save(tmp_path, "one")
    save(tmp_path, "one", seed=1)
    (folder.parent / "seed-1").rename(folder.parent / "seed-1.old-1")  # set aside by --new-run
    assert len(find_checkpoints(tmp_path / "jscc")) == 1
    write_json(folder.parent / "seed-2" / "plan.json", {"kind": "jscc", "settings": {"seed": 2}})
    with pytest.raises(UserError, match="unfinished"):
        find_checkpoints(tmp_path / "jscc")
    assert len(find_checkpoints(tmp_path / "jscc", seeds=[0])) == 1, "another seed is not asked for"
    with pytest.raises(UserError, match="no jscc checkpoint of seed 7 below"):
        find_checkpoints(tmp_path / "jscc", seeds=[7])
    (folder.parent / "seed-2" / "plan.json").unlink()
    save(tmp_path / "jscc", "one")  # jscc/jscc/one/seed-0
    with pytest.raises(UserError, match="both hold system 'one' seed 0"):
        find_checkpoints(tmp_path / "jscc")


def test_other_inputs_than_those_of_training_are_named_and_unused_ones_are_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def trained_on(name: str, **inputs: str) -> Trained:
        return Trained(root=Path(name), settings=JsccSettings(), inputs=inputs)

    found = [
        trained_on("same", corpus="c", csi="h"),
        trained_on("other", corpus="c", csi="x"),
        trained_on("no-link", corpus="c"),
    ]
    warn_of_other_inputs(found, {"corpus": "c", "csi": "h", "predicted": "p"})
    (line,) = capsys.readouterr().err.splitlines()
    assert "other was trained on another csi" in line


def fails(arguments: list[Any], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["sclmkb-eval", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
    assert exit_.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    return lines[-1]


def test_a_checkpoint_of_another_shape_is_one_line(
    tiny_artifacts: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, "one", model=MODEL.model_copy(update={"hidden_width": 48}).model_dump(mode="json"))
    tiny = tiny_artifacts
    given = ["run", "--preset", "tiny", "--checkpoints", tmp_path / "jscc", "--corpus", tiny.corpus, "--csi", tiny.csi]
    line = fails([*given, "--predicted", tiny.predicted, "--out", tmp_path / "eval"], capsys)
    assert "does not fit the model" in line
    assert "use the settings it was trained with" in line


def test_nan_csi_and_missing_predictions_are_one_line(
    make_tiny: Callable[[str], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = make_tiny("tiny")
    tiny.write_corpus()
    tiny.write_csi(nan_in="future")
    save(tmp_path, "one")
    given = ["run", "--preset", "tiny", "--checkpoints", tmp_path / "jscc", "--corpus", tiny.corpus, "--csi", tiny.csi]
    assert "NaN" in fails([*given, "--out", tmp_path / "eval"], capsys)
    save(tmp_path, "sc-lmkb", csi_source="predicted")
    line = fails([*given, "--predicted", tmp_path / "nowhere", "--out", tmp_path / "eval2"], capsys)
    assert "no predicted artifact at" in line


@pytest.mark.parametrize("kind", ["motion", "audio"])
def test_motion_sound_and_other_channels_are_measured(
    write_items: Callable[[str], Any], save_jscc: Callable[..., Path], kind: str
) -> None:
    tiny = write_items(kind)
    save_jscc(tiny.root, "fed-back", csi_source="feedback", kind=kind, link={"feedback_bits": 512})
    save_jscc(tiny.root, "rayleigh", csi_source="stale", kind=kind, link={"channel": "rayleigh"})
    save_jscc(tiny.root, "no-link", kind=kind, link={"channel": "none"})
    given = RunInputs(checkpoints=tiny.root / "jscc", corpus=tiny.corpus, csi=tiny.csi)
    out = run_sweep(SETTINGS, given, tiny.root / "eval")
    assert {row["queries"] for row in results(out)} == {6}
    assert {row["wording"] for row in results(out)} == {"same"}
    without = results(out, "symbol_mse", system="no-link")
    assert len(without) == 4
    assert all(row["symbol_mse"] == 0 for row in without)
    assert len({row["map"] for row in results(out, system="no-link")}) == 1  # nothing depends on the SNR
    for system in ("fed-back", "rayleigh"):
        low, high = (results(out, "symbol_mse", system=system, receiver="dmrs", snr_db=snr)[0] for snr in (-5.0, 20.0))
        assert low["symbol_mse"] > high["symbol_mse"] > 0
        assert low["spectral_efficiency"] < high["spectral_efficiency"]


def test_checkpoints_without_shards_need_no_csi(
    write_items: Callable[[str], Any], save_jscc: Callable[..., Path]
) -> None:
    tiny = write_items("motion")
    save_jscc(tiny.root, "awgn", kind="motion", link={"channel": "awgn"})
    given = RunInputs(checkpoints=tiny.root / "jscc", corpus=tiny.corpus)
    assert len(results(run_sweep(SETTINGS, given, tiny.root / "eval"))) == 4
    save_jscc(tiny.root, "shards", kind="motion")
    with pytest.raises(UserError, match="needs a CSI artifact"):
        run_sweep(SETTINGS, given, tiny.root / "eval")
