"""What a task is: what its systems take, what they should give, and how well they did.

A task is one file: a subclass of :class:`Task`, one object of which is registered by its name. Training, sweeps,
tables and figures ask it for the rest; ``JsccSettings.task`` names it. A file ``NAME.py`` in this folder is found by
itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.errors import UserError
from sclmkb.common.modalities.base import MediaForm
from sclmkb.common.modalities.store import MediaStore
from sclmkb.common.models.transceiver import Transceiver, embed_gallery
from sclmkb.common.tasks.retrieval_corpus import RetrievalSplit, load_retrieval_split

if TYPE_CHECKING:
    from sclmkb.common.tasks.trained import JsccSettings

Scores = Mapping[str, NDArray[Any]]
"""What is kept of every query, by column of the table ``queries``, each ``[Q]``."""
EmbedMedia = Callable[[Transceiver, MediaStore], Tensor]


class Wanted(NamedTuple):
    """What the outputs of a training step are compared with; B captions, P media.

    Attributes:
        identity: what each caption describes ``[B]``.
        media: embeddings of the media ``[P, d]``.
        media_identity: what each of them shows ``[P]``.
    """

    identity: Tensor
    media: Tensor
    media_identity: Tensor


class Task(ABC):
    """What a trained system is for.

    Attributes:
        name: by which settings name it.
        measures: columns of the table ``results``, and how each is written; the first one is the main one.
        score_columns: what is kept of every query: columns of the table ``queries``.
        example_columns: what is kept of the queries that are shown: columns of the table ``retrievals``; may be none.
    """

    name: ClassVar[str]
    measures: ClassVar[Mapping[str, str]]
    score_columns: ClassVar[Mapping[str, pa.DataType]]
    example_columns: ClassVar[Mapping[str, pa.DataType]] = {}

    @property
    def main(self) -> str:
        """The measure that tables and figures show where there is room for one."""
        return next(iter(self.measures))

    @property
    def selects(self) -> str:
        """The figure of validation by which the best weights of a training are chosen; higher is better."""
        return f"val_{self.main}"

    def short(self, measure: str) -> str:
        """Return how a measure is written where there is little room."""
        return self.measures[measure]

    def inputs(self, corpus: Artifact, split: str, form: MediaForm) -> RetrievalSplit:
        """Return what systems take of a split of a corpus; errors as :func:`load_retrieval_split`."""
        return load_retrieval_split(corpus, split, form)

    @abstractmethod
    def criterion(self, settings: "JsccSettings", num_identities: int) -> nn.Module:
        """Return the loss: a module that takes outputs ``[B, d]`` and a :class:`Wanted`; its weights are trained too.

        ``num_identities`` are those of the training split.
        """

    @abstractmethod
    def target(self, model: Transceiver, split: RetrievalSplit, embed: EmbedMedia = embed_gallery) -> Any:
        """Return what outputs for all captions of a split are compared with, for :meth:`score`.

        The model is in evaluation mode; ``embed`` embeds the media of a split.
        """

    @abstractmethod
    def score(self, outputs: Float[Tensor, "Q d"], target: Any) -> Scores:
        """Return what is kept of every query, see :attr:`score_columns`."""

    @abstractmethod
    def values(self, measure: str, scores: Scores) -> NDArray[np.float64]:
        """Return the value of each query whose mean is the measure ``[Q]``."""

    def summarise(self, scores: Scores) -> dict[str, float]:
        """Return the measures of some queries."""
        return {name: float(torch.from_numpy(self.values(name, scores)).mean()) for name in self.measures}

    def example(self, split: RetrievalSplit, target: Any, query: int, output: Float[Tensor, " d"], most: int) -> Any:
        """Return what is shown of a query, a caption's number, and of the output for it: ``most`` items at most.

        See :attr:`example_columns`.
        """
        raise NotImplementedError(f"task '{self.name}' shows nothing")


_TASKS: dict[str, Task] = {}


def register(task: Task) -> Task:
    """Make a task known by its name, and return it."""
    _TASKS[task.name] = task
    return task


def task_named(name: str) -> Task:
    """Return a task.

    Raises:
        UserError: if there is none of that name.
    """
    if name not in _TASKS and name.isidentifier():
        with suppress(ModuleNotFoundError):
            import_module(f"{__package__}.{name}")
    if name not in _TASKS:
        raise UserError(f"there is no task '{name}': choose one of {', '.join(_TASKS)}")
    return _TASKS[name]


def chosen_scores(scores: Scores, chosen: Tensor) -> Scores:
    """Return the scores of some queries, by their numbers."""
    index = chosen.numpy()
    return {name: values[index] for name, values in scores.items()}
