"""What stands behind the page: the systems, each loaded when it is first asked for, and the media that can be sent."""

import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.console import say
from sclmkb.common.errors import UserError
from sclmkb.common.link.uses import UsesChannelSettings
from sclmkb.common.modalities.image import PictureForm
from sclmkb.common.tasks.media.data import PICTURE_SIZE, corpus_for
from sclmkb.common.tasks.media.trained import KIND, MEDIA_TASKS, TrainedMtsc
from sclmkb.evaluate.measure.systems import finished_runs
from sclmkb.evaluate.multitask.items import picture_png
from sclmkb.evaluate.multitask.page.media import Library
from sclmkb.evaluate.multitask.page.systems import Digital, Encoders, Output, PageSystem, Semantic, Sending
from sclmkb.evaluate.separate.ldpc import has_sionna

FIRST_SNR_DB = 10.0
"""SNR that a page shows at first [dB]."""
_MAIN = "mtsc"


class MediaDesk:
    """The systems and media of a page; each system sends one thing at a time.

    Args:
        checkpoints: of ``sclmkb-train mtsc``, at least one.
        corpora: whose test splits are shown.

    Attributes:
        systems: what can be chosen: the checkpoints, and the digital link where its parts are installed.
        library: the media.

    Raises:
        UserError: if no task of a checkpoint has a corpus.
    """

    def __init__(self, checkpoints: Sequence[TrainedMtsc], corpora: Sequence[Artifact]) -> None:
        encoders = Encoders()
        first = sorted(checkpoints, key=lambda one: (one.settings.system != _MAIN, one.settings.system))
        semantic = [Semantic(trained=trained, encoders=encoders) for trained in first]
        self.systems: list[PageSystem] = [*semantic]
        if has_sionna():
            self.systems.append(Digital(beside=semantic[0], corpora=corpora))
        else:
            say("serve: left out: the digital link, whose LDPC codes need Sionna: pip install sionna-no-rt")
        tasks = dict.fromkeys(task for system in semantic for task in system.tasks)
        shown = _corpora_of(list(tasks), corpora)
        self.library = Library(shown, {MEDIA_TASKS[task].modality for task in tasks})
        self._locks = [threading.Lock() for _ in self.systems]
        self.send = lru_cache(maxsize=256)(self._send)
        self.draw = lru_cache(maxsize=512)(lambda key: self.library.medium(key).draw())

    def load(self) -> None:
        """Send the first sample through the systems that are chosen at first, so that each is loaded."""
        medium = self.library.shelves[0].medium(0)
        for number in self.preselected():
            say(f"serve: loading {self.systems[number].name}")
            for task in self.tasks(number, medium.kind):
                self.send(number, medium.key, task, "what is it?", Sending(FIRST_SNR_DB, UsesChannelSettings(), 0))

    def preselected(self) -> list[int]:
        """Return which systems are compared at first: the first checkpoint, and the digital link."""
        return sorted({0, *(i for i, system in enumerate(self.systems) if isinstance(system, Digital))})

    def tasks(self, number: int, kind: str) -> list[str]:
        """Return what a system does with media of a kind.

        Raises:
            UserError: if there is no such system.
        """
        if not 0 <= number < len(self.systems):
            raise UserError(f"there is no system {number}: choose one from 0 to {len(self.systems) - 1}")
        return [task for task in self.systems[number].tasks if MEDIA_TASKS[task].modality == kind]

    def original(self, key: str) -> bytes:
        """Return the picture that is reconstructed, a PNG file; errors as :meth:`Library.medium`."""
        return picture_png(self.library.medium(key).decode(PictureForm(size=PICTURE_SIZE)).values[0])

    def _send(self, number: int, key: str, task: str, question: str, sending: Sending) -> Output:
        """Send a medium through a system, see :meth:`PageSystem.send`."""
        medium = self.library.medium(key)
        with self._locks[number]:
            return self.systems[number].send(medium, task, question, sending)


def open_mtsc(paths: Sequence[Path]) -> list[TrainedMtsc]:
    """Return the checkpoints of ``sclmkb-train mtsc`` in folders or below them.

    Raises:
        UserError: if there is none in one of the folders, or one cannot be read.
    """
    return [TrainedMtsc.load(root) for path in paths for root in finished_runs(path, KIND)]


def _corpora_of(tasks: Sequence[str], corpora: Sequence[Artifact]) -> list[Artifact]:
    """Return the corpora that tasks take, each once; says which task has none."""
    found: dict[Path, Artifact] = {}
    lacking: list[UserError] = []
    for task in tasks:
        try:
            corpus = corpus_for(task, corpora)
            found[corpus.root] = corpus
        except UserError as error:
            lacking.append(error)
            say(f"serve: no samples of {task}, uploads alone: {error}")
    if not found:
        raise lacking[0]
    return list(found.values())
