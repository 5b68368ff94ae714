"""What a baseline of the multi-task transceiver is, and what it is given: the same samples, gains and uses."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from torch import Tensor

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.files import sha256_file
from sclmkb.common.config import fingerprint
from sclmkb.common.link.uses import UsesChannelSettings
from sclmkb.common.models.lam.frozen import frozen_encoder
from sclmkb.common.models.lam.system import MtscModel, uses_of
from sclmkb.common.tasks.media.data import TaskData
from sclmkb.common.tasks.media.trained import MEDIA_TASKS, TaskName, TrainedMtsc

Receive = Callable[[float], Sequence[Any]]
"""Returns what the receiver gives of all samples at an SNR [dB]: texts, or pictures of 8 bits ``[3, S, S]``."""


@dataclass(frozen=True, kw_only=True)
class BaselineSetup:
    """What a baseline is measured on.

    Attributes:
        task: which.
        channel: what lies between the two ends.
        seed: of gains, noise and failures.
        beside: the trained transceiver that it is compared with.
        corpus: of the task.
        split: that is measured.
        rows: of the samples that are measured.
        load: returns the task's data of a split.
    """

    task: str
    channel: UsesChannelSettings
    seed: int
    beside: TrainedMtsc
    corpus: Artifact
    split: Literal["val", "test"]
    rows: Tensor
    load: Callable[[str], TaskData]

    @property
    def uses(self) -> int:
        """Complex channel uses per sample."""
        return uses_of(self.beside.settings.model)[self.task]

    @property
    def data(self) -> TaskData:
        """The task's data of the split that is measured."""
        return self.load(self.split)

    @property
    def row_ids(self) -> list[str]:
        """Ids of the samples that are measured; their gains and noise follow from them."""
        return self.data.row_ids(self.rows)

    @cached_property
    def model(self) -> MtscModel:
        """The trained model, in evaluation mode."""
        return self.beside.model()


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A system that is not trained.

    Attributes:
        name: by which settings name it, and a column of each result.
        tasks: that it does.
        prepare: does what all SNRs share, and returns what the receiver gives at one of them.
        channels: kinds of channels that it is defined for.
        uses_model: whether the trained model is part of it; there is then one for each seed.
        counts_uses: whether it sends as many uses as the trained system; if not, it sends none.
        lacks: returns what must be installed for it, empty if nothing is missing.
    """

    name: str
    tasks: tuple[TaskName, ...]
    prepare: Callable[[BaselineSetup], Receive]
    channels: tuple[str, ...] = ("awgn", "rician")
    uses_model: bool = False
    counts_uses: bool = True
    lacks: Callable[[], str] = str


@dataclass(frozen=True, kw_only=True)
class BaselineRun:
    """A baseline for one task beside one checkpoint.

    Attributes:
        baseline: what is measured.
        system: its name among the results.
        task: which.
        beside: the checkpoint.
    """

    baseline: Baseline
    system: str
    task: str
    beside: TrainedMtsc

    @property
    def seed(self) -> int:
        """That of the model, if one is part of it."""
        return self.beside.settings.seed if self.baseline.uses_model else 0

    @property
    def uses(self) -> int:
        """Complex channel uses per sample that are counted."""
        return uses_of(self.beside.settings.model)[self.task] if self.baseline.counts_uses else 0

    @property
    def work_name(self) -> str:
        """Name of the folder that keeps what was measured of it: it says what the values follow from."""
        sizes = self.beside.settings.model
        of: list[object] = [uses_of(sizes)[self.task], frozen_encoder(sizes, MEDIA_TASKS[self.task].modality).key]
        if self.baseline.uses_model:
            of.append(sha256_file(self.beside.root / "model.safetensors"))
        return f"{self.system}-{self.task}-{self.seed}-{fingerprint(of)[:12]}"


def runs_of(
    baselines: Sequence[Baseline], tasks: Sequence[str], checkpoints: Sequence[TrainedMtsc], main_system: str
) -> list[BaselineRun]:
    """Return what has to be measured of baselines beside some checkpoints.

    A baseline is measured once for each number of uses that systems have in a task; if there are several, its name
    ends with the number. One that sends nothing is measured once. One with a trained model stands beside each seed of
    the main system instead, or of the first system if none has that name.
    """
    found = []
    for task in tasks:
        there = [c for c in checkpoints if task in c.settings.tasks]
        main = main_system if any(c.settings.system == main_system for c in there) else there[0].settings.system
        uses = [uses_of(c.settings.model)[task] for c in there]
        first = {count: next(c for c, own in zip(there, uses, strict=True) if own == count) for count in uses}
        for one in baselines:
            if task in one.tasks and one.uses_model:
                chosen = [c for c in there if c.settings.system == main]
                found += [BaselineRun(baseline=one, system=one.name, task=task, beside=c) for c in chosen]
            elif task in one.tasks:
                if one.counts_uses and len(first) > 1:
                    names = {count: f"{one.name}-{count}" for count in sorted(first)}
                else:
                    names = {min(first): one.name}
                found += [BaselineRun(baseline=one, system=names[n], task=task, beside=first[n]) for n in names]
    return found
