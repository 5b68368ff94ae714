"""Training and validation splits of a corpus; where it has no validation split, a part of training is held out."""

from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.console import say
from sclmkb.common.errors import UserError
from sclmkb.common.modalities.base import MediaBatch, MediaForm
from sclmkb.common.modalities.store import MediaStore
from sclmkb.common.seeds import derive_seed
from sclmkb.common.tasks.retrieval_corpus import RetrievalSplit, load_retrieval_split


class PartOfMedia(MediaStore):
    """Some items of a store; nothing is copied."""

    def __init__(self, store: MediaStore, rows: Int[Tensor, " M"]) -> None:
        self.form, self.quarantined = store.form, []
        self.item_ids = [store.item_ids[row] for row in rows.tolist()]
        self._store, self._rows = store, rows

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one item, without the batch."""
        return self._store.shape

    def take(self, index: Int[Tensor, " B"]) -> MediaBatch:
        """Return copies of some items, in the order of ``index``, on the CPU."""
        return self._store.take(self._rows[index.cpu()])


def load_splits(
    corpus: Artifact,
    form: MediaForm,
    holdout_share: float,
    load: Callable[[Artifact, str, MediaForm], RetrievalSplit] = load_retrieval_split,
) -> tuple[RetrievalSplit, RetrievalSplit]:
    """Return the splits ``train`` and ``val``.

    A corpus without ``val`` (ICFG-PEDES) lends a share of the groups of its training split for validation, always the
    same. ``load`` reads a split, as the task does.

    Raises:
        UserError: as :func:`load_retrieval_split`; if a row is in two splits; if there are too few groups to hold out.
    """
    train = load(corpus, "train", form)
    _check_apart(corpus, train)
    if "val" in corpus.splits:
        return train, load(corpus, "val", form)
    table = corpus.table("captions", "train", ["row_id", "group"]).to_pydict()
    group_of_row = dict(zip(table["row_id"], table["group"], strict=True))
    groups = [group_of_row[row_id] for row_id in train.row_ids]
    order = sorted(set(groups), key=lambda group: (derive_seed("holdout", group), group))
    held = set(order[: max(1, round(holdout_share * len(order)))])
    if len(order) == len(held):
        raise UserError(
            f"the corpus at {corpus.root} has no split 'val', and too few groups in 'train' to hold some out"
        )
    identities = {int(i) for i, group in zip(train.caption_identity, groups, strict=True) if group in held}
    say(f"jscc: no split 'val' in the corpus: {len(held)} of {len(order)} training groups are held out for validation")
    return _part(train, identities, "train", inside=False), _part(train, identities, "val", inside=True)


def _check_apart(corpus: Artifact, train: RetrievalSplit) -> None:
    """Refuse a corpus in which a caption or an item of the training split is in another one."""
    for split in (other for other in corpus.splits if other != train.split):
        for table, column, known in (("captions", "row_id", train.row_ids), ("items", "item_id", train.item_ids)):
            shared = set(known) & set(corpus.table(table, split, [column]).column(column).to_pylist())
            if shared:
                raise UserError(
                    f"the corpus at {corpus.root} has {len(shared)} {table} in splits '{train.split}' and '{split}',"
                    f" first '{min(shared)}': make it again (sclmkb-gen corpus)"
                )


def _part(whole: RetrievalSplit, identities: set[int], name: str, *, inside: bool) -> RetrievalSplit:
    """Return the captions and media of some identities, or of all others, numbered anew."""
    chosen = torch.tensor([(i in identities) == inside for i in range(whole.num_identities)])
    number = chosen.cumsum(0) - 1
    captions, media = (torch.nonzero(chosen[of])[:, 0] for of in (whole.caption_identity, whole.media_identity))
    return RetrievalSplit(
        split=name,
        media=PartOfMedia(whole.media, media),
        media_identity=number[whole.media_identity[media]],
        row_ids=[whole.row_ids[i] for i in captions],
        texts=[whole.texts[i] for i in captions],
        wordings=[whole.wordings[i] for i in captions],
        caption_identity=number[whole.caption_identity[captions]],
    )
