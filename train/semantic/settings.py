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

    system: str = Field(default="sc-lmkb", description="name of the system, a column of each result")
    csi_source: CsiSource = Field(
        default="predicted", description="CSI at the transmitter: perfect, stale, feedback or predicted"
    )
    with_sdg: bool = Field(default=True, description="whether generated captions are used")
    captions: Captions = Field(
        default="accepted",
        description="generated captions to use; accepted: those that passed the filter; all: each that was written "
        "(a control)",
    )
    generated_per_caption: PositiveInt = Field(
        default=1, description="generated captions per caption and step; F_g is the mean of their features"
    )
    fusion: Fusion = Field(
        default="mixed",
        description="none; extra_samples: generated captions replace sources; average; cdfc: (25)-(29); mixed: part "
        "of the loss on CDFC's features, the rest on the source's alone",
    )
    mixed_share: float = Field(
        default=0.5, ge=0, le=1, description="share of the loss on the fused features, for fusion mixed"
    )
    importance: Importance = Field(
        default="grad_times_input",
        description="how (27) pools the gradient: signed, abs (its magnitude) or grad_times_input (magnitude of "
        "gradient times feature)",
    )
    receiver: Literal["literal", "dmrs", "both"] = Field(
        default="both", description="receiver to train through; both: half of each batch goes through each"
    )
    link: LinkSettings = Field(default=LinkSettings(), description="channel, power and feedback")
    text: TextSettings = Field(default=TextSettings(), description="the text encoder")
    model: TransceiverSettings = Field(
        default=TransceiverSettings(), description="sizes of the transceiver, and its media encoder"
    )
    loss: Literal["contrastive", "sdm"] = Field(
        default="contrastive", description="contrastive: symmetric, with several positives; sdm: the loss of IRRA"
    )
    hard_negatives: float = Field(
        default=0.0,
        ge=0,
        description="β of the weights exp(β cosine / temperature) of the negatives of loss contrastive",
    )
    identity_weight: float = Field(
        default=0.0, ge=0, description="weight of the classification of identities in the loss"
    )
    temperature: PositiveFloat = Field(default=0.07, description="temperature of the loss")
    seed: int = Field(default=0, description="seed of everything random")
    num_steps: PositiveInt = Field(default=900, description="most optimiser steps")
    warmup_steps: int = Field(default=20, ge=0, description="steps in which the learning rate rises")
    captions_per_step: PositiveInt = Field(default=128, description="captions per step, over all processes")
    media_per_step: PositiveInt = Field(
        default=128, description="media per step; the first captions of a step each have one"
    )
    captions_per_identity: PositiveInt | None = Field(
        default=None, description="captions per identity in a balanced batch; null: captions in turn"
    )
    accumulate: PositiveInt = Field(
        default=1,
        description="pieces into which the encoders' work on a step is cut to save memory; the loss still sees the "
        "whole batch",
    )
    learning_rate: PositiveFloat = Field(default=2e-3, description="peak learning rate of AdamW")
    pretrained_learning_rate: PositiveFloat = Field(
        default=1e-4, description="peak learning rate of pre-trained weights"
    )
    weight_decay: float = Field(default=0.02, ge=0, description="weight decay of AdamW")
    text_dropout: float = Field(
        default=0.2, ge=0, lt=1, description="share of the entries of a caption embedding that are dropped"
    )
    precision: Precision = Field(
        default="auto",
        description="precision of matrix products and convolutions; auto: bfloat16 where the processor has it",
    )
    min_snr_db: float = Field(default=-15.0, description="least SNR of training [dB]")
    max_snr_db: float = Field(default=25.0, description="greatest SNR of training [dB]")
    num_validations: PositiveInt = Field(
        default=4, description="number of validations, evenly spread over the second half of training"
    )
    holdout_share: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="share of the training groups that validates, where the corpus has no split val",
    )
    patience: PositiveInt | None = Field(
        default=None, description="number of validations without a better mAP after which training stops; null: never"
    )
    validation_snrs_db: tuple[float, ...] = Field(
        default=(-5.0, 10.0), min_length=1, description="SNRs at which a validation measures [dB]"
    )
    save_every: PositiveInt = speed_only(50, description="steps between two saved states")
    threads: int | None = speed_only(None, description="CPU threads; default: all cores")

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
