from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from commands import must_run, run_command
from media_corpora import write_pictures, write_questions

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.models.lam.system import MtscModel
from sclmkb.common.tasks.media.data import load_task
from sclmkb.common.tasks.media.trained import TrainedMtsc
from sclmkb.evaluate.multitask.output import read_conditions, values_of
from sclmkb.evaluate.multitask.run import shuffled


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two corpora and one checkpoint of both tasks."""
    root = tmp_path_factory.mktemp("mtsc")
    write_questions(root / "corpora" / "questions"), write_pictures(root / "corpora" / "pictures")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCLMKB_CACHE", str(root / "cache"))
        must_run(["sclmkb-train", "mtsc", "--preset", "tiny", *corpora(root), "--out", root / "mtsc" / "a"])
    return root


@pytest.fixture(autouse=True)
def _own_cache(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCLMKB_CACHE", str(study / "cache"))


def corpora(root: Path) -> list[str | Path]:
    return [word for name in ("questions", "pictures") for word in ("--corpus", root / "corpora" / name)]


def evaluate(study: Path, out: Path, *more: str) -> list[str | Path]:
    return [
        "sclmkb-eval",
        "mtsc",
        "--preset",
        "tiny",
        *corpora(study),
        "--checkpoints",
        study / "mtsc",
        "--out",
        out,
        *more,
    ]


def test_every_sample_is_a_row_from_which_every_figure_follows(study: Path, tmp_path: Path) -> None:
    done = must_run(evaluate(study, tmp_path / "eval"))
    items = pq.read_table(tmp_path / "eval" / "items.parquet").to_pylist()
    own = [row for row in items if row["measure"] == "accuracy" and row["snr_db"] == 12 and row["inputs"] == "own"]
    assert len(own) == 12
    assert {row["uses"] for row in items} == {8, 128}
    mean = sum(row["value"] for row in own) / 12
    conditions = read_conditions(tmp_path / "eval")
    found = {point.snr_db: values_of(c)["mtsc"] for point, c in conditions.items() if point.measure == "accuracy"}
    assert found[12].value.mean == pytest.approx(mean)
    assert f"{mean:.3f}" in done.out
    assert (tmp_path / "eval" / "figures" / "reconstruct-awgn-psnr.png").stat().st_size > 5000


def test_a_variable_rate_is_measured_with_all_that_it_sends(study: Path, tmp_path: Path) -> None:
    train = ["sclmkb-train", "mtsc", "--preset", "tiny", *corpora(study), "--out", tmp_path / "mtsc" / "nested"]
    must_run([*train, "--set", "model.rate=nested"])
    command = evaluate(study, tmp_path / "eval", "--checkpoints", tmp_path / "mtsc", "--set", "inputs=[own]")
    done = must_run([*command, "--set", "rates=[fixed, norm, learned]", "--set", "shares=[0.5]"])
    items = pq.read_table(tmp_path / "eval" / "items.parquet").to_pylist()
    of = {
        rate: [r for r in items if r["rate"] == rate and r["task"] == "answer"] for rate in {r["rate"] for r in items}
    }
    assert set(of) == {"full", "fixed-0.5", "norm-0.5", "learned-0.5"}
    assert {row["uses"] for row in of["full"]} == {8}
    assert {row["uses"] for row in of["fixed-0.5"]} == {4}
    assert len({row["row_id"] for row in of["learned-0.5"]}) == 12
    assert "accuracy over total uses" in done.out
    assert "PSNR [dB] over total uses" in done.out


def test_what_was_measured_is_not_measured_again(study: Path, tmp_path: Path) -> None:
    must_run(evaluate(study, tmp_path / "eval"))
    parts = {path: path.stat().st_mtime_ns for path in (tmp_path / "eval" / "work").rglob("*.parquet")}
    must_run(evaluate(study, tmp_path / "eval", "--set", "snrs_db=[0, 6, 12]"))
    assert all(path.stat().st_mtime_ns == time for path, time in parts.items())
    items = pq.read_table(tmp_path / "eval" / "items.parquet", columns=["snr_db"])
    assert set(items["snr_db"].to_pylist()) == {0, 6, 12}


def test_rows_do_not_depend_on_the_samples_beside_them(study: Path, tmp_path: Path) -> None:
    """Gains and noise belong to a sample, so that all systems meet the same ones."""
    must_run(evaluate(study, tmp_path / "all"))
    must_run(evaluate(study, tmp_path / "some", "--set", "max_samples=6", "--set", "inputs=[own]"))
    found: list[dict[tuple[object, ...], dict[str, object]]] = []
    for name in ("all", "some"):
        rows = pq.read_table(tmp_path / name / "items.parquet").to_pylist()
        found.append({tuple(row[c] for c in ("task", "snr_db", "inputs", "row_id", "measure")): row for row in rows})
    pairs = [(found[0][key], row) for key, row in found[1].items()]
    pictures = [(a["value"], b["value"]) for a, b in pairs if a["task"] == "reconstruct"]
    texts = [a["output"] == b["output"] for a, b in pairs if a["task"] == "answer"]
    assert [a for a, _ in pictures] == pytest.approx([b for _, b in pictures], abs=1e-3)
    assert sum(texts) / len(texts) > 0.8  # rounding differs between batches, and this model is barely trained


def test_the_fusion_center_works_once_for_all_snrs(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused = []
    fuse = MtscModel.fuse
    monkeypatch.setattr(MtscModel, "fuse", lambda self, item: fused.append(len(item.features)) or fuse(self, item))
    must_run(evaluate(study, tmp_path / "eval", "--set", "snrs_db=[-6, 0, 6, 12]", "--set", "baselines=[]"))
    assert sum(fused) == 2 * 12, "12 questions, with their own and with shuffled inputs"


def test_shuffled_inputs_are_always_those_of_another_medium(study: Path) -> None:
    trained = TrainedMtsc.load(study / "mtsc" / "a")
    corpus = Artifact.open(study / "corpora" / "questions", "corpus")
    data = load_task(trained.settings.model, corpus, "answer", "test")
    rows = data.some(12)
    others = shuffled(rows, data, torch.Generator().manual_seed(0))
    assert all(a != b for a, b in zip(data.groups(rows), data.groups(others), strict=True))


def test_the_mimo_link_takes_the_place_of_the_channel(study: Path, tmp_path: Path) -> None:
    """A model is measured over channels that it was not trained on; a use of the link carries several symbols."""
    must_run(["sclmkb-gen", "csi", "--preset", "tiny", "--out", tmp_path / "csi"])
    channels = "[{kind: mimo, csi_source: perfect}, {kind: mimo, csi_source: stale}]"
    less = ["--set", f"channels={channels}", "--set", "snrs_db=[60]", "--set", "inputs=[own]"]
    without = run_command(evaluate(study, tmp_path / "eval", *less))
    assert without.code == 2
    assert "--csi" in without.err
    must_run(evaluate(study, tmp_path / "eval", *less, "--csi", tmp_path / "csi"))
    items = pq.read_table(tmp_path / "eval" / "items.parquet").to_pylist()
    assert {(row["channel"], row["uses"]) for row in items if row["task"] == "answer"} == {
        ("mimo-perfect", 2.0),
        ("mimo-stale", 2.0),
    }


def test_bad_input_is_one_line(study: Path, tmp_path: Path) -> None:
    lost = run_command(["sclmkb-eval", "mtsc", "--checkpoints", tmp_path, "--out", tmp_path / "eval", *corpora(study)])
    assert lost.code == 2
    assert "no mtsc checkpoint" in lost.err
    pictures = study / "corpora" / "pictures"
    less = run_command(
        [
            "sclmkb-eval",
            "mtsc",
            "--preset",
            "tiny",
            "--checkpoints",
            study / "mtsc",
            "--corpus",
            pictures,
            "--out",
            tmp_path / "eval",
        ]
    )
    assert less.code == 2
    assert "answer" in less.err
    assert not (tmp_path / "eval" / "items.parquet").exists()
