"""What can be set of training the semantic transceiver."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from sclmkb.common.config import Settings, speed_only
from sclmkb.common.link.sources import CsiSource, LinkSettings
from sclmkb.common.models.encoders.text import TextSettings
from sclmkb.common.models.transceiver import TransceiverSettings
from sclmkb.train.engine.devices import Precision
from sclmkb.train.semantic.fusion import Importance
from sclmkb.train.semantic.generated import Captions

Fusion = Literal["none", "extra_samples", "average", "cdfc", "mixed"]


class JsccSettings(Settings):
    """Settings of ``sclmkb-train jscc``."""

    system: str = Field(default="sc-lmkb", description="name of the system, part of every result")
    csi_source: CsiSource = "predicted"
    with_sdg: bool = True
    captions: Captions = Field(
        default="accepted", description="generated captions: what the filter kept, or all that were written (a control)"
    )
    generated_per_caption: PositiveInt = Field(
        default=1, description="generated captions of a caption at a step; F_g is the mean of their features"
    )
    fusion: Fusion = Field(
        default="mixed",
        description="none; extra_samples: generated captions in place of sources; average; cdfc: (25)-(29); mixed: the"
        " loss on CDFC's features and the loss on the source's alone, mixed_share and the rest",
    )
    mixed_share: float = Field(default=0.5, ge=0, le=1, description="share of the loss on fused features")
    importance: Importance = "grad_times_input"
    receiver: Literal["literal", "dmrs", "both"] = "both"
    link: LinkSettings = LinkSettings()
    text: TextSettings = TextSettings()
    model: TransceiverSettings = TransceiverSettings()
    loss: Literal["contrastive", "sdm"] = Field(
        default="contrastive", description="contrastive: symmetric, several positives; sdm: IRRA's"
    )
    hard_negatives: float = Field(
        default=0.0, ge=0, description="beta of the weights exp(beta cosine / temperature) of contrastive's negatives"
    )
    identity_weight: float = Field(
        default=0.0, ge=0, description="weight of the classification of identities, added to the loss"
    )
    temperature: PositiveFloat = 0.07
    seed: int = 0
    num_steps: PositiveInt = 900
    warmup_steps: int = Field(default=20, ge=0)
    captions_per_step: PositiveInt = 128
    media_per_step: PositiveInt = Field(default=128, description="the first so many captions have a medium")
    captions_per_identity: PositiveInt | None = Field(
        default=None, description="balanced batches: so many captions of each identity; null: captions in turn"
    )
    accumulate: PositiveInt = Field(
        default=1, description="pieces that the encoders' work on a step is cut into; the loss sees the whole batch"
    )
    learning_rate: PositiveFloat = 2e-3
    pretrained_learning_rate: PositiveFloat = Field(default=1e-4, description="of weights that are not from scratch")
    weight_decay: float = Field(default=0.02, ge=0)
    text_dropout: float = Field(default=0.2, ge=0, lt=1, description="share of a caption embedding's entries left out")
    precision: Precision = Field(
        default="auto", description="of matrix products and convolutions; auto: bfloat16 where the processor has it"
    )
    min_snr_db: float = -15.0
    max_snr_db: float = 25.0
    num_validations: PositiveInt = Field(default=4, description="evenly over the second half of training")
    holdout_share: float = Field(
        default=0.05, gt=0, lt=1, description="of the training groups, for validation where the corpus has no split val"
    )
    patience: PositiveInt | None = Field(
        default=None, description="stop after so many validations without a better mAP; null: never"
    )
    validation_snrs_db: tuple[float, ...] = Field(default=(-5.0, 10.0), min_length=1)
    save_every: PositiveInt = speed_only(50)
    threads: int | None = speed_only(None)

    @model_validator(mode="after")
    def _check(self) -> "JsccSettings":
        if self.min_snr_db > self.max_snr_db:
            raise ValueError(f"min_snr_db = {self.min_snr_db} is above max_snr_db = {self.max_snr_db}")
        if self.media_per_step > self.captions_per_step:
            raise ValueError("media_per_step must not exceed captions_per_step: each goes with a caption")
        if self.loss != "contrastive" and self.hard_negatives:
            raise ValueError("hard_negatives belongs to loss=contrastive")
        each = self.captions_per_identity or 1
        if self.captions_per_step % each or self.media_per_step % each:
            raise ValueError(
                f"captions_per_step and media_per_step must be multiples of captions_per_identity = {each}"
            )
        return self


@dataclass(frozen=True, kw_only=True)
class JsccInputs:
    """Where the knowledge base is; what the system does without is ``None``.

    Attributes:
        media_from: checkpoint of ``sclmkb-train jscc`` whose media encoder is used as it is, instead of training one.
    """

    corpus: Path
    csi: Path | None = None
    sdg: Path | None = None
    predicted: Path | None = None
    media_from: Path | None = None
