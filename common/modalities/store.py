"""The items of a corpus in the form that an encoder asks for: decoded once, read from a memory-mapped file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.files import cache_dir
from sclmkb.common.console import say
from sclmkb.common.errors import UserError
from sclmkb.common.modalities.base import (
    MODALITIES,
    MediaBatch,
    MediaForm,
    Modality,
    modality_of,
)
from sclmkb.common.modalities.cache import NO_MEDIA, cells, open_decoded


class MediaStore:
    """N decoded items of one kind.

    Attributes:
        form: what they look like.
        item_ids: their ids, in the order of the corpus; those that can be read.
        quarantined: id and reason of each item that cannot.
    """

    def __init__(
        self,
        form: MediaForm,
        item_ids: Sequence[str],
        values: NDArray[Any],
        lengths: Sequence[int] | None = None,
        quarantined: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Hold items ``values [N, ...]``, in memory or mapped, with their ``lengths`` (by default all 1)."""
        self.form, self.item_ids = form, list(item_ids)
        self.quarantined = list(quarantined)
        self._values = values
        self._lengths = torch.tensor(list(lengths) if lengths is not None else [1] * len(values), dtype=torch.long)
        if not len(self.item_ids) == len(values) == len(self._lengths):
            raise ValueError(f"{len(self.item_ids)} ids, {len(values)} items and {len(self._lengths)} lengths")

    @classmethod
    def open(cls, corpus: Artifact, split: str, form: MediaForm, cache: Path | None = None) -> "MediaStore":
        """Open the items of a split, decoding them first where no cache holds them.

        The cache is by default the folder ``media`` in :func:`cache_dir`.

        Raises:
            UserError: if the corpus holds no media, media of another kind, or not one item that can be read.
        """
        if (kind := media_kind(corpus)) != form.kind:
            raise UserError(
                f"the corpus at {corpus.root} holds {kind}, but the encoder takes {form.kind}: train with --set"
                f" model.media.kind={modality_of(kind).encoder}"
            )
        found = open_decoded(corpus, split, form, cache or cache_dir() / "media")
        if found.quarantined:
            item, reason = found.quarantined[0]
            total = len(found.item_ids) + len(found.quarantined)
            say(
                f"corpus: {len(found.quarantined)} of {total} {form.kind} of split {split} cannot be read and are"
                f" left out; the first: '{item}': {reason}"
            )
        return cls(form, found.item_ids, found.values, found.lengths, found.quarantined)

    @property
    def modality(self) -> Modality[Any]:
        """What the items are."""
        return modality_of(self.form.kind)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one item, without the batch."""
        return tuple(self._values.shape[1:])

    def __len__(self) -> int:
        return len(self.item_ids)

    def take(self, index: Int[Tensor, " B"]) -> MediaBatch:
        """Return copies of some items, in the order of ``index``, on the CPU."""
        index = index.cpu()
        return MediaBatch(torch.from_numpy(np.array(self._values[index.numpy()])), self._lengths[index])


def media_kind(corpus: Artifact) -> str:
    """Return the name of what the items of a corpus are, as they say.

    Raises:
        UserError: if it holds no media, or nobody can tell.
    """
    item, media = next(cells(corpus), (None, None))
    if media is None:
        raise UserError(f"the corpus at {corpus.root} holds no item; make it again (sclmkb-gen corpus)")
    if media["bytes"] is None and media["path"] is None:
        raise UserError(NO_MEDIA)
    for shard in corpus.plan.shards:
        kinds: list[str] = corpus.shard_table("items", shard.name, ["modality"])["modality"].unique().to_pylist()
        if any(kinds):
            return next(filter(None, kinds))
    known = ", ".join(sorted(MODALITIES))
    raise UserError(f"item '{item}' of the corpus at {corpus.root} is of no known kind of media ({known})")
