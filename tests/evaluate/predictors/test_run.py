import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest
import torch
from commands import must_run, refusal
from measuring import table_rows

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.files import read_json, write_json
from sclmkb.common.csi.sets import CsiShape, load_csi
from sclmkb.common.errors import UserError
from sclmkb.common.models.csi.lmmse import EigenBeamLmmse, LmmseSettings
from sclmkb.common.models.csi.zoo import save_predictor
from sclmkb.common.seeds import make_generator
from sclmkb.evaluate.predictors.figures import map_systems
from sclmkb.evaluate.predictors.inputs import find_candidates
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
    found = table_rows(measured / "out", "samples")
    systems = {(r["system"], r["seed"]) for r in found}
    assert systems == {("persistence", 0), ("AR(8)", 0), ("lmmse", 0), ("lmmse", 1), ("longer", 0)}
    keys = {(r["system"], r["seed"], r["pilot_snr_db"], r["drop_id"]) for r in found}
    assert len(keys) == len(found) == 5 * 2 * 40
    assert {r["artifact"] for r in found} == {"paths"}
    assert {r["scenario"] for r in found} == {"paths"}
    results = table_rows(measured / "out", "results")
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
    wanted = [row for row in table_rows(measured / "out", "samples") if row["drop_id"] in first]
    found = table_rows(tmp_path / "out", "samples")
    names = ("system", "seed", "pilot_snr_db", "drop_id")
    assert [[row[name] for name in names] for row in found] == [[row[name] for name in names] for row in wanted]
    assert [row["nmse"] for row in found] == pytest.approx([row["nmse"] for row in wanted], rel=1e-4)
    with pytest.raises(UserError, match="another"):
        measure_csi(SETTINGS, [csi], measured / "models", tmp_path / "out")


def test_results_say_what_the_samples_say(measured: Path) -> None:
    part = table_rows(measured / "out", "samples", system="AR(8)", pilot_snr_db=10.0)
    (row,) = table_rows(measured / "out", "results", system="AR(8)", pilot_snr_db=10.0)
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


