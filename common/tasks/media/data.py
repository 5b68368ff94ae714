"""The data of one task: features of media, what is asked of them, and what people answered."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.errors import UserError
from sclmkb.common.modalities.image import PictureForm
from sclmkb.common.modalities.store import MediaStore, media_kind
from sclmkb.common.models.lam.features import Features, open_features
from sclmkb.common.models.lam.frozen import frozen_encoder
from sclmkb.common.models.lam.settings import MtscModelSettings
from sclmkb.common.models.lam.system import RECONSTRUCT, Item
from sclmkb.common.models.lam.texts import Vocabulary
from sclmkb.common.tasks.media.base import TextTask
from sclmkb.common.tasks.media.samples import TextSamples, load_text_samples, roles_of
from sclmkb.common.tasks.media.trained import MEDIA_TASKS

PICTURE_SIZE = 32
"""Height and width of reconstructed pictures: CIFAR-10's."""


class TaskData(NamedTuple):
    """One split of one task.

    Attributes:
        modality: kind of its media.
        features: of its media.
        samples: its texts; None for pictures that are reconstructed.
        pictures: what is reconstructed; None for texts.
    """

    modality: str
    features: Features
    samples: TextSamples | None
    pictures: MediaStore | None

    def __len__(self) -> int:
        return len(self.samples) if self.samples is not None else len(self.features.item_ids)

    def item(
        self, rows: Int[Tensor, " B"], vocabulary: Vocabulary, most: int, media: Int[Tensor, " B"] | None = None
    ) -> Item:
        """Return what the transmitter has of some samples, or of the media of others in their place."""
        given = rows if media is None else media
        if self.samples is None:
            shown, prompts = given, [""] * len(rows)
        else:
            shown, prompts = self.samples.item[given], [self.samples.prompts[i] for i in rows.tolist()]
        numbers, real = vocabulary.read(prompts, most)
        return Item(self.modality, self.features.take(shown), numbers, real)

    def picture_values(self, rows: Int[Tensor, " B"]) -> Float[Tensor, "B 3 S S"]:
        """Return pictures of 0 to 1."""
        assert self.pictures is not None
        return self.pictures.take(rows).values.float() / 255

    def references(self, rows: Int[Tensor, " B"]) -> Sequence[Any]:
        """Return what people said of some samples, or the pictures themselves, of 8 bits."""
        if self.samples is not None:
            return [self.samples.references[i] for i in rows.tolist()]
        assert self.pictures is not None
        return list(self.pictures.take(rows).values)

    def row_ids(self, rows: Int[Tensor, " B"]) -> list[str]:
        """Return the ids of some samples."""
        ids = self.samples.row_ids if self.samples is not None else self.features.item_ids
        return [ids[i] for i in rows.tolist()]

    def groups(self, rows: Int[Tensor, " B"]) -> list[str]:
        """Return what each of some samples is about: samples of one group are not independent."""
        groups = self.samples.groups if self.samples is not None else self.features.item_ids
        return [groups[i] for i in rows.tolist()]

    def some(self, most: int) -> Int[Tensor, " B"]:
        """Return up to ``most`` rows, spread evenly."""
        count = min(most, len(self))
        return torch.arange(count) * len(self) // count


def load_task(settings: MtscModelSettings, corpus: Artifact, name: str, split: str) -> TaskData:
    """Read a split of a corpus for a task.

    Raises:
        UserError: if it has nothing for the task, or no media that can be read.
    """
    task = MEDIA_TASKS[name]
    if isinstance(task, TextTask):
        features = open_features(corpus, split, frozen_encoder(settings, task.modality))
        samples = load_text_samples(corpus, split, task, features.item_ids)
        return TaskData(task.modality, features, samples, None)
    pictures = MediaStore.open(corpus, split, PictureForm(size=PICTURE_SIZE))
    if settings.codec.takes_context:
        features = open_features(corpus, split, frozen_encoder(settings, task.modality))
    else:
        features = Features.none(pictures.item_ids)
    return TaskData(task.modality, features, None, pictures)


def corpus_for(name: str, corpora: Sequence[Artifact]) -> Artifact:
    """Return the first corpus that has what a task takes.

    Raises:
        UserError: if there is none.
    """
    task = MEDIA_TASKS[name]
    for corpus in corpora:
        if media_kind(corpus) != task.modality:
            continue
        roles = roles_of(corpus)
        if (isinstance(task, TextTask) and task.role in roles) or (name == RECONSTRUCT and not roles - {"label"}):
            return corpus
    wanted = f" with texts of role '{task.role}'" if isinstance(task, TextTask) else " without questions and captions"
    raise UserError(
        f"task {name} needs a corpus of {task.modality}{wanted}: name one with --corpus, or leave the task out"
        " (--tasks)"
    )
