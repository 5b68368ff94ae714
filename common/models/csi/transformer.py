"""Transformer: the attention baseline, an encoder and a decoder that predicts all P samples at once.

::

    series [N,T,F] ─► linear + position ─► encoder layers ─► memory [N,T,d]
                                                                │
    last sample + P learned queries ──► decoder layers ◄────────┘ ─► linear ─► [N,P,F]

It predicts the P samples in parallel instead of feeding them back. Jiang et al. 2022 propose this ("Accurate channel
prediction based on transformer: making mobility negligible"), and LLM4CP compares itself with it.
"""

from typing import Literal

import torch
from jaxtyping import Complex64
from pydantic import Field, model_validator
from torch import Tensor, nn

from sclmkb.common.csi.sets import CsiShape
from sclmkb.common.models.csi.base import PREDICTORS
from sclmkb.common.models.csi.series import SeriesPredictor, SeriesSettings, drawing_from, to_complex, to_real


class TransformerSettings(SeriesSettings):
    """Settings of :class:`Transformer`; the default trains 1.8 million weights on 16×16 CSI."""

    kind: Literal["transformer"] = Field(default="transformer", description="the predictor: transformer")
    width: int = Field(
        default=160, ge=1, description="width of a token; the feed-forward layers are four times as wide"
    )
    num_heads: int = Field(default=8, ge=1, description="heads of each attention")
    num_encoder_layers: int = Field(default=3, ge=1, description="layers over the history")
    num_decoder_layers: int = Field(default=2, ge=1, description="layers over the queries")

    @model_validator(mode="after")
    def _heads_divide(self) -> "TransformerSettings":
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} must be a multiple of num_heads {self.num_heads}")
        return self


@PREDICTORS.register(TransformerSettings)
class Transformer(SeriesPredictor):
    """The model drawn at the top of this module."""

    name = "transformer"

    def __init__(self, settings: TransformerSettings, shape: CsiShape, *, generator: torch.Generator) -> None:
        super().__init__(settings, shape)
        self.settings = settings
        width, heads = settings.width, settings.num_heads
        with drawing_from(generator):
            self.embed = nn.Linear(2 * self.num_features, width)
            self.position = nn.Parameter(0.02 * torch.randn(shape.num_history, width))
            self.query = nn.Parameter(0.02 * torch.randn(shape.num_future, width))
            self.encoder = nn.ModuleList(
                nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
                for _ in range(settings.num_encoder_layers)
            )
            self.decoder = nn.ModuleList(
                nn.TransformerDecoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
                for _ in range(settings.num_decoder_layers)
            )
            self.memory_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
            self.project = nn.Linear(width, 2 * self.num_features)

    def forward(self, past: Complex64[Tensor, "N T F"]) -> Complex64[Tensor, "N P F"]:
        """Return the samples after each series."""
        embedded = self.embed(to_real(past))
        memory = embedded + self.position
        for layer in self.encoder:
            memory = layer(memory)
        memory = self.memory_norm(memory)
        tokens = embedded[:, -1:] + self.query
        for layer in self.decoder:
            tokens = layer(tokens, memory)
        return to_complex(self.project(self.norm(tokens)))
