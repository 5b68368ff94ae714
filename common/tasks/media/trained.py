"""A trained multi-task transceiver: its settings, saved with the checkpoint, and the model that they build."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from sclmkb.common.artifacts.checkpoints import Checkpoint, load_checkpoint
from sclmkb.common.config import Settings, speed_only
from sclmkb.common.errors import UserError
from sclmkb.common.link.uses import UsesChannelSettings
from sclmkb.common.models.lam.build import build_mtsc
from sclmkb.common.models.lam.language_model import saved_vocabulary
from sclmkb.common.models.lam.settings import SCRATCH, LanguageModelSettings, MtscModelSettings
from sclmkb.common.models.lam.system import MtscModel
from sclmkb.common.precision import Precision
from sclmkb.common.tasks.answer import Answer
from sclmkb.common.tasks.caption import Caption, CaptionSound, CaptionVideo
from sclmkb.common.tasks.media.base import MediaTask, TextTask
from sclmkb.common.tasks.reconstruct import Reconstruct

KIND = "mtsc"
TaskName = Literal["answer", "caption", "caption_sound", "caption_video", "reconstruct"]
MEDIA_TASKS: Mapping[str, MediaTask] = {
    task.name: task for task in (Answer(), Caption(), CaptionSound(), CaptionVideo(), Reconstruct())
}
"""The tasks by their name."""


class TaskSettings(Settings):
    """What one task takes of a training step."""

    batch_size: PositiveInt = Field(default=32, description="samples per step, over all processes")
    weight: PositiveFloat = Field(default=1.0, description="weight of the task's loss")
    balance: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="samples are drawn in proportion to 1 / (frequency of their first text) ** balance; 0: each sample "
        "once an epoch",
    )


class MtscSettings(Settings):
    """Settings of ``sclmkb-train mtsc``."""

    system: str = Field(default="mtsc", description="name of the system, a column of each result")
    tasks: tuple[TaskName, ...] = Field(
        default=("answer", "reconstruct"), min_length=1, description="tasks that are trained together"
    )
    model: MtscModelSettings = Field(default=MtscModelSettings(), description="sizes of the transceiver")
    channel: UsesChannelSettings = Field(default=UsesChannelSettings(), description="the channel of training")
    answer: TaskSettings = Field(default=TaskSettings(balance=0.5), description="answers per step, and their weight")
    caption: TaskSettings = Field(default=TaskSettings(), description="captions of pictures per step, and their weight")
    caption_sound: TaskSettings = Field(
        default=TaskSettings(), description="captions of sounds per step, and their weight"
    )
    caption_video: TaskSettings = Field(
        default=TaskSettings(), description="captions of clips per step, and their weight"
    )
    reconstruct: TaskSettings = Field(
        default=TaskSettings(),
        description="pictures per step, and their weight; their loss is a tenth of minus the PSNR of each picture",
    )
    min_snr_db: float = Field(default=-6.0, description="least SNR of training, per complex use [dB]")
    max_snr_db: float = Field(default=18.0, description="greatest SNR of training [dB]")
    num_steps: PositiveInt = Field(default=2000, description="optimiser steps; each has a batch of every task")
    warmup_steps: int = Field(default=50, ge=0, description="steps in which the learning rate rises")
    learning_rate: PositiveFloat = Field(
        default=1e-4, description="peak learning rate of AdamW, of what is neither language model nor codec"
    )
    language_model_rate: PositiveFloat = Field(
        default=1e-3, description="peak learning rate of the weights of the language model, pre-trained or drawn"
    )
    codec_rate: PositiveFloat | None = Field(
        default=None, description="peak learning rate of the codec of pictures; null: that of its kind (docs/mtsc.md)"
    )
    weight_decay: float = Field(default=0.01, ge=0, description="weight decay of AdamW")
    num_validations: PositiveInt = Field(
        default=4, description="number of validations, evenly spread over the second half of training"
    )
    validation_snrs_db: tuple[float, ...] = Field(
        default=(0.0, 12.0), min_length=1, description="SNRs at which a validation measures [dB]"
    )
    validation_items: PositiveInt = Field(default=512, description="most samples per task in a validation")
    precision: Precision = Field(
        default="auto", description="precision of matrix products; auto: bfloat16 where the processor has it"
    )
    seed: int = Field(default=0, description="seed of everything random")
    save_every: PositiveInt = speed_only(100, description="steps between two saved states")
    threads: int | None = speed_only(None, description="CPU threads; default: all cores")

    @model_validator(mode="after")
    def _check(self) -> "MtscSettings":
        if self.min_snr_db > self.max_snr_db:
            raise ValueError(f"min_snr_db = {self.min_snr_db} is above max_snr_db = {self.max_snr_db}")
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError("each task is named once")
        tokens = self.model.jsc.num_tokens
        for name, uses in (("answer_uses", self.model.answer_uses), ("caption_uses", self.model.caption_uses)):
            if uses % tokens:
                raise ValueError(f"model.{name} = {uses} is no multiple of model.jsc.num_tokens = {tokens}")
        uses, groups = self.model.reconstruct_uses, self.model.codec.num_groups
        if self.model.rate != "fixed" and uses % groups:
            raise ValueError(f"model.reconstruct_uses = {uses} is no multiple of model.codec.num_groups = {groups}")
        return self

    @property
    def used_model(self) -> MtscModelSettings:
        """The sizes, with the smallest language model in place of one that no task reads."""
        if self.model.codec.takes_context or any(isinstance(MEDIA_TASKS[name], TextTask) for name in self.tasks):
            return self.model
        nothing = LanguageModelSettings(name=SCRATCH, width=self.model.jsc.num_heads, layers=1)
        return self.model.model_copy(update={"language_model": nothing})

    def of_task(self, name: str) -> TaskSettings:
        """Return what a task takes of a step."""
        settings: TaskSettings = getattr(self, name)
        return settings


@dataclass(frozen=True, kw_only=True)
class TrainedMtsc:
    """A multi-task transceiver that was trained.

    Attributes:
        root: folder of its checkpoint.
        settings: of its training.
        checkpoint: its weights and what else was saved.
    """

    root: Path
    settings: MtscSettings
    checkpoint: Checkpoint

    @classmethod
    def load(cls, root: Path) -> "TrainedMtsc":
        """Read a checkpoint of ``sclmkb-train mtsc``.

        Raises:
            UserError: if it is missing, corrupt or of another version.
        """
        checkpoint = load_checkpoint(root, KIND)
        try:
            settings = MtscSettings.model_validate(checkpoint.settings)
        except ValidationError as error:
            raise UserError(f"checkpoint {root} is of another version ({error}): train it again") from None
        return cls(root=root, settings=settings, checkpoint=checkpoint)

    @property
    def inputs(self) -> Mapping[str, str]:
        """Fingerprints of what it was trained on, by name."""
        found: Mapping[str, str] = self.checkpoint.info["inputs"]
        return found

    def model(self) -> MtscModel:
        """Return the transceiver, in evaluation mode.

        Raises:
            UserError: if its language model is not there, or is another one.
        """
        info, sizes = self.checkpoint.info, self.settings.used_model
        vocabulary = saved_vocabulary(sizes.language_model, info["vocabulary"])
        features = {kind: (count, width) for kind, (count, width) in info["sizes"]["features"].items()}
        model = build_mtsc(sizes, vocabulary, features, info["sizes"]["picture_size"])
        self.checkpoint.load_into(model)
        return model.eval()

    def record(self) -> dict[str, Any]:
        """Return what a measurement keeps of it."""
        return {
            "folder": str(self.root), "settings": self.settings.model_dump(mode="json"), "inputs": dict(self.inputs),
        }  # fmt: skip
