import io
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from commands import must_run, run_command
from media_corpora import write_pictures, write_questions
from PIL import Image

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.link.uses import UsesChannelSettings
from sclmkb.common.models.lam.settings import MtscModelSettings
from sclmkb.common.tasks.media.data import load_task
from sclmkb.common.tasks.media.quality import psnr_db
from sclmkb.common.tasks.media.trained import TrainedMtsc
from sclmkb.evaluate.multitask.baselines import digital
from sclmkb.evaluate.multitask.baselines.base import Baseline, BaselineSetup, runs_of
from sclmkb.evaluate.multitask.baselines.known import BASELINES
from sclmkb.evaluate.separate.media.blocks import DigitalChannelSettings
from sclmkb.evaluate.separate.media.pictures import DigitalSettings

Rows = list[dict[str, object]]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two corpora, a checkpoint of both tasks, and a measurement with all digital baselines."""
    pytest.importorskip("sionna.phy")
    root = tmp_path_factory.mktemp("mtsc")
    write_questions(root / "corpora" / "questions"), write_pictures(root / "corpora" / "pictures")
    corpora = [word for name in ("questions", "pictures") for word in ("--corpus", root / "corpora" / name)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCLMKB_CACHE", str(root / "cache"))
        few = {"schemes": [{"qam": 16, "rate": 0.75}], "num_words": 10}
        patch.setattr(digital, "DigitalSettings", partial(DigitalSettings, codecs=("webp",), **few))
        patch.setattr(digital, "DigitalChannelSettings", partial(DigitalChannelSettings, schemes=few["schemes"]))
        sizes = ["model.answer_uses=32", "model.reconstruct_uses=512", "answer.batch_size=32", "num_steps=80"]
        more = [word for one in [*sizes, "min_snr_db=5", "learning_rate=0.005"] for word in ("--set", one)]
        must_run(["sclmkb-train", "mtsc", "--preset", "tiny", *corpora, *more, "--out", root / "mtsc" / "a"])
        names = ",".join(dict.fromkeys(one.name for one in BASELINES if one.name.startswith("digital")))
        must_run([*evaluate(root), "--set", f"baselines=[{names}]", "--set", "snrs_db=[-15, 30]"])
    return root


def evaluate(root: Path) -> list[str | Path]:
    corpora = [word for name in ("questions", "pictures") for word in ("--corpus", root / "corpora" / name)]
    folders = ["--checkpoints", root / "mtsc", "--out", root / "eval"]
    return ["sclmkb-eval", "mtsc", "--preset", "tiny", *corpora, *folders]


@pytest.fixture
def items(study: Path) -> Rows:
    return pq.read_table(study / "eval" / "items.parquet").to_pylist()


def value(items: Rows, system: str, measure: str, snr_db: float) -> float:
    chosen = [r["value"] for r in items if (r["system"], r["measure"], r["snr_db"]) == (system, measure, snr_db)]
    assert len(chosen) == 12
    return float(np.mean(chosen))


def test_the_baselines_send_the_same_samples_in_the_same_uses(items: Rows) -> None:
    own = {(r["task"], r["row_id"], r["uses"]) for r in items if r["system"] == "mtsc"}
    assert {uses for _, _, uses in own} == {32, 512}
    for system in ("digital", "digital-text", "digital-packed", "digital-bare"):
        of = {(r["task"], r["row_id"], r["uses"]) for r in items if r["system"] == system}
        assert of <= own
        assert len(of) in (12, 24)


def test_pictures_fail_in_a_bad_channel_and_arrive_in_a_good_one(items: Rows) -> None:
    for system in ("digital", "digital-bare", "digital-packed"):
        assert value(items, system, "psnr", 30.0) > value(items, system, "psnr", -15.0) + 5


def test_a_text_that_does_not_arrive_is_empty_and_wrong(items: Rows) -> None:
    of = [r for r in items if r["system"] == "digital-text" and r["measure"] == "accuracy"]
    assert all(r["output"] == "" and r["value"] == 0 for r in of if r["snr_db"] == -15)
    assert value(items, "digital-text", "accuracy", 30.0) > 0.3


def test_a_question_about_a_lost_picture_has_one_answer(items: Rows) -> None:
    """The receiver's model sees the same blank medium whatever the picture was."""
    of = [r for r in items if r["system"] == "digital" and r["measure"] == "accuracy" and r["snr_db"] == -15]
    assert len(of) == 12
    assert len({r["output"] for r in of}) <= 2


