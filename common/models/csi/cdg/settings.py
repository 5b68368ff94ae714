"""What can be set of a CDG model."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from sclmkb.common.config import Settings
from sclmkb.common.models.backbone import BackboneKind


class CdgSettings(Settings):
    """What decides the shape, meaning and loss of a CDG model.

    Attributes:
        kind: what tells it from the settings of other predictors.
        language_model: the model that is embedded, as for SDG.
        backbone: its pre-trained weights, random ones, or no layers (the two controls).
        num_layers: layers K of it.
        head: soft tokens over the vocabulary (21), or a projection straight from the backbone's output.
        cross_attention: tokens reach the backbone through the words (18); off: by a linear layer.
        num_prototypes: compressed words V' of (17).
        num_words: words of the vocabulary that W_c compresses; 0: all.
        array_weight: how strongly the Doppler beams of a history are drawn to those of the receive array, which are
            found in the training drops; 0: not at all.
        num_directions: strongest receive, and as many transmit, directions that become tokens.
        num_mixers: layers of the small transformer that mixes directions before; 0: none.
        num_lags: lags of the autocorrelations.
        num_doppler_words: words of the Doppler spectra, odd.
        num_refinements: how often the spectra are corrected by what they leave unexplained.
        max_beams: strongest rows, and columns, that are predicted; what is beyond counts as noise (wideband CSI).
        width: width d_m of the embeddings and the context.
        num_heads: heads of the attentions.
        hidden: width of the heads for each beam.
        ce_weight: λ of (32).
    """

    kind: Literal["cdg"] = "cdg"
    language_model: str = "smollm2-135m-instruct"
    backbone: BackboneKind = "pretrained"
    num_layers: int = Field(default=4, ge=1)
    head: Literal["soft_token", "direct"] = "soft_token"
    cross_attention: bool = True
    num_prototypes: int = Field(default=128, ge=2)
    num_words: int = Field(default=2048, ge=0)
    array_weight: float = Field(default=1.5, ge=0)
    num_directions: int = Field(default=4, ge=1)
    num_mixers: int = Field(default=2, ge=0)
    num_lags: int = Field(default=15, ge=1)
    num_doppler_words: int = Field(default=61, ge=3)
    num_refinements: int = Field(default=1, ge=0)
    max_beams: int = Field(default=64, ge=1)
    width: int = Field(default=96, ge=8)
    num_heads: int = Field(default=8, ge=1)
    hidden: int = Field(default=192, ge=8)
    ce_weight: float = Field(default=0.1, ge=0)

    @field_validator("num_doppler_words")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f"must be odd, for one word in the middle: {value - 1} or {value + 1}")
        return value

    @model_validator(mode="after")
    def _heads_divide(self) -> "CdgSettings":
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} must be a multiple of num_heads {self.num_heads}")
        return self
