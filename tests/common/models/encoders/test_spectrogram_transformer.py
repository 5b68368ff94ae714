from pathlib import Path

import torch
from media_encoders import batch_for, encoder_for, store_of

from sclmkb.common.models.encoders.spectrogram_transformer import SpectrogramTransformerSettings


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
