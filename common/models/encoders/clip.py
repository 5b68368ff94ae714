"""CLIP's vision transformer, pre-trained, from a folder or the hub."""

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from sclmkb.common.modalities.base import MediaBatch
from sclmkb.common.modalities.image import PictureForm
from sclmkb.common.models.encoders.base import (
    ENCODERS,
    MediaEncoder,
    MediaEncoderSettings,
    load_media_model,
    read_media_config,
    read_preprocessor,
)
from sclmkb.common.models.encoders.tuning import Tune, transformer_layers, tune_layers


class ClipVisionSettings(MediaEncoderSettings):
    """CLIP's vision transformer, pre-trained."""

    kind: Literal["clip-vision"] = Field(default="clip-vision", description="the encoder: clip-vision")
    model: str = Field(description="a folder or a hub name, e.g. openai/clip-vit-base-patch32")
    size: PositiveInt = Field(
        default=224,
        description="height and width at which pictures are stored, in pixels; the model scales them to its own size",
    )
    tune: Tune = Field(
        default="frozen",
        description="which weights are trained: frozen (none), the last layers, or LoRA adapters in the last layers",
    )
    num_layers: PositiveInt = Field(default=2, description="number of last layers that are tuned")
    lora_rank: PositiveInt = Field(default=8, description="rank of the LoRA adapters")

    def form(self) -> PictureForm:
        """Return what pictures must look like."""
        return PictureForm(size=self.size)


@ENCODERS.register(ClipVisionSettings)
class ClipVisionEncoder(MediaEncoder):
    """CLIP's vision transformer: its projected class token, then a linear map of our own.

    ::

        uint8 [B, 3, S, S] ─► scale to the model's side ─► its mean and deviation ─► ViT ─► its projection
            ─► linear [B, d] ─► x / ‖x‖

    Source: Radford et al., Learning transferable visual models from natural language supervision, 2021.
    """

    is_pretrained = True
    mean: Tensor
    deviation: Tensor

    def __init__(self, settings: ClipVisionSettings, shape: Sequence[int], embedding_width: int) -> None:
        from transformers import CLIPVisionModelWithProjection

        resolved, config = read_media_config(settings.model, "clip")
        if (half := getattr(config, "vision_config", None)) is not None:
            half.projection_dim = config.projection_dim  # CLIP's two halves share it
            config = half
        super().__init__(int(config.projection_dim), embedding_width)
        self.side = int(config.image_size)
        notes = read_preprocessor(settings.model, resolved)
        for name, key, default in (
            ("mean", "image_mean", (0.48145466, 0.4578275, 0.40821073)),
            ("deviation", "image_std", (0.26862954, 0.26130258, 0.27577711)),
        ):
            self.register_buffer(name, torch.tensor(notes.get(key, default))[:, None, None], persistent=False)
        self.model = load_media_model(CLIPVisionModelWithProjection, settings.model, resolved, config)
        layers = transformer_layers(self.model, settings.model, settings.num_layers if settings.tune != "frozen" else 0)
        inner = cast(Any, self.model)
        after = [getattr(inner, "vision_model", inner).post_layernorm, inner.visual_projection]
        tune_layers(self.model, [*layers[-settings.num_layers :], *after], settings.tune, settings.lora_rank)

    def features(self, batch: MediaBatch) -> Tensor:
        """Return CLIP's picture embeddings ``[B, w]``."""
        x = batch.values.to(torch.float32) / 255
        if x.shape[-1] != self.side:
            x = nn.functional.interpolate(x, (self.side, self.side), mode="bicubic", antialias=True).clamp(0, 1)
        features: Tensor = self.model(pixel_values=(x - self.mean) / self.deviation).image_embeds
        return features
