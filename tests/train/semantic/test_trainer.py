import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.errors import UserError
from sclmkb.train.semantic.fit import train_jscc
from sclmkb.train.semantic.inputs import JsccInputs
from sclmkb.train.semantic.trainer import JsccTraining


@pytest.mark.parametrize("fusion", ["none", "extra_samples", "average", "cdfc", "mixed"])
def test_training_lowers_the_loss(make_task: Callable[..., JsccTraining], fusion: str) -> None:
    job = make_task(fusion=fusion, num_steps=40, learning_rate=0.01)
    losses = [job.train_step(step)["loss"] for step in range(40)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_every_csi_source_and_receiver_trains_and_validates(make_task: Callable[..., JsccTraining]) -> None:
    for source in ("perfect", "stale", "feedback", "predicted"):
        for receiver in ("literal", "dmrs", "both"):
            job = make_task(csi_source=source, receiver=receiver)
            assert job.train_step(0)["loss"] > 0
            measured = job.validate()
            assert measured["val_map"] == pytest.approx((measured["val_map_same"] + measured["val_map_changed"]) / 2)


def test_captions_with_a_picture_go_through_both_receivers_and_keep_their_place(
    make_task: Callable[..., JsccTraining], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_task(fusion="none")
    through: dict[str, list[float]] = {}
    texts = []

    def convey(f: torch.Tensor, link: Any, receiver: str, draw: Any) -> torch.Tensor:
        through[receiver] = link.snr_db.tolist()
        return f

    def decode(detected: torch.Tensor, link: Any) -> torch.Tensor:
        return link.snr_db[:, None].expand(-1, made.settings.model.embedding_width)

    def loss(text: torch.Tensor, media: torch.Tensor, *rest: Any) -> torch.Tensor:
        texts.append(text)
        return media.sum()

    monkeypatch.setattr(made.model, "convey", convey)
    monkeypatch.setattr(made.model, "decode", decode)
    monkeypatch.setattr("sclmkb.common.tasks.retrieval.contrastive_loss", loss)
    made.train_step(0)
    (text,) = texts
    pictured = set(text[: made.settings.media_per_step, 0].tolist())
    assert pictured & set(through["literal"])
    assert pictured & set(through["dmrs"])
    assert [text[0::2, 0].tolist(), text[1::2, 0].tolist()] == [through["literal"], through["dmrs"]]


def test_reduced_precision_is_of_the_networks_alone(
    make_task: Callable[..., JsccTraining], monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        made = make_task(precision=precision)
        convey, sent = made.model.convey, []

        def spy(f: torch.Tensor, *rest: Any, convey: Any = convey, sent: Any = sent) -> Any:
            assert not torch.is_autocast_enabled("cpu")
            detected = convey(f, *rest)
            sent.extend([f.dtype, detected.symbols.dtype])
            return detected

        monkeypatch.setattr(made.model, "convey", spy)
        losses[precision] = made.train_step(0)["loss"]
        assert sent
        assert set(sent) == {torch.complex64}
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)


@pytest.mark.parametrize(("found", "fast"), [({"avx512_bf16": True}, True), ({"avx512_f": True}, False), ({}, False)])
def test_precision_auto_asks_the_processor(
    make_task: Callable[..., JsccTraining], monkeypatch: pytest.MonkeyPatch, found: dict[str, bool], fast: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    loss, reduced = (make_task(precision=p).train_step(0)["loss"] for p in ("auto", "bfloat16"))
    assert (loss == reduced) is fast


def test_without_generated_captions_fusion_changes_nothing(make_task: Callable[..., JsccTraining]) -> None:
    plain = make_task(with_sdg=False, fusion="none").train_step(0)
    for fusion in ("cdfc", "mixed", "average", "extra_samples"):
        assert make_task(with_sdg=False, fusion=fusion).train_step(0) == plain


def test_cdfc_weights_differ_from_a_half_unless_signed(make_task: Callable[..., JsccTraining]) -> None:
    spread = {
        importance: make_task(fusion="cdfc", importance=importance).train_step(0)["weight_spread"]
        for importance in ("signed", "abs", "grad_times_input")
    }
    assert spread["signed"] < 0.01 < 0.05 < min(spread["abs"], spread["grad_times_input"])


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "sdm", "temperature": 0.05},
        {"identity_weight": 0.5},
        {"hard_negatives": 0.3},
        {"captions_per_identity": 2},
        {"generated_per_caption": 2, "fusion": "mixed"},
        {"captions": "all", "fusion": "average"},
        {"accumulate": 3},
        {"text": {"tune": "layers", "num_layers": 1}},
        {"csi_source": "perfect", "link": {"channel": "awgn"}},
        {"csi_source": "perfect", "link": {"channel": "none"}},
        {"link": {"power": "water_filling"}},
    ],
)
def test_options_train(make_task: Callable[..., JsccTraining], options: dict[str, Any]) -> None:
    job = make_task(**options, num_steps=30, learning_rate=0.01)
    losses = [job.train_step(step)["loss"] for step in range(30)]
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])
    assert 0 < job.validate()["val_map"] <= 1


