"""What a step of the multi-task training is made of: a batch of every task, drawn by the number of the step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.link.mimo_uses import UsesChannel, open_uses_channel
from sclmkb.common.tasks.media.data import TaskData, corpus_for, load_task
from sclmkb.common.tasks.media.trained import MtscSettings


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The splits of a training, of every task, and the channels of each."""

    train: Mapping[str, TaskData]
    val: Mapping[str, TaskData]
    train_channel: UsesChannel
    val_channel: UsesChannel


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
