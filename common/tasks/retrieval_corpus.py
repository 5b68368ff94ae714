"""Reads a corpus artifact for retrieval: pictures, motion or sound, and captions, with their identities."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.schemas import WORDING
from sclmkb.common.artifacts.texts import no_texts, texts_of
from sclmkb.common.errors import UserError
from sclmkb.common.modalities.base import MediaForm
from sclmkb.common.modalities.store import MediaStore

SAME_WORDING = "label"
"""The wording of captions that training knows; every other one differs from it. Real corpora have one wording,
``caption``, which is read as this one."""


@dataclass(frozen=True, kw_only=True)
class RetrievalSplit:
    """One split of a corpus; I identities, N items that can be read (pictures, motion or sound), C captions.

    Attributes:
        split: its name.
        media: the items, read from disk.
        media_identity: which identity each item shows, 0 to I - 1.
        row_ids: id of each caption.
        texts: the captions.
        wordings: how each caption is worded.
        caption_identity: which identity each caption describes.
    """

    split: str
    media: MediaStore
    media_identity: Int[Tensor, " N"]
    row_ids: list[str]
    texts: list[str]
    wordings: list[str]
    caption_identity: Int[Tensor, " C"]

    @property
    def item_ids(self) -> list[str]:
        """Id of each item."""
        return self.media.item_ids

    @property
    def num_identities(self) -> int:
        """I."""
        return int(max(self.caption_identity.max(), self.media_identity.max())) + 1

    def with_wording(self, wording: str) -> Int[Tensor, " Q"]:
        """Return the indices of captions of a wording; ``same`` is the trained one, ``changed`` all others."""
        named = SAME_WORDING if wording in ("same", "changed") else wording
        chosen = [i for i, w in enumerate(self.wordings) if (w == named) != (wording == "changed")]
        return torch.tensor(chosen, dtype=torch.long)


def load_retrieval_split(corpus: Artifact, split: str, form: MediaForm) -> RetrievalSplit:
    """Read a split, with items in a form.

    Captions whose identity has no item that can be read are left out; items without a caption stay.

    Raises:
        UserError: if the split does not exist, has no captions or no items that can be read, or those of another kind.
    """
    there = split in corpus.splits
    identities = corpus.table("items", split, ["item_id", "identity"]).to_pylist() if there else []
    captions = texts_of(corpus, split).to_pylist() if there else []
    if there and not captions:
        raise no_texts(corpus, [split])
    described = {item["identity"] for item in identities}
    if not any(caption["identity"] in described for caption in captions):
        raise UserError(
            f"the corpus at {corpus.root} is empty: split '{split}' has no caption with an item; make it again"
            " (sclmkb-gen corpus)"
        )
    media = MediaStore.open(corpus, split, form)
    identity_of = {item["item_id"]: item["identity"] for item in identities}
    shown = [identity_of[item] for item in media.item_ids]
    number = {identity: i for i, identity in enumerate(sorted(set(shown)))}
    captions = [caption for caption in captions if caption["identity"] in number]
    if not captions:
        raise UserError(f"split '{split}' of the corpus at {corpus.root} has no caption whose item can be read")
    return RetrievalSplit(
        split=split,
        media=media,
        media_identity=torch.tensor([number[identity] for identity in shown]),
        row_ids=[caption["row_id"] for caption in captions],
        texts=[caption["text"] for caption in captions],
        wordings=[SAME_WORDING if caption["wording"] == WORDING else caption["wording"] for caption in captions],
        caption_identity=torch.tensor([number[caption["identity"]] for caption in captions]),
    )