def test_a_resumed_measurement_does_only_what_is_missing(measured: Path, csi: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(measured / "out", out)
    before = (out / "samples.parquet").read_bytes()
    gone = next((out / "work").glob("lmmse-1-*/*-20.parquet"))
    gone.unlink()
    kept = {path: path.stat().st_mtime_ns for path in (out / "work").rglob("*.parquet")}
    measure_csi(SETTINGS, [csi], measured / "models", out)
    assert gone.exists()
    assert all(path.stat().st_mtime_ns == at for path, at in kept.items())
    assert (out / "samples.parquet").read_bytes() == before


def test_further_snrs_may_follow_but_not_another_measure(measured: Path, csi: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(measured / "out", out)
    more = SETTINGS.model_copy(update={"pilot_snrs_db": (10.0, 15.0)})
    measure_csi(more, [csi], measured / "models", out)
    assert {r["pilot_snr_db"] for r in table_rows(out, "samples")} == {10.0, 15.0}
    other = SETTINGS.model_copy(update={"num_streams": 1})
    with pytest.raises(UserError, match="another --out, or --new-run"):
        measure_csi(other, [csi], measured / "models", out)
    measure_csi(other, [csi], measured / "models", out, new_run=True)
    assert (tmp_path / "out.old-1").exists()


def ablated(out: Path, main: str | None = None) -> list[list[str]]:
    """Return system, what differs and seeds of the table of ablations, of a main system."""
    found = Measured(out)
    found.settings = found.settings.model_copy(update={"main_system": main})
    (table,) = ablation_tables(found)
    return [list(row[:3]) for row in table.rows]


def test_seeds_are_one_row_and_one_changed_setting_is_an_ablation(measured: Path) -> None:
    text = (measured / "out" / "tables.md").read_text()
    assert text.count("| lmmse  ") == 2  # NMSE, details
    assert "less AR(8), 20 dB" in text
    assert "NMSE [dB], paths, 30 km/h, 4×4 antennas, 16 → 4 samples, 40 test drops" in text
    out = measured / "out"
    assert ablated(out) == [["lmmse (reference)", "", "2"], ["longer", "num_steps: 6", "1"]]
    assert ablated(out, "longer") == [["longer (reference)", "", "1"], ["lmmse", "num_steps: 5", "2"]]
    with pytest.raises(UserError, match="main_system"):
        ablated(out, "nobody")


def test_an_ablation_names_the_csi_that_was_trained_on(measured: Path, csi: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(measured / "models" / "lmmse", models / "lmmse")
    shutil.copytree(models / "lmmse" / "seed-0", models / "at-home")
    path = models / "at-home" / "config.json"
    config = read_json(path)
    config["inputs"]["csi"] = Artifact.open(csi, "csi").fingerprint
    write_json(path, config)
    out = measure_csi(SETTINGS, [csi], models, tmp_path / "out")
    assert ablated(out, "lmmse")[1][:2] == ["at-home", "trained on csi: paths"]
    assert ablated(out, "at-home")[1][:2] == ["lmmse", "trained on csi: other CSI (abc)"]


def test_an_artifact_whose_noise_was_shaped_is_taken_as_it_is(measured: Path, csi: Path, tmp_path: Path) -> None:
    shaped = tmp_path / "shaped"
    shutil.copytree(csi, shaped)
    plan = read_json(shaped / "plan.json")
    write_json(shaped / "plan.json", {**plan, "settings": {**plan["settings"], "feedback_bits": 64}})
    out = measure_csi(SETTINGS, [shaped], measured / "models", tmp_path / "out")
    assert {r["pilot_snr_db"] for r in table_rows(out, "samples")} == {None}
    assert "as stored" in write_output(out)


def write_samples(
    root: Path,
    systems: dict[str, str],
    *,
    scenarios: tuple[str, ...] = ("umi-los",),
    speeds: tuple[float, ...] = (30.0,),
    wideband: bool = False,
) -> Path:
    """Write the samples of a measurement that never was: 12 terminals a scenario and speed, in a sector."""
    draw = np.random.default_rng(0)
    table = []
    for system, snr_db, scenario, speed, i in product(systems, (10.0, 20.0), scenarios, speeds, range(12)):
        nmse = float(draw.exponential(0.1 if system == "cdg" else 0.3))
        angle, radius = 0.1 * i - 0.6, 50.0 + 10 * i
        table.append(
            {
                "system": system, "kind": systems[system], "seed": 0, "artifact": "sector",
                "pilot_snr_db": snr_db, "drop_id": f"{scenario}-{speed}-{i}", "scenario": scenario,
                "speed_kmh": speed, "user": f"user-{i}", "x_m": -radius * np.cos(angle), "y_m": radius * np.sin(angle),
                "nmse": nmse, "nmse_steps": [nmse] * 4, "nmse_link": nmse if wideband else float("nan"),
                "error_power": nmse, "power": 1.0, "subspace": 0.9, "efficiency": 9.0, "efficiency_perfect": 10.0,
            }
        )  # fmt: skip
    root.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(table, schema=SAMPLES), root / "samples.parquet")
    shape = CsiShape(num_history=16, num_future=4, num_rx=24 if wideband else 4, num_tx=32 if wideband else 4,
                     num_subcarriers=24 if wideband else 1)  # fmt: skip
    described = [{"system": name, "kind": kind, "seed": 0, "settings": {}} for name, kind in systems.items()]
    settings = SETTINGS.model_copy(update={"benchmark": "csi-4cast" if wideband else None})
    config = {"settings": settings.fingerprint_fields(), "inputs": {"sector": "x"}, "predictors": described}
    write_json(root / "config.json", {**config, "shapes": {"sector": shape.to_dict()}})
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
    found = [r["nmse"] for r in table_rows(root, "samples", system="cdg")]
    of = {m: np.mean([r["nmse"] for r in table_rows(root, "samples", system="cdg", scenario=s)])
          for m, s in (("A", "cdl-a-30ns"), ("C", "cdl-c-100ns"), ("D", "cdl-d-300ns"))}  # fmt: skip
    assert ours[2:] == [*(f"{of[m]:.3f}" for m in "ACD"), f"{np.mean(found):.3f}"]
    assert ["CSI-4CAST", "published", "0.156", "0.207", "0.022", "0.128"] in lines


def test_the_public_benchmark_refuses_other_channels(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no drop is of the CSI-4CAST protocol"):
        write_output(write_samples(tmp_path / "out", ALL, wideband=True))


def test_the_report_has_a_section_on_it(measured: Path, tmp_path: Path) -> None:
    make_report(ReportSettings(), csi_evaluation=measured / "out", out=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "How well future CSI is predicted" in page
    assert "Ablations of" in page
    assert page.count("<svg") == 2
    with pytest.raises(UserError, match="run sclmkb-eval csi"):
        make_report(ReportSettings(), csi_evaluation=tmp_path, out=tmp_path / "page.html")


def test_checkpoints_of_one_name_but_other_settings_get_names_of_their_own(csi: Path, tmp_path: Path) -> None:
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


def test_bad_input_is_one_line(csi: Path, tmp_path: Path) -> None:
    models, half, used = (tmp_path / name for name in ("models", "half", "used"))

    def refused(message: str, *sources: Path, out: Path = tmp_path / "out") -> None:
        with pytest.raises(UserError, match=message) as caught:
            measure_csi(SETTINGS, sources or [csi], models, out)
        assert "\n" not in str(caught.value)

    models.mkdir()
    refused("no cdg checkpoint below")
    path = save(models / "lmmse", csi) / "config.json"
    config = read_json(path)
    path.unlink()
    refused("is unfinished")
    write_json(path, {**config, "settings": {}})
    refused("was written by another version")
    write_json(path, config)
    refused("no csi artifact at", tmp_path / "nowhere")
    refused("have the same name", csi, csi, csi)
    shutil.copytree(csi, half)
    next((half / "manifests").glob("test-*.json")).unlink()
    refused("not finished|not committed|unfinished", half)
    used.mkdir()
    (used / "thesis.txt").write_text("mine")
    refused("is not empty and holds no config.json", out=used)
    save(models / "other", csi, shape=CsiShape(num_history=16, num_future=4, num_rx=8, num_tx=4))
    refused("was trained with num_rx = 8")


def test_a_short_history_is_refused_by_name(write_path_csi: Callable[..., Path], tmp_path: Path) -> None:
    short = write_path_csi(tmp_path / "short", sizes=(30, 3, 5), num_history=8)
    shape = CsiShape(num_history=8, num_future=4, num_rx=4, num_tx=4)
    save(tmp_path / "models" / "lmmse", short, shape=shape)
    with pytest.raises(UserError, match=r"AR\(8\) needs 12 history samples"):
        measure_csi(SETTINGS, [short], tmp_path / "models", tmp_path / "out")
    fewer = SETTINGS.model_copy(update={"ar_order": 2})
    measure_csi(fewer, [short], tmp_path / "models", tmp_path / "out2")
    assert "AR(2)" in {r["system"] for r in table_rows(tmp_path / "out2", "samples")}


def test_the_command_prints_the_table_and_exits_2_on_bad_input(measured: Path, csi: Path, tmp_path: Path) -> None:
    command = ["sclmkb-eval", "csi", "--preset", "tiny", "--csi", csi, "--out", tmp_path / "out", "--checkpoints"]
    assert "NMSE [dB], paths" in must_run([*command, measured / "models"]).out
    assert "no cdg checkpoint below" in refusal([*command, tmp_path / "none"])
