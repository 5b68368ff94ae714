"""A trained system: the settings that it was trained with, saved with its checkpoint and read back with validation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from sclmkb.common.artifacts.checkpoints import Checkpoint, load_checkpoint
from sclmkb.common.config import Settings, speed_only
from sclmkb.common.errors import UserError
from sclmkb.common.link.sources import CsiSource, LinkSettings
from sclmkb.common.models.encoders.text import TextSettings
from sclmkb.common.models.transceiver import Transceiver, TransceiverSettings, load_transceiver
from sclmkb.common.precision import Precision
from sclmkb.common.tasks.base import Task, task_named

Captions = Literal["accepted", "all"]
Fusion = Literal["none", "extra_samples", "average", "cdfc", "mixed"]
Importance = Literal["signed", "abs", "grad_times_input"]


def of_a_system(default: Any, **kwargs: Any) -> Any:
    """Declare a field that tells one system of a comparison from another; all other fields must be equal."""
    return Field(default=default, json_schema_extra={"of_a_system": True}, **kwargs)


class JsccSettings(Settings):
    """Settings of ``sclmkb-train jscc``."""

    system: str = of_a_system(default="sc-lmkb", description="name of the system, a column of each result")
    csi_source: CsiSource = of_a_system(
        default="predicted", description="CSI at the transmitter: perfect, stale, feedback or predicted"
    )
    with_sdg: bool = of_a_system(default=True, description="whether generated captions are used")
    captions: Captions = of_a_system(
        default="accepted",
        description="generated captions to use; accepted: those that passed the filter; all: each that was written "
        "(a control)",
    )
    generated_per_caption: PositiveInt = of_a_system(
        default=1, description="generated captions per caption and step; F_g is the mean of their features"
    )
    fusion: Fusion = of_a_system(
        default="mixed",
        description="none; extra_samples: generated captions replace sources; average; cdfc: (25)-(29); mixed: part "
        "of the loss on CDFC's features, the rest on the source's alone",
    )
    mixed_share: float = of_a_system(
        default=0.5, ge=0, le=1, description="share of the loss on the fused features, for fusion mixed"
    )
    importance: Importance = of_a_system(
        default="grad_times_input",
        description="how (27) pools the gradient: signed, abs (its magnitude) or grad_times_input (magnitude of "
        "gradient times feature)",
    )
    task: str = Field(
        default="retrieval",
        description="what the system is for; not saved where it is retrieval",
        exclude_if=lambda name: name == "retrieval",
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
    seed: int = of_a_system(default=0, description="seed of everything random")
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
        default=None,
        description="number of validations without a better main measure after which training stops; null: never",
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

    @property
    def task_object(self) -> Task:
        """The task; :func:`task_named` says what is wrong."""
        return task_named(self.task)

    @property
    def used_fusion(self) -> Fusion:
        """The fusion; without generated captions there is none."""
        return self.fusion if self.with_sdg else "none"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A system that was trained, as its checkpoint and measurements of it say.

    Attributes:
        root: folder of the checkpoint.
        settings: of its training.
        inputs: fingerprints of what it was trained on, by name.
        notes: what else is known, such as figures of validation.
    """

    root: Path
    settings: JsccSettings
    inputs: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> "Trained":
        """Return what the record of a checkpoint in ``config.json`` of a measurement says.

        Raises:
            UserError: if the settings are those of another version.
        """
        notes = dict(record)
        root, settings = Path(notes.pop("folder", ".")), notes.pop("settings", {})
        return cls(root=root, settings=_read_settings(settings, root), inputs=notes.pop("inputs", {}), notes=notes)

    @property
    def name(self) -> str:
        """Name among others."""
        return f"{self.settings.system} seed {self.settings.seed}"


@dataclass(frozen=True, kw_only=True)
class TrainedSystem(Trained):
    """A trained system with its weights.

    Attributes:
        checkpoint: as it was saved.
    """

    checkpoint: Checkpoint

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "TrainedSystem":
        """Return a checkpoint with its settings validated.

        Raises:
            UserError: if they are those of another version.
        """
        given = checkpoint.settings if {"model", "text"} <= set(checkpoint.settings) else None  # saved from the start
        notes = dict(checkpoint.info)
        settings, inputs = _read_settings(given, checkpoint.root), notes.pop("inputs", {})
        return cls(root=checkpoint.root, settings=settings, inputs=inputs, notes=notes, checkpoint=checkpoint)

    @classmethod
    def load(cls, root: Path) -> "TrainedSystem":
        """Read a checkpoint of ``sclmkb-train jscc``; errors as :func:`load_checkpoint` and :meth:`of`."""
        return cls.of(load_checkpoint(root, "jscc"))

    def model(self) -> Transceiver:
        """Return the model, in evaluation mode.

        Raises:
            UserError: if it does not fit its settings, or needs encoders that are not there or are others.
        """
        return load_transceiver(self.checkpoint, self.settings.model, self.settings.text)

    def record(self) -> dict[str, Any]:
        """Return what :meth:`Trained.read` reads."""
        return {"folder": str(self.root), "settings": self.checkpoint.settings, **self.checkpoint.info}


def _read_settings(settings: Mapping[str, Any] | None, root: Path) -> JsccSettings:
    """Return the settings of a training that were saved in a folder."""
    try:
        return JsccSettings.model_validate(settings)
    except ValidationError:
        raise UserError(f"checkpoint {root} was made by another version: train it again") from None
