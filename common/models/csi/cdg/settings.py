"""What can be set of a CDG model."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from sclmkb.common.models.backbone import BackboneKind
from sclmkb.common.models.csi.base import PredictorSettings


class CdgSettings(PredictorSettings):
    """What decides the shape, meaning and loss of a CDG model."""

    kind: Literal["cdg"] = Field(default="cdg", description="the predictor: cdg")
    language_model: str = Field(
        default="smollm2-135m-instruct",
        description="the language model: the embedded model's name, a folder or a hub name",
    )
    backbone: BackboneKind = Field(
        default="pretrained",
        description="weights of the language model: pretrained, random (a control), or none (no layers, a control)",
    )
    num_layers: int = Field(default=4, ge=1, description="layers K of the language model that are used")
    head: Literal["soft_token", "direct"] = Field(
        default="soft_token",
        description="soft_token: soft tokens over the vocabulary (21); direct: a linear layer on the output of the "
        "backbone",
    )
    cross_attention: bool = Field(
        default=True,
        description="whether tokens reach the backbone by attention to its word embeddings (18); false: by a linear "
        "layer",
    )
    num_prototypes: int = Field(default=128, ge=2, description="compressed words V' of (17)")
    num_words: int = Field(default=2048, ge=0, description="words of the vocabulary that W_c compresses; 0: all")
    array_weight: float = Field(
        default=1.5,
        ge=0,
        description="pull of a history's Doppler beams towards the receive array's own beams, which the training "
        "drops give; 0: none",
    )
    num_directions: int = Field(
        default=4,
        ge=1,
        description="strongest receive directions, and strongest transmit directions, that become tokens",
    )
    num_mixers: int = Field(
        default=2,
        ge=0,
        description="layers of the small transformer that mixes the directions before the backbone; 0: none",
    )
    num_lags: int = Field(default=15, ge=1, description="lags of the autocorrelations")
    num_doppler_words: int = Field(default=61, ge=3, description="words of the Doppler spectra, an odd number")
    num_refinements: int = Field(default=1, ge=0, description="how often the spectra are corrected by their residual")
    max_beams: int = Field(
        default=64,
        ge=1,
        description="strongest rows, and strongest columns, that are predicted; the rest counts as noise (wideband "
        "CSI)",
    )
    width: int = Field(default=96, ge=8, description="width d_m of the embeddings and of the context")
    num_heads: int = Field(default=8, ge=1, description="heads of each attention")
    hidden: int = Field(default=192, ge=8, description="hidden width of the heads of each beam")
    ce_weight: float = Field(default=0.1, ge=0, description="weight λ of the cross-entropy in (32)")

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
