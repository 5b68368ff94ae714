"""What every media encoder keeps to."""

from pathlib import Path
from typing import Any

import pytest
import torch
from media_encoders import AST, AUDIO, MOTION, PICTURE, VIDEO, B, D, batch_for, encoder_for, store_of
from pydantic import TypeAdapter, ValidationError

from sclmkb.common.errors import UserError
from sclmkb.common.modalities.base import MediaBatch
from sclmkb.common.models.encoders.base import (
    AnyMediaEncoderSettings,
    MediaEncoderSettings,
    build_media_encoder,
    media_fingerprint,
)
from sclmkb.common.models.encoders.clip import ClipVisionSettings
from sclmkb.common.models.encoders.image_cnn import CnnSettings
from sclmkb.common.models.encoders.motion import MotionTransformerSettings
from sclmkb.common.models.encoders.spectrogram_transformer import SpectrogramTransformerSettings
from sclmkb.train.engine.checkpoint import trained_tensors


@pytest.mark.parametrize("settings", [PICTURE, MOTION, AUDIO, AST, VIDEO], ids=lambda s: s.kind)
def test_embeddings_have_unit_length_and_tell_items_apart(settings: MediaEncoderSettings) -> None:
    encoder, batch = encoder_for(settings), batch_for(settings)
    v = encoder(batch)
    assert v.shape == (B, D)
    torch.testing.assert_close(v.norm(dim=1), torch.ones(B))
    assert (v @ v.T)[0, 1:].max() < 1 - 1e-4
    order = torch.tensor([3, 1, 4])
    torch.testing.assert_close(encoder(MediaBatch(*(t[order] for t in batch))), v[order], atol=1e-4, rtol=0)


@pytest.mark.parametrize("settings", [MOTION, AUDIO, AST, VIDEO], ids=lambda s: s.kind)
def test_what_stands_behind_an_items_end_changes_nothing(settings: MediaEncoderSettings) -> None:
    encoder, batch = encoder_for(settings), batch_for(settings)
    behind = torch.arange(batch.values.shape[1]) >= batch.length[:, None]
    behind = behind.reshape(*behind.shape, *[1] * (batch.values.ndim - 2))
    spoiled = torch.where(behind, torch.tensor(99, dtype=batch.values.dtype), batch.values)
    torch.testing.assert_close(encoder(batch._replace(values=spoiled)), encoder(batch), atol=1e-5, rtol=0)
    values = batch.values.clone()
    values[0, 1] += 1  # a real frame
    assert (encoder(batch._replace(values=values)) - encoder(batch))[0].abs().max() > 1e-4


