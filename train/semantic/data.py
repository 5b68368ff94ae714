"""What a training step is made of: rows of captions, generated captions and media of the same identities.

Batches are made from row numbers alone. Embeddings of captions, and media, lie in memory-mapped files; a step reads its
rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sclmkb.common.modalities.base import NUM_CHANCES
from sclmkb.common.seeds import make_generator
from sclmkb.common.tasks.retrieval_corpus import RetrievalSplit
from sclmkb.train.engine.loop import rows_in_turn


class Draw(NamedTuple):
    """B captions of identities, each with g of its generated captions, and an item of media for the first P of them.

    Attributes:
        caption: rows of the captions ``[B]``.
        generated: rows of generated captions, -1 where there are fewer, ``[B, g]``.
        num_generated: how many there are to choose from ``[B]``.
        identity: what each caption describes ``[B]``.
        media: rows of the media ``[P]``.
        media_identity: what each of them shows ``[P]``.
        chance: uniform numbers that their augmentation follows from ``[P, 5]``.
    """

    caption: Tensor
    generated: Tensor
    num_generated: Tensor
    identity: Tensor
    media: Tensor
    media_identity: Tensor
    chance: Tensor


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What training draws from; C captions.

    Attributes:
        split: the training split.
        generated_of: for each caption the rows of its generated captions, padded with -1, ``[C, most]``.
        seed: every draw follows from it and the step.
        captions_per_identity: captions of each identity in a batch, identities in turn; by default captions in
            turn.
        generated_per_caption: g.
    """

    split: RetrievalSplit
    generated_of: Int[Tensor, "C most"]
    seed: int
    captions_per_identity: int | None = None
    generated_per_caption: int = 1

    def draw(self, step: int, num_captions: int, num_media: int) -> Draw:
        """Return what a step is made of; the same step always gives the same.

        Media cost a hundred times as much as captions. Captions without one serve the others as contrast.

        An epoch goes through the captions, or the identities, in an order of its own; the last batch of an epoch is
        filled from the next one's order.
        """
        chance = make_generator(self.seed, "batch", step)
        if self.captions_per_identity is None:
            caption = self._in_turn(len(self.split.row_ids), step, num_captions)
        else:
            described = self._described[
                self._in_turn(len(self._described), step, num_captions // self.captions_per_identity)
            ]
            caption = self._captions.some(described, self.captions_per_identity, chance)
        identity = self.split.caption_identity[caption]
        generated = self.generated_of[caption]
        count = (generated >= 0).sum(1)
        width = self.generated_per_caption
        first = (torch.rand(len(caption), generator=chance) * count).long()
        place = (first[:, None] + torch.arange(width)) % count.clamp(min=1)[:, None]
        there = torch.arange(width) < count[:, None]
        rows = generated.gather(1, place) if generated.shape[1] else torch.full_like(place, -1)
        shown = identity[:num_media]
        group = self.captions_per_identity or 1
        return Draw(
            caption=caption,
            generated=rows.where(there, -1),
            num_generated=count,
            identity=identity,
            media=self._media.some(shown[::group], group, chance)[:num_media],
            media_identity=shown,
            chance=torch.rand(num_media, NUM_CHANCES, generator=chance),
        )

    def _in_turn(self, total: int, step: int, num: int) -> Tensor:
        return rows_in_turn(total, step, num, self.seed, "epoch")

    @cached_property
    def _captions(self) -> "_ByIdentity":
        return _ByIdentity(self.split.caption_identity, self.split.num_identities)

    @cached_property
    def _media(self) -> "_ByIdentity":
        return _ByIdentity(self.split.media_identity, self.split.num_identities)

    @cached_property
    def _described(self) -> Tensor:
        return torch.nonzero(self.split.caption_identity.bincount())[:, 0]


class _ByIdentity:
    """Rows in the order of their identity."""

    def __init__(self, identity: Tensor, num_identities: int) -> None:
        self._order = identity.argsort(stable=True)
        self._count = identity.bincount(minlength=num_identities)
        self._first = self._count.cumsum(0) - self._count

    def some(self, identity: Tensor, each: int, chance: torch.Generator) -> Tensor:
        """Return ``each`` rows of every identity, side by side; they are different if it has as many."""
        count = self._count[identity]
        start = (torch.rand(len(identity), generator=chance) * count).long()
        place = (start[:, None] + torch.arange(each)) % count[:, None]
        return self._order[self._first[identity][:, None] + place].flatten()


def drop_entries(
    embeddings: Float[Tensor, "B t"], mean: Float[Tensor, "t"], share: float, generator: torch.Generator
) -> Float[Tensor, "B t"]:
    """Set entries to their mean at random, and scale the others up: dropout of what tells captions apart."""
    kept = torch.rand(embeddings.shape, generator=generator).to(embeddings.device) >= share
    return mean + (embeddings - mean) * kept / (1 - share)


def index_generated(captions: Sequence[Sequence[str]]) -> tuple[list[str], Int[Tensor, "C most"]]:
    """Return all generated captions in one list, and for each source caption their places, padded with -1."""
    most = max((len(texts) for texts in captions), default=0)
    places = torch.full((len(captions), most), -1, dtype=torch.long)
    flat: list[str] = []
    for i, texts in enumerate(captions):
        places[i, : len(texts)] = torch.arange(len(flat), len(flat) + len(texts))
        flat += texts
    return flat, places
