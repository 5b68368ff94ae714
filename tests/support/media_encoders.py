"""Small media encoders with random weights, and items for them."""

from typing import Any

import torch
from torch import Tensor

from sclmkb.common.modalities.base import MediaBatch
from sclmkb.common.modalities.store import MediaStore
from sclmkb.common.models.encoders.audio_cnn import AudioCnnSettings
from sclmkb.common.models.encoders.base import MediaEncoder, MediaEncoderSettings, build_media_encoder
from sclmkb.common.models.encoders.image_cnn import CnnSettings
from sclmkb.common.models.encoders.motion import MotionTransformerSettings
from sclmkb.common.models.encoders.spectrogram_transformer import SpectrogramTransformerSettings
from sclmkb.common.models.encoders.video_cnn import VideoCnnSettings

B, D = 5, 20
MOTION = MotionTransformerSettings(num_frames=30, width=16, num_layers=2, num_heads=2)
AUDIO = AudioCnnSettings(seconds=0.5, num_mels=16, widths=(8, 16))
AST = SpectrogramTransformerSettings(seconds=0.5, num_mels=16, width=16, num_heads=2, patch_size=8)
PICTURE = CnnSettings(size=16, widths=(8, 16))
VIDEO = VideoCnnSettings(num_frames=4, size=16, widths=(8, 16))


def batch_for(settings: MediaEncoderSettings) -> MediaBatch:
    """Return random items; the first is short, the last one whole."""
    form, generator = settings.form(), torch.Generator().manual_seed(0)
    shape = form.complete((0, 66))
    if form.dtype == "uint8":
        pictures = torch.randint(0, 256, (B, *shape), dtype=torch.uint8, generator=generator)
        length = torch.ones(B, dtype=torch.long)
        return MediaBatch(pictures, torch.linspace(2, shape[0], B).long() if form.kind == "video" else length)
    length = torch.linspace(3, shape[0], B).long()
    values = torch.randn(B, *shape, generator=generator)
    return MediaBatch(values * (torch.arange(shape[0]) < length[:, None])[:, :, None], length)


def encoder_for(settings: MediaEncoderSettings) -> MediaEncoder:
    torch.manual_seed(0)
    return build_media_encoder(settings, tuple(batch_for(settings).values.shape[1:]), D).eval()


def store_of(form: Any, values: Tensor, length: Tensor) -> MediaStore:
    return MediaStore(form, [str(i) for i in range(len(values))], values.numpy(), length.tolist())
