"""What a step of the multi-task training is made of: a batch of every task, drawn by the number of the step."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.link.mimo_uses import UsesChannel, open_uses_channel
from sclmkb.common.seeds import make_generator
from sclmkb.common.tasks.media.data import TaskData, corpus_for, load_task
from sclmkb.common.tasks.media.trained import MtscSettings, TaskSettings
from sclmkb.train.engine.loop import rows_in_turn


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The splits of a training, of every task, and the channels of each."""

    train: Mapping[str, TaskData]
    val: Mapping[str, TaskData]
    train_channel: UsesChannel
    val_channel: UsesChannel


class Rows:
    """Which samples a step takes of a task.

    Rare answers teach a model to look at the medium: a common one, such as "no", is right often enough without.

    Args:
        part: the training split of the task.
        settings: how many samples, and how much oftener those of rare texts are drawn.
        seed: of the training.
        name: of the task.
    """

    def __init__(self, part: TaskData, settings: TaskSettings, seed: int, name: str) -> None:
        self._total, self._count, self._key = len(part), settings.batch_size, (seed, "epoch", name)
        self._weights: Float[Tensor, " M"] | None = None
        if settings.balance and part.samples is not None:
            first = [texts[0] for texts in part.samples.references]
            number = Counter(first)
            self._weights = torch.tensor([number[text] ** -settings.balance for text in first])

    def of_step(self, step: int) -> Int[Tensor, " B"]:
        """Return the rows of a step, which depend on its number and the seed alone."""
        if self._weights is None:
            return rows_in_turn(self._total, step, self._count, *self._key)
        chance = make_generator(*self._key, step)
        return torch.multinomial(self._weights, self._count, replacement=True, generator=chance)


def load_splits(
    settings: MtscSettings, corpora: Sequence[Artifact], csi: Path | None = None, predicted: Path | None = None
) -> Splits:
    """Read the splits ``train`` and ``val`` of every task, each from the first corpus that has what it takes.

    Raises:
        UserError: if a task finds no corpus, or one cannot be read, or CSI is needed and missing.
    """
    of: dict[str, Artifact] = {name: corpus_for(name, corpora) for name in settings.tasks}
    train, val = (
        {name: load_task(settings.model, corpus, name, split) for name, corpus in of.items()}
        for split in ("train", "val")
    )
    channels = [open_uses_channel(settings.channel, csi, predicted, split) for split in ("train", "val")]
    return Splits(train=train, val=val, train_channel=channels[0], val_channel=channels[1])
