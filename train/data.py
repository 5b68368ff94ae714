"""Batches for the semantic transceiver: captions, generated captions and pictures of the same identities."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from sclmkb.common.artifacts import Artifact
from sclmkb.common.corpora.retrieval import RetrievalSplit
from sclmkb.common.errors import UserError
from sclmkb.common.seeds import make_generator


class Batch(NamedTuple):
    """B captions of identities, each with one of its generated captions, and a picture of the first P of them.

    Attributes:
        source: embeddings of the source captions ``[B, t]``.
        generated: embeddings of a generated caption of each, the source's where there is none ``[B, t]``.
        has_generated: whether there is one ``[B]``.
        num_generated: how many there are to choose from ``[B]``.
        identity: what each caption describes ``[B]``.
        pictures: ``[P, 3, S, S]``, 8 bits.
        picture_identity: what each picture shows ``[P]``.
    """

    source: Tensor
    generated: Tensor
    has_generated: Tensor
    num_generated: Tensor
    identity: Tensor
    pictures: Tensor
    picture_identity: Tensor


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What training draws batches from; C captions, G generated captions.

    Attributes:
        split: the training split.
        embeddings: of the captions ``[C, t]``.
        generated_embeddings: of all generated captions ``[G, t]``.
        generated_of: for each caption the rows of ``generated_embeddings``, padded with -1, ``[C, most]``.
        seed: every batch follows from it and the step.
    """

    split: RetrievalSplit
    embeddings: Float[Tensor, "C t"]
    generated_embeddings: Float[Tensor, "G t"]
    generated_of: Int[Tensor, "C most"]
    seed: int

    def batch(self, step: int, num_captions: int, num_pictures: int) -> Batch:
        """Return the batch of a step, augmented; the same step always gives the same batch.

        Pictures cost a hundred times what captions do: captions without one serve the others as contrast.

        An epoch goes through the captions in an order of its own; the last batch of an epoch is filled from the
        next one's order.
        """
        draw = make_generator(self.seed, "batch", step)
        chosen = self._captions_of(step, num_captions)
        generated, count = self.generated_of[chosen], (self.generated_of[chosen] >= 0).sum(1)
        pick = (torch.rand(len(chosen), generator=draw) * count).long()
        row = generated.gather(1, pick[:, None])[:, 0] if generated.shape[1] else torch.full_like(chosen, -1)
        source = self.embeddings[chosen]
        text = torch.where((row >= 0)[:, None], self._generated(row), source)
        identity = self.split.caption_identity[chosen]
        shown = identity[:num_pictures]
        index = self._pictures_of(shown, draw)
        return Batch(
            source=source,
            generated=text,
            has_generated=row >= 0,
            num_generated=count,
            identity=identity,
            pictures=augment(self.split.media.take(index).values, draw),
            picture_identity=shown,
        )

    def _captions_of(self, step: int, num_captions: int) -> Tensor:
        total = len(self.embeddings)
        positions = torch.arange(step * num_captions, (step + 1) * num_captions)
        epochs = positions // total
        first, last = int(epochs[0]), int(epochs[-1])
        orders = [
            torch.randperm(total, generator=make_generator(self.seed, "epoch", e)) for e in range(first, last + 1)
        ]
        return torch.cat(orders)[positions - first * total]

    def _generated(self, row: Tensor) -> Tensor:
        if not len(self.generated_embeddings):
            return torch.zeros(len(row), self.embeddings.shape[1])
        return self.generated_embeddings[row.clamp(min=0)]

    def _pictures_of(self, identity: Tensor, draw: torch.Generator) -> Tensor:
        """Draw a picture of every identity."""
        first, count = self._picture_ranges
        pick = (torch.rand(len(identity), generator=draw) * count[identity]).long()
        return self._picture_order[first[identity] + pick]

    @cached_property
    def _picture_order(self) -> Tensor:
        return self.split.media_identity.argsort(stable=True)

    @cached_property
    def _picture_ranges(self) -> tuple[Tensor, Tensor]:
        count = self.split.media_identity.bincount()
        return count.cumsum(0) - count, count


def augment(pictures: UInt8[Tensor, "B 3 S S"], generator: torch.Generator) -> UInt8[Tensor, "B 3 S S"]:
    """Shift, zoom by up to 15 % and mirror every picture at random, with its border repeated; no colour changes."""
    num, _, size, _ = pictures.shape
    most = max(size // 16, 1)
    shift = torch.randint(-most, most + 1, (2, num, 1), generator=generator)
    zoom = 0.85 + 0.3 * torch.rand(num, 1, generator=generator)
    mirror = torch.rand(num, 1, generator=generator) < 0.5
    center = (size - 1) / 2
    places = ((torch.arange(size) - center) * zoom + center).round().long()
    rows = (places + shift[0]).clamp(0, size - 1)
    columns = (torch.where(mirror, places.flip(1), places) + shift[1]).clamp(0, size - 1)
    flat = (rows[:, :, None] * size + columns[:, None, :]).flatten(1)
    return pictures.flatten(2).gather(2, flat[:, None, :].expand(-1, 3, -1)).reshape(pictures.shape)


def drop_entries(
    embeddings: Float[Tensor, "B t"], mean: Float[Tensor, "t"], share: float, generator: torch.Generator
) -> Float[Tensor, "B t"]:
    """Set entries to their mean at random, and scale the others up: dropout of what tells captions apart."""
    kept = torch.rand(embeddings.shape, generator=generator) >= share
    return mean + (embeddings - mean) * kept / (1 - share)


def load_generated(sdg: Artifact, row_ids: Sequence[str]) -> list[list[str]]:
    """Return the accepted generated captions of each source caption, joined by row id, best first.

    Raises:
        UserError: if not one of the row ids is known there.
    """
    rows = sdg.table("rows", columns=["row_id", "state", "captions"]).to_pylist()
    accepted = {row["row_id"]: row["captions"] for row in rows if row["state"] == "ok"}
    if rows and not {row["row_id"] for row in rows} & set(row_ids):
        raise UserError(
            f"the generated captions at {sdg.root} belong to another corpus: no row id is in the training split; make"
            " them again (sclmkb-gen sdg)"
        )
    return [list(accepted.get(row_id, [])) for row_id in row_ids]


def index_generated(captions: Sequence[Sequence[str]]) -> tuple[list[str], Int[Tensor, "C most"]]:
    """Return all generated captions in one list, and for each source caption their places, padded with -1."""
    most = max((len(texts) for texts in captions), default=0)
    places = torch.full((len(captions), most), -1, dtype=torch.long)
    flat: list[str] = []
    for i, texts in enumerate(captions):
        places[i, : len(texts)] = torch.arange(len(flat), len(flat) + len(texts))
        flat += texts
    return flat, places