def test_kept_pictures_are_those_that_were_measured(study: Path, items: Rows) -> None:
    corpus = Artifact.open(study / "corpora" / "pictures", "corpus")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCLMKB_CACHE", str(study / "cache"))
        data = load_task(TrainedMtsc.load(study / "mtsc" / "a").settings.model, corpus, "reconstruct", "test")
    true = dict(zip(data.row_ids(torch.arange(12)), data.references(torch.arange(12)), strict=True))
    kept = [r for r in items if r["picture"] is not None]
    assert {r["system"] for r in kept} == {"mtsc", "digital", "digital-bare", "digital-packed"}
    for row in kept:
        shown = torch.from_numpy(np.array(Image.open(io.BytesIO(row["picture"])))).permute(2, 0, 1)
        assert float(psnr_db(shown[None], true[row["row_id"]][None])) == pytest.approx(row["value"], abs=1e-4)


def test_what_was_measured_is_not_measured_again(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCLMKB_CACHE", str(study / "cache"))
    before = {path: path.stat().st_mtime_ns for path in (study / "eval" / "work").rglob("*.parquet")}
    must_run([*evaluate(study), "--set", "baselines=[digital-text]", "--set", "snrs_db=[30]"])
    after = {path: path.stat().st_mtime_ns for path in (study / "eval" / "work").rglob("*.parquet")}
    assert after
    assert after.items() <= before.items()
    assert set(pq.read_table(study / "eval" / "items.parquet")["system"].to_pylist()) == {"mtsc", "digital-text"}


def test_baselines_alone_are_the_rows_that_they_are_beside_the_checkpoints(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCLMKB_CACHE", str(study / "cache"))
    rows = {}
    for trained in ("true", "false"):
        out = tmp_path / trained
        must_run([*evaluate(study)[:-1], out, "--set", "baselines=[majority]", "--set", f"trained={trained}"])
        rows[trained] = pq.read_table(out / "items.parquet").to_pylist()
    assert {row["system"] for row in rows["true"]} == {"mtsc", "majority"}
    assert rows["false"]
    assert rows["false"] == [row for row in rows["true"] if row["system"] == "majority"]


def test_bad_input_is_one_line(study: Path) -> None:
    none = run_command([*evaluate(study), "--set", "baselines=[]", "--set", "trained=false"])
    assert none.code == 2
    assert "nothing is measured" in none.err
    done = run_command([*evaluate(study), "--set", "baselines=[telepathy]"])
    assert done.code == 2
    assert "telepathy" in done.err
    assert "digital-text" in done.err


def never(setup: BaselineSetup) -> object:
    raise AssertionError


def checkpoint(system: str, seed: int, uses: int) -> object:
    sizes = MtscModelSettings(reconstruct_uses=uses)
    return SimpleNamespace(settings=SimpleNamespace(system=system, seed=seed, tasks=("reconstruct",), model=sizes))


def test_a_baseline_stands_beside_each_number_of_uses_or_each_seed_of_the_model() -> None:
    plain = Baseline(name="plain", tasks=("reconstruct",), prepare=never)
    model = Baseline(name="model", tasks=("reconstruct",), prepare=never, uses_model=True)
    there = [checkpoint("other", 0, 256), checkpoint("mtsc", 0, 512), checkpoint("mtsc", 1, 512)]
    found = runs_of([plain, model], ["reconstruct"], there, "mtsc")
    assert [(run.system, run.seed) for run in found] == [("plain-256", 0), ("plain-512", 0), ("model", 0), ("model", 1)]
    found = runs_of([plain, model], ["reconstruct"], there[1:], "absent")
    assert [(run.system, run.seed) for run in found] == [("plain", 0), ("model", 0), ("model", 1)]
    assert UsesChannelSettings().kind in plain.channels
