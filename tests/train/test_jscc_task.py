from collections.abc import Callable
from typing import Any

import pytest
import torch

from sclmkb.train.jscc_task import JsccTask


@pytest.mark.parametrize("fusion", ["none", "extra_samples", "average", "cdfc", "mixed"])
def test_training_lowers_the_loss(make_task: Callable[..., JsccTask], fusion: str) -> None:
    job = make_task(fusion=fusion, num_steps=40, learning_rate=0.01)
    losses = [job.train_step(step)["loss"] for step in range(40)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_every_csi_source_and_receiver_trains_and_validates(make_task: Callable[..., JsccTask]) -> None:
    for source in ("perfect", "stale", "feedback", "predicted"):
        for receiver in ("literal", "dmrs", "both"):
            job = make_task(csi_source=source, receiver=receiver)
            assert job.train_step(0)["loss"] > 0
            measured = job.validate()
            assert measured["val_map"] == pytest.approx((measured["val_map_same"] + measured["val_map_changed"]) / 2)


def test_captions_with_a_picture_go_through_both_receivers_and_keep_their_place(
    make_task: Callable[..., JsccTask], monkeypatch: pytest.MonkeyPatch
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
    monkeypatch.setattr("sclmkb.train.objective.contrastive_loss", loss)
    made.train_step(0)
    (text,) = texts
    pictured = set(text[: made.settings.media_per_step, 0].tolist())
    assert pictured & set(through["literal"])
    assert pictured & set(through["dmrs"])
    assert [text[0::2, 0].tolist(), text[1::2, 0].tolist()] == [through["literal"], through["dmrs"]]


def test_reduced_precision_is_of_the_networks_alone(
    make_task: Callable[..., JsccTask], monkeypatch: pytest.MonkeyPatch
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
    make_task: Callable[..., JsccTask], monkeypatch: pytest.MonkeyPatch, found: dict[str, bool], fast: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    loss, reduced = (make_task(precision=p).train_step(0)["loss"] for p in ("auto", "bfloat16"))
    assert (loss == reduced) is fast


def test_without_generated_captions_fusion_changes_nothing(make_task: Callable[..., JsccTask]) -> None:
    plain = make_task(with_sdg=False, fusion="none").train_step(0)
    for fusion in ("cdfc", "mixed", "average", "extra_samples"):
        assert make_task(with_sdg=False, fusion=fusion).train_step(0) == plain


def test_cdfc_weights_differ_from_a_half_unless_signed(make_task: Callable[..., JsccTask]) -> None:
    spread = {
        importance: make_task(fusion="cdfc", importance=importance).train_step(0)["weight_spread"]
        for importance in ("signed", "abs", "grad_times_input")
    }
    assert spread["signed"] < 0.01 < 0.05 < min(spread["abs"], spread["grad_times_input"])
