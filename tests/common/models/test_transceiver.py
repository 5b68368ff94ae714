from dataclasses import replace
from pathlib import Path

import pytest
import torch
from media_encoders import AST, AUDIO, MOTION, PICTURE, batch_for, store_of

from sclmkb.common.artifacts.checkpoints import load_checkpoint, save_checkpoint
from sclmkb.common.errors import UserError
from sclmkb.common.link.link import RECEIVERS, Receiver
from sclmkb.common.link.mimo import symbol_mse
from sclmkb.common.link.sources import LinkCsi, LinkState
from sclmkb.common.modalities.store import MediaStore
from sclmkb.common.models.encoders.base import MediaEncoderSettings
from sclmkb.common.models.encoders.image_cnn import CnnSettings
from sclmkb.common.models.encoders.sentence import embed_texts
from sclmkb.common.models.encoders.text import TextSettings
from sclmkb.common.models.encoders.tuned_text import hidden_states
from sclmkb.common.models.transceiver import (
    Transceiver,
    TransceiverSettings,
    build_transceiver,
    embed_captions,
    embed_gallery,
)
from sclmkb.common.seeds import make_generator
from sclmkb.common.tasks.over_link import sweep_queries
from sclmkb.common.tasks.trained import TrainedSystem
from sclmkb.train.engine.checkpoint import trained_tensors

SETTINGS = TransceiverSettings(
    num_streams=2,
    num_uses=4,
    text_width=24,
    hidden_width=32,
    embedding_width=16,
    media=CnnSettings(size=16, widths=(8, 8)),
)
B = 40


def link(snr_db: float, source: str = "perfect") -> LinkState:
    def draw(steps: int, seed: int) -> torch.Tensor:
        return torch.randn(B, steps, 8, 8, dtype=torch.complex64, generator=make_generator("link", seed))

    csi = LinkCsi.build(source, 2, draw(3, 0), draw(2, 1))
    return csi.state(torch.arange(B), torch.ones(B, dtype=torch.long), torch.full((B,), float(snr_db)))


@pytest.fixture
def transceiver() -> Transceiver:
    torch.manual_seed(0)
    return Transceiver(SETTINGS).eval()


@pytest.mark.parametrize("receiver", RECEIVERS)
def test_same_generator_same_result_and_more_snr_less_error(transceiver: Transceiver, receiver: Receiver) -> None:
    text = torch.randn(B, 24)
    one, again = (transceiver(text, link(5), receiver, make_generator(1)) for _ in "ab")
    assert torch.equal(one, again)
    errors = []
    for snr_db in (-10, 5, 20):
        f = transceiver.encode(text, link(snr_db))
        detected = transceiver.convey(f, link(snr_db), receiver, make_generator(1))
        errors.append(symbol_mse(f, detected.symbols).mean())
    assert errors[0] > errors[1] > errors[2]


def test_batches_that_share_a_link_are_encoded_and_decoded_as_if_alone(transceiver: Transceiver) -> None:
    state, text = link(5), torch.randn(2 * B, 24)
    alone = [transceiver.encode(part, state) for part in (text[:B], text[B:])]
    torch.testing.assert_close(transceiver.encode(text, state), torch.cat(alone))
    side_by_side = transceiver.convey(torch.cat(alone, dim=2), state, "literal", make_generator(1))
    m = SETTINGS.num_uses
    parts = [side_by_side._replace(symbols=side_by_side.symbols[:, :, i * m : (i + 1) * m]) for i in (0, 1)]
    apart = torch.cat([transceiver.decode(part, state) for part in parts])
    torch.testing.assert_close(transceiver.decode(side_by_side, state), apart)


@pytest.mark.parametrize("receiver", RECEIVERS)
def test_queries_meet_the_same_channels_and_noise_whatever_the_system(
    transceiver: Transceiver, receiver: Receiver
) -> None:
    def measure(source: str, seed: int, snr_db: float = 20.0) -> tuple[torch.Tensor, torch.Tensor]:
        def draw(steps: int, number: int) -> torch.Tensor:
            return torch.randn(6, steps, 8, 8, dtype=torch.complex64, generator=make_generator("csi", number))

        csi = LinkCsi.build(source, 2, draw(3, 0), draw(2, 1), draw(2, 1))
        text = torch.ones(B, 24)
        (sent,) = sweep_queries(
            transceiver, text, csi, snrs_db=(snr_db,), receivers=(receiver,), steps=(0, 1), seed=seed
        )
        return sent.embeddings, sent.symbol_mse

    perfect, error = measure("perfect", 0)
    torch.testing.assert_close(measure("predicted", 0)[0], perfect)  # predictions that are the truth
    assert not torch.allclose(measure("perfect", 1)[0], perfect)
    assert error.mean() < measure("stale", 0)[1].mean()
    assert error.mean() < measure("perfect", 0, -5.0)[1].mean()


