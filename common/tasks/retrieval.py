"""Retrieval: a transmitted caption shall find the pictures, motions or sounds of what it describes."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from sclmkb.common.metrics import precision_of_ranks, ranks_in_gallery
from sclmkb.common.models.transceiver import Transceiver, embed_gallery
from sclmkb.common.tasks.base import EmbedMedia, Scores, Task, Wanted, register
from sclmkb.common.tasks.retrieval_corpus import RetrievalSplit
from sclmkb.common.tasks.retrieval_losses import IdentityClassifier, contrastive_loss, similarity_distribution_loss
from sclmkb.common.tasks.trained import JsccSettings

Measure = Literal["map", "rank1", "rank5", "rank10"]
MEASURES: Mapping[str, str] = {"map": "mAP", "rank1": "Rank@1", "rank5": "Rank@5", "rank10": "Rank@10"}
"""Columns of ``results``, and how they are written."""


class RetrievalTarget(NamedTuple):
    """What captions search; Q captions, N items.

    Attributes:
        gallery: embeddings of the items ``[N, d]``.
        item_identity: what each item shows ``[N]``.
        caption_identity: what each caption describes ``[Q]``.
    """

    gallery: Tensor
    item_identity: Tensor
    caption_identity: Tensor


class RetrievalLoss(nn.Module):
    """The loss of transmitted embeddings beside those of media, (7) and (8), and of a classifier of identities."""

    def __init__(self, settings: JsccSettings, num_identities: int) -> None:
        super().__init__()
        self.settings = settings
        self.classifier: IdentityClassifier | None = None
        if settings.identity_weight:
            width = settings.model.embedding_width
            self.classifier = IdentityClassifier(num_identities, width, settings.temperature)

    def forward(self, text: Float[Tensor, "B d"], wanted: Wanted) -> Float[Tensor, ""]:
        """Return the loss over all pairs of captions and media."""
        settings = self.settings
        positive = wanted.identity[:, None] == wanted.media_identity
        if settings.loss == "sdm":
            loss = similarity_distribution_loss(text, wanted.media, positive, settings.temperature)
        else:
            loss = contrastive_loss(text, wanted.media, positive, settings.temperature, settings.hard_negatives)
        if self.classifier is not None:
            sides = self.classifier(text, wanted.identity) + self.classifier(wanted.media, wanted.media_identity)
            loss = loss + settings.identity_weight * sides / 2
        return loss


def scores_of_ranks(ranks: Int[Tensor, "Q R"], present: Bool[Tensor, "Q R"]) -> Scores:
    """Return average precision and best rank of each query, of what :func:`ranks_in_gallery` returned."""
    return {"ap": precision_of_ranks(ranks, present).double().numpy(), "rank": ranks[:, 0].long().numpy()}


class Retrieval(Task):
    """Rank the gallery of a split by cosine; measured by mAP and Rank@1, 5 and 10."""

    name = "retrieval"
    measures = MEASURES
    score_columns: ClassVar = {"ap": pa.float64(), "rank": pa.int64()}  # the best relevant item's rank, from 1
    example_columns: ClassVar = {"item_ids": pa.list_(pa.string()), "hits": pa.list_(pa.bool_())}  # best first

    def short(self, measure: str) -> str:
        """See :meth:`Task.short`."""
        return self.measures[measure].replace("Rank", "R")

    def criterion(self, settings: JsccSettings, num_identities: int) -> RetrievalLoss:
        """See :meth:`Task.criterion`."""
        return RetrievalLoss(settings, num_identities)

    def target(self, model: Transceiver, split: RetrievalSplit, embed: EmbedMedia = embed_gallery) -> RetrievalTarget:
        """See :meth:`Task.target`."""
        return RetrievalTarget(embed(model, split.media), split.media_identity, split.caption_identity)

    def score(self, outputs: Float[Tensor, "Q d"], target: RetrievalTarget) -> Scores:
        """See :meth:`Task.score`."""
        found = ranks_in_gallery(outputs, target.gallery, target.caption_identity, target.item_identity)
        return scores_of_ranks(*found)

    def values(self, measure: str, scores: Scores) -> NDArray[np.float64]:
        """Return the average precision of each query, or 1 for a hit."""
        if measure == "map":
            return scores["ap"]
        return (scores["rank"] <= int(measure.removeprefix("rank"))).astype(np.float64)

    def example(
        self, split: RetrievalSplit, target: RetrievalTarget, query: int, output: Float[Tensor, " d"], most: int
    ) -> dict[str, Any]:
        """Return the first items that a caption finds, and whether they show what it describes."""
        best = (target.gallery @ output).topk(min(most, len(target.gallery))).indices
        hits = split.media_identity[best] == split.caption_identity[query]
        return {"item_ids": [split.item_ids[i] for i in best.tolist()], "hits": hits.tolist()}


RETRIEVAL = register(Retrieval())
