from pathlib import Path

import torch
from media_encoders import B, D, batch_for, encoder_for

from sclmkb.common.models.encoders.clip import ClipVisionSettings


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
    torch.testing.assert_close(encoder(batch).norm(dim=1), torch.ones(B))
    larger = ClipVisionSettings(model=str(tiny_clip), size=24)
    assert encoder_for(larger)(batch_for(larger)).shape == (B, D)
