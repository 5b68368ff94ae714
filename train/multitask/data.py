"""What a step of the multi-task training is made of: a batch of every task, drawn by the number of the step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.tasks.media.data import TaskData, corpus_for, load_task
from sclmkb.common.tasks.media.trained import MtscSettings


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The splits of a training, of every task."""

    train: Mapping[str, TaskData]
    val: Mapping[str, TaskData]


def load_splits(settings: MtscSettings, corpora: Sequence[Artifact]) -> Splits:
    """Read the splits ``train`` and ``val`` of every task, each from the first corpus that has what it takes.

    Raises:
        UserError: if a task finds no corpus, or one cannot be read.
    """
    of: dict[str, Artifact] = {name: corpus_for(name, corpora) for name in settings.tasks}
    train, val = (
        {name: load_task(settings.model, corpus, name, split) for name, corpus in of.items()}
        for split in ("train", "val")
    )
    return Splits(train=train, val=val)
