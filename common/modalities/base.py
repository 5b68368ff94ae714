"""What a kind of media is: how its files are known and checked, decoded, augmented and drawn.

A kind of media is one file: a :class:`MediaForm` and a :class:`Modality` that registers itself in :data:`MODALITIES`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from torch import Tensor

from sclmkb.common.config import Settings
from sclmkb.common.errors import UserError
from sclmkb.common.registry import Registry

NUM_CHANCES = 5
"""Uniform numbers per sample that its augmentation follows from."""
DRAWN_HEIGHT = 160
"""Height of a drawn item [pixels]."""
PAPER, INK, FAINT = "#ffffff", "#1c2024", "#9aa3ad"
"""Colours of drawings."""


class UnreadableError(ValueError):
    """The bytes are no such item; the message says why."""


class MediaForm(Settings):
    """What the items of a corpus look like once decoded, as an encoder asks for it."""

    dtype: ClassVar[str] = "float32"
    """How a value is stored."""

    kind: str = Field(description="the modality")

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Shape of one item; None where the corpus decides."""
        raise NotImplementedError

    def complete(self, given: Sequence[int] | None) -> tuple[int, ...]:
        """Return the shape of one item, where the corpus decides that of ``given``.

        Raises:
            ValueError: if that is needed and missing.
        """
        sizes = tuple(given or ())
        if None in self.shape and len(sizes) != len(self.shape):
            raise ValueError(f"the shape of one item is needed, {list(self.shape)}, not {list(sizes)}")
        return tuple(sizes[axis] if own is None else own for axis, own in enumerate(self.shape))


class MediaBatch(NamedTuple):
    """B items.

    Attributes:
        values: ``[B, ...]``; zeros where an item is shorter than its form.
        length: frames that are real ``[B]``; 1 for media without frames.
    """

    values: Tensor
    length: Tensor

    def to(self, device: torch.device) -> "MediaBatch":
        """Return the batch on a device."""
        return MediaBatch(self.values.to(device), self.length.to(device))


F = TypeVar("F", bound=MediaForm)


class Modality(ABC, Generic[F]):
    """One kind of media.

    Attributes:
        form: what its items look like once decoded.
        suffixes: of its files, in lower case with the dot.
        encoder: ``kind`` of the media encoder that is trained from scratch.
        draws_files: whether :meth:`draw_file` draws files.
        figure_width: of a drawn item in a figure [inches].
        sound_types: what a browser plays: first bytes of a file and its media type.
    """

    form: type[F]
    suffixes: ClassVar[tuple[str, ...]]
    encoder: ClassVar[str]
    draws_files: ClassVar[bool] = False
    figure_width: ClassVar[float] = 1.9
    sound_types: ClassVar[Mapping[bytes, str]] = {}

    @property
    def name(self) -> str:
        """What settings and artifacts call it: the ``kind`` of its form."""
        return str(self.form.model_fields["kind"].default)

    @abstractmethod
    def recognises(self, data: bytes) -> bool:
        """Return whether the first bytes of a file are those of this kind."""

    @abstractmethod
    def problem(self, data: bytes, suffix: str) -> str:
        """Return what is wrong with the bytes of a file, empty if nothing is."""

    def context(self, form: F, notes: Mapping[str, Any]) -> Any:
        """Return what the decoded values follow from beside bytes and form, as a JSON value, by the corpus's notes.

        Raises:
            UnreadableError: if the corpus does not say it.
        """
        return None

    @abstractmethod
    def decode(self, data: bytes, form: F, context: Any = None) -> tuple[NDArray[Any], int]:
        """Return the values of an item in the form's shape, padded with zeros, and how many frames are real.

        Raises:
            UnreadableError: if it cannot be read.
        """

    @abstractmethod
    def augment(self, batch: MediaBatch, chance: Float[Tensor, "B 5"]) -> MediaBatch:
        """Return a changed copy of a batch. The changes follow from uniform numbers and keep the meaning of an item."""

    @abstractmethod
    def draw(self, values: NDArray[Any], length: int, form: F, notes: Mapping[str, Any]) -> Image.Image:
        """Draw a decoded item of ``length`` real frames, :data:`DRAWN_HEIGHT` high, by the notes of its corpus."""

    def draw_file(self, data: bytes) -> Image.Image | None:
        """Draw an item as its file has it; None if that cannot be read."""
        return None


MODALITIES: Registry[Modality[Any]] = Registry("sclmkb.common.modalities")
"""The class of each kind of media by its name. All items of a corpus are of one kind."""


def modality_of(kind: str) -> Modality[Any]:
    """Return a kind of media by its name.

    Raises:
        UserError: if nothing is known of it.
    """
    if kind not in MODALITIES:
        raise UserError(f"there is no kind of media '{kind}': known are {', '.join(sorted(MODALITIES))}")
    return MODALITIES[kind]()


def recognise(name: str, data: bytes) -> Modality[Any] | None:
    """Return the kind of an item, by the suffix of its name, or else by its first bytes; None if neither tells."""
    suffix = PurePosixPath(name).suffix.lower()
    known = [modality_of(kind) for kind in MODALITIES]
    by_suffix = (modality for modality in known if suffix in modality.suffixes)
    return next(by_suffix, None) or next((modality for modality in known if modality.recognises(data)), None)


def media_problem(name: str, data: bytes) -> str:
    """Return what is wrong with a file's bytes, empty if nothing is; a file of no known kind only needs some."""
    if not data:
        return "the file is empty"
    modality = recognise(name, data)
    return modality.problem(data, PurePosixPath(name).suffix.lower()) if modality is not None else ""


def pad_frames(frames: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Return frames padded with zeros to ``count``."""
    return np.pad(frames, ((0, count - len(frames)), (0, 0)))
