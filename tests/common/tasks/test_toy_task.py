"""A task is one file: this one is registered here, trained, measured and drawn without another file being edited."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from sclmkb.common.artifacts.checkpoints import load_checkpoint
from sclmkb.common.errors import UserError
from sclmkb.common.tasks import base
from sclmkb.common.tasks.base import EmbedMedia, Scores, Task, Wanted, register, task_named
from sclmkb.common.tasks.trained import JsccSettings, Trained
from sclmkb.evaluate.measure.retrieval import Measurements, write_tables
from sclmkb.evaluate.measure.run import run_sweep
from sclmkb.evaluate.measure.settings import RunInputs, RunSettings
from sclmkb.evaluate.measure.systems import the_task
from sclmkb.evaluate.report.retrieval import retrieval_sections
from sclmkb.train.semantic.fit import train_jscc
from sclmkb.train.semantic.inputs import JsccInputs


class Regression(nn.Module):
    """One less the cosine with the mean embedding of the media that show what a caption describes."""

    def forward(self, outputs: Tensor, wanted: Wanted) -> Tensor:
        shown = (wanted.identity[:, None] == wanted.media_identity).to(outputs.dtype)
        return 1 - nn.functional.cosine_similarity(outputs, shown @ wanted.media)[shown.any(1)].mean()


class Regress(Task):
    """Give the mean embedding of the media of what a caption describes; measured by the cosine."""

    name = "toy"
    measures = {"cosine": "cosine", "near": "near"}  # noqa: RUF012
    score_columns = {"cos": pa.float64()}  # noqa: RUF012

    def criterion(self, settings: JsccSettings, num_identities: int) -> nn.Module:
        return Regression()

    def target(self, model: Any, split: Any, embed: EmbedMedia = None) -> Tensor:
        shown = split.caption_identity[:, None] == split.media_identity
        return shown.float() @ torch.nn.functional.normalize(torch.rand(len(split.media), 16))

    def score(self, outputs: Tensor, target: Tensor) -> Scores:
        return {"cos": nn.functional.cosine_similarity(outputs, target[:, : outputs.shape[1]]).double().numpy()}

    def values(self, measure: str, scores: Scores) -> np.ndarray:
        return scores["cos"] if measure == "cosine" else (scores["cos"] > 0.5).astype(np.float64)


@pytest.fixture(autouse=True)
def _apart(embedding_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SCLMKB_CACHE", str(embedding_cache))
    monkeypatch.setattr(base, "_TASKS", dict(base._TASKS))
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_a_new_task_is_trained_measured_and_drawn(tiny_artifacts: Any, tmp_path: Path) -> None:
    register(Regress())
    model = {"embedding_width": 16, "hidden_width": 32}
    settings = JsccSettings.resolve(
        presets="sclmkb.train",
        section="jscc",
        preset="tiny",
        options={"task": "toy", "csi_source": "perfect", "with_sdg": False, "num_steps": 4, "num_validations": 1},
        overrides=[f"model.{name}={value}" for name, value in model.items()],
    )
    given = {"corpus": tiny_artifacts.corpus, "csi": tiny_artifacts.csi}
    trained = train_jscc(settings, JsccInputs(**given), tmp_path / "jscc" / "sc-lmkb")
    checkpoint = load_checkpoint(trained, "jscc")
    assert checkpoint.settings["task"] == "toy"
    assert -1 <= checkpoint.info["measured"]["val_cosine"] <= 1
    measured = RunSettings(snrs_db=(0.0, 15.0), receivers=("literal",), threads=1)
    out = run_sweep(measured, RunInputs(checkpoints=tmp_path / "jscc", **given), tmp_path / "eval")
    results, queries = (pq.read_table(out / f"{name}.parquet") for name in ("results", "queries"))
    assert results.column_names[-2:] == ["cosine", "near"]
    assert queries.column_names[-1] == "cos"
    assert not (out / "retrievals.parquet").exists()
    level = Measurements(out).at(15.0).level("sc-lmkb", "literal", "same").mean
    same = results.filter((pa.compute.field("wording") == "same") & (pa.compute.field("snr_db") == 15.0))
    assert level == pytest.approx(same.column("cosine")[0].as_py())
    assert "cosine over SNR, receiver literal" in write_tables(out, 15.0)
    sections = retrieval_sections(Measurements(out), 15.0, "sc-lmkb")
    assert "<svg" in sections["curves"]["figures"][0]
    assert ">cosine</text>" in sections["curves"]["figures"][0]


def test_tasks_are_known_by_their_names_and_not_measured_together(tmp_path: Path) -> None:
    assert task_named("retrieval").selects == "val_map"
    with pytest.raises(UserError, match="no task 'nothing': choose one of retrieval"):
        task_named("nothing")
    both = [Trained(root=tmp_path / name, settings=JsccSettings(task=name)) for name in ("retrieval", "toy")]
    with pytest.raises(UserError, match=r"several tasks cannot be measured together: .*retrieval and .*toy for toy"):
        the_task(both)
    assert the_task(both[:1]) is task_named("retrieval")
