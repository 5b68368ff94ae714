"""Tasks of the multi-task transceiver: what is asked about a medium, and how well the answer, caption or picture fits.

A task is one object of :data:`MEDIA_TASKS`: which texts of a corpus it takes, its prompt, and its measures per item.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sclmkb.common.artifacts.texts import Role

ItemScores = Mapping[str, NDArray[np.float64]]
"""The value of each item, by measure, each ``[Q]``."""


class MediaTask(ABC):
    """What one head of the multi-task transceiver is for.

    Attributes:
        name: by which settings and commands name it.
        modality: kind of media that it is about.
        measures: how each measure is written; the first one is the main one.
        scale: the main measure divided by it is near 1 where it is good; tasks are averaged so for selection.
    """

    name: ClassVar[str]
    modality: ClassVar[str] = "pictures"
    measures: ClassVar[Mapping[str, str]]
    scale: ClassVar[float] = 1.0

    @property
    def main(self) -> str:
        """The measure that is selected and drawn."""
        return next(iter(self.measures))

    @abstractmethod
    def score(self, outputs: Sequence[Any], references: Sequence[Any]) -> ItemScores:
        """Return the value of every item by measure.

        Args:
            outputs: texts or pictures that the receiver gave.
            references: of each, the texts that people gave, or the picture that was sent.
        """


class TextTask(MediaTask):
    """A task whose output is a text.

    Attributes:
        role: of the texts of a corpus that are its targets.
        prompt: what the fusion center reads beside the medium; empty: each sample has a question of its own.
    """

    role: ClassVar[Role]
    prompt: ClassVar[str]


def plain(text: str) -> str:
    """Return a text in lower case, without marks and repeated spaces."""
    return " ".join(re.sub(r"[^\w\s]", " ", text.lower()).split())
