import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.errors import UserError
from sclmkb.train.semantic.fit import train_jscc
from sclmkb.train.semantic.inputs import JsccInputs
from sclmkb.train.semantic.trainer import JsccTraining


def test_every_csi_source_and_receiver_trains_and_validates(make_task: Callable[..., JsccTraining]) -> None:
    for source in ("perfect", "stale", "feedback", "predicted"):
        for receiver in ("literal", "dmrs", "both"):
            job = make_task(csi_source=source, receiver=receiver)
            assert job.train_step(0)["loss"] > 0
            measured = job.validate()
            assert measured["val_map"] == pytest.approx((measured["val_map_same"] + measured["val_map_changed"]) / 2)


def test_captions_go_through_both_receivers_in_turn_and_keep_their_place(
    make_task: Callable[..., JsccTraining], monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, snrs_db = {}, {}
    for receiver in ("literal", "both"):
        made = make_task(fusion="none", receiver=receiver, csi_source="perfect", link={"channel": "none"})
        losses[receiver] = made.train_step(0)["loss"]
        made, through = make_task(fusion="none", receiver=receiver), {}
        convey = made.model.convey

        def spy(f: Any, link: Any, name: str, draw: Any, convey: Any = convey, through: Any = through) -> Any:
            through[name] = link.snr_db.tolist()
            return convey(f, link, name, draw)

        monkeypatch.setattr(made.model, "convey", spy)
        made.train_step(0)
        snrs_db[receiver] = through
    everyone = snrs_db["literal"]["literal"]
    assert snrs_db["both"] == {"literal": everyone[0::2], "dmrs": everyone[1::2]}
    assert losses["both"] == pytest.approx(losses["literal"], rel=1e-4), "without a link they hear the same"


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
        *({"fusion": fusion} for fusion in ("none", "extra_samples", "average", "cdfc", "mixed")),
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


def test_another_test_split_changes_no_weight(
    make_tiny: Callable[[str], Any], jscc_settings: Any, tmp_path: Path, jscc_cache: None
) -> None:
    class Other(type(make_tiny("other"))):  # type: ignore[misc]
        """Other captions, pictures and channels of the test split."""

        def _write(self, name: str, tables: dict[str, Any]) -> None:
            for row in (row for _, rows in tables.values() for row in rows if row["split"] == "test"):
                if "text" in row:
                    row["text"] = row["text"][::-1]
                if "media" in row:
                    row["media"] = {**row["media"], "bytes": tables["items"][1][0]["media"]["bytes"]}
            super()._write(name, tables)

        def _channels(self, split: str, *size: int) -> torch.Tensor:
            found: torch.Tensor = super()._channels(split, *size)
            return found.flip(-1) if split == "test" else found

    weights, chosen = [], jscc_settings(num_steps=3)
    for tiny in (make_tiny("one"), Other(make_tiny("other").root)):
        tiny.write_all()
        given = JsccInputs(corpus=tiny.corpus, csi=tiny.csi, sdg=tiny.sdg, predicted=tiny.predicted)
        weights.append(load_file(train_jscc(chosen, given, tmp_path / f"out-{len(weights)}") / "model.safetensors"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


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
