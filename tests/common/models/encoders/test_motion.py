import torch
from media_encoders import MOTION, batch_for, encoder_for

from sclmkb.common.modalities.base import MediaBatch
from sclmkb.common.models.encoders.base import build_media_encoder
from sclmkb.common.models.encoders.motion import MotionTransformerSettings


def test_a_motion_embeds_alike_in_a_longer_form() -> None:
    """The padding mask is whole: also the transformer's tokens behind the end."""
    encoder, (values, length) = encoder_for(MOTION), batch_for(MOTION)
    short = MediaBatch(values[:1, :12], length[:1])
    torch.testing.assert_close(encoder(short), encoder(MediaBatch(values[:1], length[:1])), atol=1e-5, rtol=0)


def test_the_order_of_frames_matters() -> None:
    encoder, (values, length) = encoder_for(MOTION), batch_for(MOTION)
    whole = MediaBatch(values[-1:], length[-1:])
    assert (encoder(whole) - encoder(MediaBatch(values[-1:].flip(1), length[-1:]))).abs().max() > 1e-3


def test_the_default_motion_transformer_is_small() -> None:
    encoder = build_media_encoder(MotionTransformerSettings(), (80, 66), 128)
    assert 0.3e6 < sum(p.numel() for p in encoder.parameters()) < 1.5e6
