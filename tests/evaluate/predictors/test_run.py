import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest
import torch

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.files import write_json
from sclmkb.common.csi.sets import CsiShape, load_csi
from sclmkb.common.errors import UserError
from sclmkb.common.models.csi.lmmse import EigenBeamLmmse, LmmseSettings
from sclmkb.common.models.csi.zoo import save_predictor
from sclmkb.common.seeds import make_generator
from sclmkb.evaluate.predictors import run as csi_module
from sclmkb.evaluate.predictors.output import write_output
from sclmkb.evaluate.predictors.run import SAMPLES, CsiEvalSettings, measure_csi, noisy_history
from sclmkb.evaluate.predictors.samples import Measured
from sclmkb.evaluate.predictors.tables import ablation_tables
from sclmkb.evaluate.report.page import ReportSettings, make_report

SETTINGS = CsiEvalSettings(pilot_snrs_db=(10.0, 20.0), num_streams=2, num_resamples=100, threads=1)
SHAPE = CsiShape(num_history=16, num_future=4, num_rx=4, num_tx=4)


@pytest.fixture(scope="module")
def csi(write_path_csi: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_path_csi(tmp_path_factory.mktemp("made") / "paths", sizes=(48, 5, 40), shard_size=25)


def save(folder: Path, csi: Path, seed: int = 0, shape: CsiShape = SHAPE, **training: Any) -> Path:
    """Fit the Wiener bank and save it as ``sclmkb-train cdg`` saves a predictor."""
    model = EigenBeamLmmse(LmmseSettings(), shape)
    if shape == SHAPE:
        train = load_csi(csi, "train")
        clean = torch.cat([train.clean_history, train.future], 1)
        model.fit_statistics(clean, (8.0, 22.0), make_generator(seed, "test", json.dumps(training)))
    settings = {"seed": seed, "num_steps": 5, "model": model.settings.model_dump(mode="json")} | training
    write_json(folder / "plan.json", {"kind": "cdg"})
    info = {"inputs": {"csi": "abc"}}
    save_predictor(folder, model, seed=seed, settings=settings, tensors=model.state_dict(), info=info)
    return folder


def rows(out: Path, table: str = "samples", **wanted: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(out / f"{table}.parquet").to_pylist()
    return [row for row in found if all(row[key] == value for key, value in wanted.items())]


@pytest.fixture(scope="module")
def measured(csi: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("measured")
    for seed in (0, 1):
        save(root / "models" / "lmmse" / f"seed-{seed}", csi, seed)
    save(root / "models" / "longer", csi, 0, num_steps=6)
    measure_csi(SETTINGS, [csi], root / "models", root / "out")
    write_output(root / "out")
    return root


def test_every_predictor_seed_snr_and_drop_has_one_row(measured: Path) -> None:
    found = rows(measured / "out")
    systems = {(r["system"], r["seed"]) for r in found}
    assert systems == {("persistence", 0), ("AR(8)", 0), ("lmmse", 0), ("lmmse", 1), ("longer", 0)}
    keys = {(r["system"], r["seed"], r["pilot_snr_db"], r["drop_id"]) for r in found}
    assert len(keys) == len(found) == 5 * 2 * 40
    assert {r["artifact"] for r in found} == {"paths"}
    assert {r["scenario"] for r in found} == {"paths"}
    results = rows(measured / "out", "results")
    assert len(results) == 5 * 2
    assert {r["drops"] for r in results} == {40}  # every drop counts at every SNR
    of = {(r["system"], r["seed"], r["pilot_snr_db"]): r for r in results}
    for system in ("lmmse", "AR(8)"):
        assert of[system, 0, 20.0]["nmse_db"] < of["persistence", 0, 20.0]["nmse_db"]
    assert of["lmmse", 0, 20.0]["nmse_db"] < of["lmmse", 0, 10.0]["nmse_db"]
    assert all(0 < r["subspace"] <= 1 and 0 < r["efficiency_share"] <= 1.001 for r in results)


def test_the_first_drops_alone_measure_the_same(measured: Path, csi: Path, tmp_path: Path) -> None:
    few = SETTINGS.model_copy(update={"max_drops": 30})  # more than a shard, fewer than there are
    measure_csi(few, [csi], measured / "models", tmp_path / "out")
    first = load_csi(csi, "test").drop_ids[:30]
    wanted = [row for row in rows(measured / "out") if row["drop_id"] in first]
    found = rows(tmp_path / "out")
    names = ("system", "seed", "pilot_snr_db", "drop_id")
    assert [[row[name] for name in names] for row in found] == [[row[name] for name in names] for row in wanted]
    assert [row["nmse"] for row in found] == pytest.approx([row["nmse"] for row in wanted], rel=1e-4)
    with pytest.raises(UserError, match="another"):
        measure_csi(SETTINGS, [csi], measured / "models", tmp_path / "out")


def test_results_say_what_the_samples_say(measured: Path) -> None:
    part = rows(measured / "out", system="AR(8)", pilot_snr_db=10.0)
    (row,) = rows(measured / "out", "results", system="AR(8)", pilot_snr_db=10.0)
    ratios = np.array([r["nmse"] for r in part])
    assert row["nmse_db"] == pytest.approx(10 * np.log10(ratios.mean()))
    assert row["median_db"] == pytest.approx(10 * np.log10(np.median(ratios)))
    summed = sum(r["error_power"] for r in part) / sum(r["power"] for r in part)
    assert row["ratio_of_sums_db"] == pytest.approx(10 * np.log10(summed))
    assert row["step_db"] == sorted(row["step_db"])  # later steps are harder
    csv = pcsv.read_csv(measured / "out" / "results.csv").to_pylist()
    assert len(csv) == 10
    assert json.loads(csv[0]["step_db"])


def test_noise_follows_from_drop_and_snr_alone(csi: Path) -> None:
    drops = load_csi(csi, "test")
    whole, part = noisy_history(drops, 10.0, 0), noisy_history(drops.part(slice(7, 12)), 10.0, 0)
    assert torch.equal(whole[7:12], part)
    noise = whole - drops.clean_history
    assert 10 * noise.abs().square().mean().log10().item() == pytest.approx(-10, abs=0.3)
    other = noisy_history(drops, 20.0, 0) - drops.clean_history
    overlap = (noise.conj() * other).sum().abs() / noise.norm() / other.norm()
    assert overlap < 0.05
    assert not torch.equal(noisy_history(drops, 10.0, 1), whole)


def test_a_resumed_measurement_does_only_what_is_missing(
    measured: Path, csi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(measured / "out", out)
    before = (out / "samples.parquet").read_bytes()
    gone = next((out / "work").glob("lmmse-1-*/*-20.parquet"))
    gone.unlink()
    measure = csi_module._measure
    calls = []

    def counted(*arguments: Any) -> Any:
        calls.append(arguments)
        return measure(*arguments)

    monkeypatch.setattr(csi_module, "_measure", counted)
    measure_csi(SETTINGS, [csi], measured / "models", out)
    assert len(calls) == 2  # shards of the one part
    assert (out / "samples.parquet").read_bytes() == before


def test_further_snrs_may_follow_but_not_another_measure(measured: Path, csi: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(measured / "out", out)
    more = SETTINGS.model_copy(update={"pilot_snrs_db": (10.0, 15.0)})
    measure_csi(more, [csi], measured / "models", out)
    assert {r["pilot_snr_db"] for r in rows(out)} == {10.0, 15.0}
    other = SETTINGS.model_copy(update={"num_streams": 1})
    with pytest.raises(UserError, match="another --out, or --new-run"):
        measure_csi(other, [csi], measured / "models", out)
    measure_csi(other, [csi], measured / "models", out, new_run=True)
    assert (tmp_path / "out.old-1").exists()


def test_seeds_are_one_row_and_one_changed_setting_is_an_ablation(measured: Path) -> None:
    text = (measured / "out" / "tables.md").read_text()
    assert text.count("| lmmse  ") == 2  # NMSE, details
    assert "less AR(8), 20 dB" in text
    assert "NMSE [dB], paths, 30 km/h, 4×4 antennas, 16 → 4 samples, 40 test drops" in text
    found = Measured(measured / "out")
    (table,) = ablation_tables(found)
    assert [row[:3] for row in table.rows] == [["lmmse (reference)", "", "2"], ["longer", "num_steps: 6", "1"]]
    chosen = found.settings.model_copy(update={"main_system": "longer"})
    found.settings = chosen
    (table,) = ablation_tables(found)
    assert table.rows[0][0] == "longer (reference)"
    assert table.rows[1][:3] == ["lmmse", "num_steps: 5", "2"]
    found.settings = found.settings.model_copy(update={"main_system": "nobody"})
    with pytest.raises(UserError, match="main_system"):
        ablation_tables(found)


def test_an_ablation_names_the_csi_that_was_trained_on(measured: Path, csi: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(measured / "models" / "lmmse", models / "lmmse")
    shutil.copytree(models / "lmmse" / "seed-0", models / "at-home")
    path = models / "at-home" / "config.json"
    config = json.loads(path.read_text())
    config["inputs"]["csi"] = Artifact.open(csi, "csi").fingerprint
    path.write_text(json.dumps(config))
    out = measure_csi(SETTINGS, [csi], models, tmp_path / "out")
    found = Measured(out)
    found.settings = found.settings.model_copy(update={"main_system": "lmmse"})
    (table,) = ablation_tables(found)
    assert table.rows[1][:2] == ["at-home", "trained on csi: paths"]
    found.settings = found.settings.model_copy(update={"main_system": "at-home"})
    (table,) = ablation_tables(found)
    assert table.rows[1][:2] == ["lmmse", "trained on csi: other CSI (abc)"]


def test_an_artifact_without_a_clean_history_is_taken_as_it_is(
    measured: Path, csi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sclmkb.evaluate.predictors import inputs as csi_inputs

    monkeypatch.setattr(csi_inputs, "_can_redraw", lambda plan, drops: False)
    out = measure_csi(SETTINGS, [csi], measured / "models", tmp_path / "out")
    assert {r["pilot_snr_db"] for r in rows(out)} == {None}
    assert "as stored" in write_output(out)


def write_samples(
    root: Path,
    systems: dict[str, str],
    *,
    scenarios: tuple[str, ...] = ("umi-los",),
    speeds: tuple[float, ...] = (30.0,),
    wideband: bool = False,
    artifact: str = "sector",
) -> Path:
    """Write the samples of a measurement that never was: 12 terminals a scenario and speed, in a sector."""
    draw = np.random.default_rng(0)
    table = []
    cells = [(s, v, i) for s in scenarios for v in speeds for i in range(12)]
    for system in systems:
        for snr_db in (10.0, 20.0):
            for scenario, speed, i in cells:
                nmse = float(draw.exponential(0.1 if system == "cdg" else 0.3))
                angle, radius = 0.1 * i - 0.6, 50.0 + 10 * i
                table.append(
                    {
                        "system": system, "kind": systems[system], "seed": 0, "artifact": artifact,
                        "pilot_snr_db": snr_db, "drop_id": f"{scenario}-{speed}-{i}", "scenario": scenario,
                        "speed_kmh": speed, "user": f"user-{i}", "x_m": -radius * np.cos(angle),
                        "y_m": radius * np.sin(angle),
                        "nmse": nmse, "nmse_steps": [nmse] * 4, "nmse_link": nmse if wideband else float("nan"),
                        "error_power": nmse, "power": 1.0, "subspace": 0.9, "efficiency": 9.0,
                        "efficiency_perfect": 10.0,
                    }
                )  # fmt: skip
    root.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(table, schema=SAMPLES), root / "samples.parquet")
    shape = CsiShape(num_history=16, num_future=4, num_rx=24 if wideband else 4, num_tx=32 if wideband else 4,
                     num_subcarriers=24 if wideband else 1)  # fmt: skip
    described = [{"system": name, "kind": kind, "seed": 0, "settings": {}} for name, kind in systems.items()]
    settings = SETTINGS.model_copy(update={"benchmark": "csi-4cast" if wideband else None})
    config = {"settings": settings.fingerprint_fields(), "inputs": {artifact: "x"}, "predictors": described}
    write_json(root / "config.json", {**config, "shapes": {artifact: shape.to_dict()}})
    return root


ALL = {"persistence": "persistence", "AR(8)": "ar", "csi-llm": "csi_llm", "llm4cp": "llm4cp", "cdg": "cdg"}


def test_the_map_shows_the_three_predictors_of_the_paper(tmp_path: Path) -> None:
    root = write_samples(tmp_path / "out", ALL)
    write_output(root)
    files = {path.name for path in (root / "figures").iterdir()}
    assert files == {f"{kind}-sector.{end}" for kind in ("snr", "steps", "map") for end in ("svg", "pdf", "png")}
    drawn = (root / "figures" / "map-sector.svg").read_text()
    text = " ".join("".join(n.itertext()) for n in ET.fromstring(drawn).iter() if n.tag.endswith("text"))
    assert all(name in text for name in ("csi-llm", "llm4cp", "cdg", "12 terminals", "NMSE [dB]"))
    assert "persistence" not in text
    assert len(drawn) < 600_000


def test_the_map_takes_others_where_those_three_are_not(tmp_path: Path) -> None:
    from sclmkb.evaluate.predictors.figures import map_systems

    measured = Measured(write_samples(tmp_path / "a", {"persistence": "persistence", "AR(8)": "ar", "cdg": "cdg"}))
    assert map_systems(measured) == ["persistence", "AR(8)", "cdg"]
    measured.settings = measured.settings.model_copy(update={"map_systems": ("AR(8)", "gru")})
    with pytest.raises(UserError, match="no 'gru'"):
        map_systems(measured)


def test_the_public_benchmark_says_how_much_of_it_was_run(tmp_path: Path) -> None:
    root = write_samples(tmp_path / "out", ALL, wideband=True,
                         scenarios=("cdl-a-30ns", "cdl-c-100ns", "cdl-d-300ns"), speeds=(3.6, 36.0))  # fmt: skip
    text = write_output(root)
    assert "6 of 27 cells" in text
    assert "12 of 100 test samples a cell, 2 of 6 SNRs, 24 of 300 subcarriers, 32 of 32 antenna pairs" in text
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    (ours,) = [line for line in lines if line[:2] == ["cdg", "ours"]]
    found = [r["nmse"] for r in rows(root, system="cdg")]
    of = {m: np.mean([r["nmse"] for r in rows(root, system="cdg", scenario=s)])
          for m, s in (("A", "cdl-a-30ns"), ("C", "cdl-c-100ns"), ("D", "cdl-d-300ns"))}  # fmt: skip
    assert ours[2:] == [*(f"{of[m]:.3f}" for m in "ACD"), f"{np.mean(found):.3f}"]
    assert ["CSI-4CAST", "published", "0.156", "0.207", "0.022", "0.128"] in lines


def test_the_public_benchmark_refuses_other_channels(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no drop is of the CSI-4CAST protocol"):
        write_output(write_samples(tmp_path / "out", ALL, wideband=True))


def test_the_report_has_a_section_on_it(measured: Path, tmp_path: Path) -> None:
    nothing = dict.fromkeys(("evaluation", "corpus", "sdg", "predicted", "calibration"))
    make_report(ReportSettings(), **nothing, csi_evaluation=measured / "out", out=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "How well future CSI is predicted" in page
    assert "Ablations of" in page
    assert page.count("<svg") == 2
    with pytest.raises(UserError, match="run sclmkb-eval csi"):
        make_report(ReportSettings(), **nothing, csi_evaluation=tmp_path, out=tmp_path / "page.html")


def test_checkpoints_of_one_name_but_other_settings_get_names_of_their_own(csi: Path, tmp_path: Path) -> None:
    from sclmkb.evaluate.predictors.inputs import find_candidates

    save(tmp_path / "lmmse-0", csi, 0)
    save(tmp_path / "lmmse-1", csi, 1, num_steps=9)
    names = [candidate.system for candidate in find_candidates(tmp_path)]
    assert len(set(names)) == 2
    assert "lmmse" in names
    alone = find_candidates(tmp_path / "lmmse-1")
    assert [candidate.system for candidate in alone] == ["lmmse"]  # the kind, where the folder says nothing
    save(tmp_path / "again", csi, 0)
    with pytest.raises(UserError, match="both hold 'again' seed 0"):
        find_candidates(tmp_path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("nothing", "no cdg checkpoint below"),
        ("unfinished run", "is unfinished"),
        ("wrong shape", "was trained with num_rx = 8"),
        ("no csi", "no csi artifact at"),
        ("unfinished csi", "not finished|not committed|unfinished"),
        ("same name", "have the same name"),
        ("folder in use", "is not empty and holds no config.json"),
        ("another version", "was written by another version"),
    ],
)
def test_bad_input_is_one_line(csi: Path, tmp_path: Path, spoil: str, message: str) -> None:
    models, sources, out = tmp_path / "models", [csi], tmp_path / "out"
    models.mkdir()
    if spoil != "nothing":
        save(models / "lmmse", csi)
    if spoil == "unfinished run":
        (models / "lmmse" / "config.json").unlink()
    elif spoil == "wrong shape":
        save(models / "other", csi, shape=CsiShape(num_history=16, num_future=4, num_rx=8, num_tx=4))
    elif spoil == "no csi":
        sources = [tmp_path / "nowhere"]
    elif spoil == "unfinished csi":
        sources = [tmp_path / "half"]
        shutil.copytree(csi, sources[0])
        next((sources[0] / "manifests").glob("test-*.json")).unlink()
    elif spoil == "same name":
        sources = [csi, csi, csi]
    elif spoil == "folder in use":
        out.mkdir()
        (out / "thesis.txt").write_text("mine")
    elif spoil == "another version":
        config = json.loads((models / "lmmse" / "config.json").read_text())
        del config["settings"]["model"]
        (models / "lmmse" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message) as caught:
        measure_csi(SETTINGS, sources, models, out)
    assert "\n" not in str(caught.value)


def test_a_short_history_is_refused_by_name(write_path_csi: Callable[..., Path], tmp_path: Path) -> None:
    short = write_path_csi(tmp_path / "short", sizes=(30, 3, 5), num_history=8)
    shape = CsiShape(num_history=8, num_future=4, num_rx=4, num_tx=4)
    save(tmp_path / "models" / "lmmse", short, shape=shape)
    with pytest.raises(UserError, match=r"AR\(8\) needs 12 history samples"):
        measure_csi(SETTINGS, [short], tmp_path / "models", tmp_path / "out")
    fewer = SETTINGS.model_copy(update={"ar_order": 2})
    measure_csi(fewer, [short], tmp_path / "models", tmp_path / "out2")
    assert "AR(2)" in {r["system"] for r in rows(tmp_path / "out2")}


def test_the_command_prints_the_table_and_exits_2_on_bad_input(
    measured: Path, csi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sclmkb.evaluate.cli import main

    def run(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["sclmkb-eval", "csi", "--preset", "tiny", *arguments])
        with pytest.raises(SystemExit) as exit_:
            main()
        return int(exit_.value.code or 0)

    models = str(measured / "models")
    assert run("--csi", str(csi), "--checkpoints", models, "--out", str(tmp_path / "out")) == 0
    assert "NMSE [dB], paths" in capsys.readouterr().out
    assert run("--csi", str(csi), "--checkpoints", str(tmp_path / "none"), "--out", str(tmp_path / "out")) == 2
    assert "no cdg checkpoint below" in " ".join(capsys.readouterr().err.split())