@pytest.mark.parametrize("settings", [PICTURE, MOTION, AUDIO, AST, VIDEO], ids=lambda s: s.kind)
def test_it_learns_a_few_items_by_heart(settings: MediaEncoderSettings) -> None:
    encoder, batch = encoder_for(settings).train(), batch_for(settings)
    target = torch.nn.functional.normalize(torch.randn(B, D), dim=1)
    optimizer = torch.optim.Adam(encoder.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = 1 - (encoder(batch) * target).sum(1).mean()
        loss.backward()
        optimizer.step()
    assert loss < 0.3


@pytest.mark.parametrize("tune", ["frozen", "layers", "lora"])
@pytest.mark.parametrize("family", ["clip", "ast"])
def test_only_what_is_tuned_of_a_pretrained_encoder_is_trained_and_kept(
    family: str, tune: str, request: pytest.FixtureRequest
) -> None:
    folder = str(request.getfixturevalue(f"tiny_{family}"))
    shape = {"size": 16} if family == "clip" else {"num_mels": 16, "seconds": 0.655}
    kind = "clip-vision" if family == "clip" else "spectrogram-transformer"
    settings: MediaEncoderSettings = TypeAdapter(AnyMediaEncoderSettings).validate_python(
        {"kind": kind, "model": folder, "tune": tune, "num_layers": 1, "lora_rank": 2, **shape}
    )
    encoder, batch = encoder_for(settings).train(), batch_for(settings)
    model: Any = encoder.model
    assert not model.training
    (encoder(batch) * torch.randn(B, D)).sum().backward()
    pretrained = encoder.pretrained_parameters()
    assert bool(pretrained) == (tune != "frozen")
    kept = {name for name in trained_tensors(encoder) if name.startswith("model.") and "position_ids" not in name}
    assert bool(kept) == (tune != "frozen")
    assert all("lora_" in name for name in kept) == (tune != "layers")
    assert not any(".layers.0." in name or ".layer.0." in name for name in kept)
    gradients = [name for name, p in encoder.named_parameters() if p.grad is not None]
    assert {"head.weight", "head.bias"} <= set(gradients)
    assert {name for name in gradients if name.startswith("model.")} == kept


def test_clip_vision_is_that_of_the_library(tiny_clip: Path) -> None:
    from PIL import Image
    from transformers import AutoImageProcessor, CLIPModel

    settings = ClipVisionSettings(model=str(tiny_clip), size=16)
    encoder, batch = encoder_for(settings), batch_for(settings)
    with torch.no_grad():
        features = encoder.features(batch)
        pictures = [Image.fromarray(p.permute(1, 2, 0).numpy()) for p in batch.values]
        pixels = AutoImageProcessor.from_pretrained(tiny_clip, use_fast=False)(pictures, return_tensors="pt")
        model = CLIPModel.from_pretrained(tiny_clip).eval()
        expected = model.visual_projection(model.vision_model(pixels["pixel_values"]).pooler_output)
    torch.testing.assert_close(features, expected, atol=1e-4, rtol=1e-4)
    larger = ClipVisionSettings(model=str(tiny_clip), size=24)
    assert encoder_for(larger)(batch_for(larger)).shape == (B, D)


def test_a_pretrained_ast_is_that_of_the_library(tiny_ast: Path) -> None:
    from transformers import ASTModel

    settings = SpectrogramTransformerSettings(model=str(tiny_ast), num_mels=16, seconds=0.655)
    assert settings.form().num_frames == 64
    encoder, batch = encoder_for(settings), batch_for(settings)
    encoder.standardise(store_of(settings.form(), batch.values, batch.length))
    with torch.no_grad():
        features = encoder.features(batch)
        last = batch.values[-1:]  # the one that is whole
        mean, deviation = encoder.get_buffer("scale.mean"), encoder.get_buffer("scale.deviation")
        expected = ASTModel.from_pretrained(tiny_ast).eval()((last - mean) / (2 * deviation)).pooler_output
    torch.testing.assert_close(features[-1:], expected, atol=1e-4, rtol=1e-4)


def test_a_motion_embeds_alike_in_a_longer_form_and_its_order_of_frames_matters() -> None:
    """The padding mask is whole: also the transformer's tokens behind the end."""
    encoder, (values, length) = encoder_for(MOTION), batch_for(MOTION)
    short = MediaBatch(values[:1, :12], length[:1])
    torch.testing.assert_close(encoder(short), encoder(MediaBatch(values[:1], length[:1])), atol=1e-5, rtol=0)
    backwards = MediaBatch(values[-1:].flip(1), length[-1:])
    assert (encoder(MediaBatch(values[-1:], length[-1:])) - encoder(backwards)).abs().max() > 1e-3


def test_the_default_motion_transformer_is_small() -> None:
    encoder = build_media_encoder(MotionTransformerSettings(), (80, 66), 128)
    assert 0.3e6 < sum(p.numel() for p in encoder.parameters()) < 1.5e6


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "clip-vision"}, "model"),
        ({"kind": "motion-transformer", "width": 10, "num_heads": 4}, "num_heads = 4 does not divide width = 10"),
        ({"kind": "spectrogram-transformer", "num_mels": 8}, "patch_size = 16"),
        ({"kind": "dog"}, "dog"),
        ({"widths": []}, "widths"),
    ],
)
def test_bad_settings_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(AnyMediaEncoderSettings).validate_python(values)


def test_the_kind_is_cnn_where_nothing_is_said() -> None:
    assert TypeAdapter(AnyMediaEncoderSettings).validate_python({"size": 16}) == CnnSettings(size=16)


def test_a_model_of_another_kind_is_a_clear_error(tiny_bert: Path, tiny_ast: Path) -> None:
    for settings, message in (
        (ClipVisionSettings(model=str(tiny_bert)), "is of the kind bert, not clip"),
        (ClipVisionSettings(model="/nowhere/at/all"), "is no readable folder"),
        (SpectrogramTransformerSettings(model=str(tiny_ast)), "takes 16 mel bands, not 128"),
    ):
        with pytest.raises(UserError, match=message):
            build_media_encoder(settings, (64, 16), D)


def test_fingerprints_are_those_of_the_files(tiny_clip: Path, tiny_ast: Path) -> None:
    assert media_fingerprint(PICTURE) == media_fingerprint(AST) == ""
    clip = media_fingerprint(ClipVisionSettings(model=str(tiny_clip)))
    assert clip != media_fingerprint(SpectrogramTransformerSettings(model=str(tiny_ast)))
    assert len(clip) == 16