TEXTS = ["a cat", "two red dogs run"]


def gallery_of(media: MediaEncoderSettings) -> MediaStore:
    return store_of(media.form(), *batch_for(media))


def saved(root: Path, settings: TransceiverSettings, text: TextSettings, store: MediaStore) -> Transceiver:
    """Save what a new transceiver would be after a step that changed every trained weight."""
    torch.manual_seed(1)
    model = build_transceiver(settings, text, store.shape)
    model.media.standardise(store)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn_like(parameter))
    values = {"model": settings.model_dump(mode="json"), "text": text.model_dump(mode="json")}
    save_checkpoint(root, kind="jscc", settings=values, tensors=trained_tensors(model))
    return model.eval()


@pytest.mark.parametrize("media", [PICTURE, MOTION, AUDIO, AST], ids=lambda s: s.kind)
def test_a_checkpoint_embeds_media_as_the_model_did(media: MediaEncoderSettings, tmp_path: Path) -> None:
    settings, store = SETTINGS.model_copy(update={"media": media}), gallery_of(media)
    model = saved(tmp_path, settings, TextSettings(), store)
    trained = TrainedSystem.load(tmp_path)
    loaded = trained.model()
    assert trained.settings.text == TextSettings()
    expected = embed_gallery(model, store)
    assert expected.shape == (len(store), settings.embedding_width)
    assert torch.equal(embed_gallery(loaded, store), expected)


@pytest.mark.parametrize("tune", ["frozen", "layers", "lora"])
def test_a_checkpoint_embeds_captions_as_the_model_did(
    tune: str, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCLMKB_CACHE", str(tmp_path / "cache"))
    text = TextSettings.model_validate({"name": str(tiny_bert), "pooling": "cls", "tune": tune, "num_layers": 1})
    model = saved(tmp_path / "run", SETTINGS, text, gallery_of(SETTINGS.media))
    system = TrainedSystem.load(tmp_path / "run")
    loaded = system.model()
    assert system.settings.text == text
    assert loaded.encoder.text.in_features == 32
    expected = embed_captions(model, TEXTS, text)
    assert torch.equal(embed_captions(loaded, TEXTS, text), expected)
    untouched = embed_texts(TEXTS, text)
    assert ((expected - untouched).abs().max() > 1e-3) == (tune != "frozen")
    if loaded.text is not None:
        states = hidden_states(TEXTS, text)
        torch.testing.assert_close(loaded.text(states.take(torch.arange(2))), expected, atol=1e-5, rtol=0)
        trained = [p for p in loaded.text.parameters() if p.requires_grad]
        assert {id(p) for p in loaded.pretrained_parameters()} == {id(p) for p in trained}


def test_media_of_another_shape_are_a_clear_error() -> None:
    model = build_transceiver(SETTINGS.model_copy(update={"media": MOTION}), TextSettings(), (30, 263)).eval()
    with pytest.raises(UserError, match=r"takes motion of shape \[30, 263\], the corpus has \[30, 66\]"):
        embed_gallery(model, gallery_of(MOTION))


def test_a_checkpoint_of_another_version_or_for_other_encoders_is_a_clear_error(tmp_path: Path) -> None:
    saved(tmp_path, SETTINGS, TextSettings(), gallery_of(SETTINGS.media))
    checkpoint = load_checkpoint(tmp_path, "jscc")
    given, model = checkpoint.settings, checkpoint.settings["model"]
    former = {**SETTINGS.model_dump(mode="json", exclude={"media"}), "picture_size": 16, "picture_widths": [8, 8]}
    for settings, message in (
        ({"model": former, "encoder": "minilm"}, "another version: train it again"),
        ({"model": model}, "another version: train it again"),
        ({**given, "model": {**model, "media": {"kind": "motion-transformer"}}}, "holds no encoder of motion"),
        ({**given, "model": {**model, "media": {"kind": "cnn", "size": 16, "widths": [8, 9]}}}, "does not fit"),
    ):
        with pytest.raises(UserError, match=message):
            TrainedSystem.of(replace(checkpoint, settings=settings)).model()
