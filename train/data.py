"""Batches for the semantic transceiver: captions, generated captions and pictures of the same identities."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from sclmkb.common.artifacts import Artifact
from sclmkb.common.corpora.retrieval import RetrievalSplit
from sclmkb.common.errors import UserError
from sclmkb.common.seeds import make_generator


class Batch(NamedTuple):
    """B captions of identities, each with one of its generated captions, and P pictures of each identity.

    Attributes:
        source: embeddings of the source captions ``[B, t]``.
        generated: embeddings of a generated caption of each, the source's where there is none ``[B, t]``.
        has_generated: whether there is one ``[B]``.
        num_generated: how many there are to choose from ``[B]``.
        identity: what each caption describes ``[B]``.
        pictures: ``[B·P, 3, S, S]``, 8 bits.
        picture_identity: what each picture shows ``[B·P]``.
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

    def batch(self, step: int, num_captions: int, pictures_each: int) -> Batch:
        """Return the batch of a step, augmented; the same step always gives the same batch.

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
        index, shown = self._pictures_of(identity, pictures_each, draw)
        return Batch(
            source=source,
            generated=text,
            has_generated=row >= 0,
            num_generated=count,
            identity=identity,
            pictures=augment(self.split.pictures[index], draw),
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

    def _pictures_of(self, identity: Tensor, each: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw ``each`` different pictures of every identity (again from the start where it has fewer)."""
        same = self.split.picture_identity == identity[:, None]
        keys = torch.rand(same.shape, generator=draw).masked_fill(~same, -1.0)
        count = same.sum(1, keepdim=True)
        order = keys.argsort(dim=1, descending=True)
        slots = torch.arange(each).expand(len(identity), -1) % count
        return order.gather(1, slots).flatten(), identity.repeat_interleave(each)


def augment(pictures: UInt8[Tensor, "B 3 S S"], generator: torch.Generator) -> UInt8[Tensor, "B 3 S S"]:
    """Shift every picture by up to a sixteenth of its side, with its border repeated, and mirror half of them."""
    num, _, size, _ = pictures.shape
    most = max(size // 16, 1)
    shift = torch.randint(-most, most + 1, (num, 2), generator=generator)
    mirror = torch.rand(num, generator=generator) < 0.5
    places = torch.arange(size)
    rows = (places + shift[:, :1]).clamp(0, size - 1)
    columns = (torch.where(mirror[:, None], places.flip(0), places) + shift[:, 1:]).clamp(0, size - 1)
    return pictures.permute(0, 2, 3, 1)[
        torch.arange(num)[:, None, None], rows[:, :, None], columns[:, None, :]
    ].permute(0, 3, 1, 2)


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