def test_only_training_and_validation_rows_are_read(
    make_task: Callable[..., JsccTraining], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the test split, training asks for ids alone, to see that it shares none."""
    table, read = Artifact.table, []

    def spy(self: Artifact, name: str, split: str | None = None, columns: Any = None) -> Any:
        read.append((name, split, tuple(columns or ("everything",))))
        return table(self, name, split, columns)

    monkeypatch.setattr(Artifact, "table", spy)
    job = make_task()
    assert {entry for entry in read if entry[1] == "test"} == {
        ("captions", "test", ("row_id",)), ("items", "test", ("item_id",)),
    }  # fmt: skip
    assert {entry[1] for entry in read if entry[0] in ("captions", "items")} == {"train", "val", "test"}
    assert job.data.split.split == "train"
    assert all(name.startswith("train-") for name in job.data.split.item_ids)


def test_another_test_split_changes_no_weight(
    make_tiny: Callable[[str], Any], jscc_settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCLMKB_CACHE", str(tmp_path / "cache"))
    chosen = jscc_settings(num_steps=3)
    weights = []
    for name in ("one", "other"):
        tiny = make_tiny(name)
        if name == "other":  # other pictures, captions and channels of the same number
            monkeypatch.setattr("numpy.random.default_rng", _different_in_test(np.random.default_rng))
            monkeypatch.setattr(type(tiny), "_channels", _channels_different_in_test(type(tiny)._channels))
        tiny.write_all()
        given = JsccInputs(corpus=tiny.corpus, csi=tiny.csi, sdg=tiny.sdg, predicted=tiny.predicted)
        weights.append(load_file(train_jscc(chosen, given, tmp_path / f"out-{name}") / "model.safetensors"))
    tables = [Artifact.open(make_tiny(name).corpus, "corpus") for name in ("one", "other")]
    assert tables[0].table("captions", "train").equals(tables[1].table("captions", "train"))
    assert not tables[0].table("captions", "test").equals(tables[1].table("captions", "test"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def _different_in_test(make: Any) -> Any:
    class Draws:
        """As the writer of the tiny corpus draws: split by split, ten identities of a colour and three pictures."""

        def __init__(self, seed: int) -> None:
            self.draw, self.other, self.count = make(seed), make(99), 0

        def integers(self, *size: Any) -> Any:
            self.count += 1
            return (self.draw if self.count <= 2 * 10 * 4 else self.other).integers(*size)

    return Draws


def _channels_different_in_test(channels: Any) -> Any:
    def make(self: Any, split: str, *size: int) -> torch.Tensor:
        found: torch.Tensor = channels(self, split, *size)
        return found.flip(-1) if split == "test" else found

    return make


def test_a_row_in_two_splits_is_refused(
    make_task: Callable[..., JsccTraining], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Artifact.table

    def leak(self: Artifact, name: str, split: str | None = None, columns: Any = None) -> Any:
        return table(self, name, "train" if split == "test" else split, columns)

    monkeypatch.setattr(Artifact, "table", leak)
    with pytest.raises(UserError, match="10 captions in splits 'train' and 'test'"):
        make_task()


def test_training_stops_early_without_a_better_validation(
    jscc_cache: None, jscc_settings: Any, jscc_inputs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([0.3, 0.5, 0.4, 0.5, 0.6, 0.7])
    monkeypatch.setattr(JsccTraining, "validate", lambda self: {"val_map": next(found)})
    chosen = jscc_settings(num_steps=12, num_validations=6, patience=2)
    out = train_jscc(chosen, jscc_inputs(chosen), tmp_path / "out")
    saved = json.loads((out / "config.json").read_text())
    assert saved["measured"].pop("seconds") > 0
    assert saved["measured"] == {"val_map": 0.5, "step": 8}
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 10, "after two validations that were not better"


def test_a_loss_that_is_no_number_ends_the_run_with_one_line(
    make_task: Callable[..., JsccTraining], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_task(fusion="none")
    with torch.no_grad():
        made.model.decoder.embedding.bias.fill_(torch.nan)
    with pytest.raises(UserError, match="the loss is nan at step 3"):
        made.train_step(3)
