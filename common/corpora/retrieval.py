"""Reads a corpus artifact for retrieval: pictures as 8-bit tensors, captions with their identities."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from sclmkb.common.artifacts import Artifact
from sclmkb.common.corpora.base import WORDING
from sclmkb.common.errors import UserError

SAME_WORDING = "label"
"""The wording of captions that training knows; every other one differs from it. Real corpora have one wording,
``caption``, which is read as this one."""


@dataclass(frozen=True, kw_only=True)
class RetrievalSplit:
    """One split of a corpus in memory; I identities, N pictures, C captions.

    Attributes:
        split: its name.
        item_ids: id of each picture.
        pictures: RGB, 8 bits, on white.
        picture_identity: which identity each picture shows, 0 to I - 1.
        row_ids: id of each caption.
        texts: the captions.
        wordings: how each caption is worded.
        caption_identity: which identity each caption describes.
    """

    split: str
    item_ids: list[str]
    pictures: UInt8[Tensor, "N 3 S S"]
    picture_identity: Int[Tensor, " N"]
    row_ids: list[str]
    texts: list[str]
    wordings: list[str]
    caption_identity: Int[Tensor, " C"]

    def relevant(self, captions: Int[Tensor, " Q"]) -> Bool[Tensor, "Q N"]:
        """Return which pictures match each of some captions."""
        return self.caption_identity[captions][:, None] == self.picture_identity

    def with_wording(self, wording: str) -> Int[Tensor, " Q"]:
        """Return the indices of captions of a wording; ``same`` is the trained one, ``changed`` all others."""
        if wording == "changed":
            chosen = [i for i, w in enumerate(self.wordings) if w != SAME_WORDING]
        else:
            named = SAME_WORDING if wording == "same" else wording
            chosen = [i for i, w in enumerate(self.wordings) if w == named]
        return torch.tensor(chosen, dtype=torch.long)


def load_retrieval_split(corpus: Artifact, split: str, picture_size: int) -> RetrievalSplit:
    """Read a split; captions whose identity has no picture are left out, and pictures without a caption stay.

    Raises:
        UserError: if the split does not exist, has no captions or no pictures, or a picture cannot be read.
    """
    items = corpus.table("items", split).to_pylist() if split in corpus.splits else []
    captions = corpus.table("captions", split).to_pylist() if split in corpus.splits else []
    number = {identity: i for i, identity in enumerate(sorted({item["identity"] for item in items}))}
    captions = [caption for caption in captions if caption["identity"] in number]
    if not captions:
        raise UserError(
            f"the corpus at {corpus.root} is empty: split '{split}' has no caption with a picture; make it again"
            " (sclmkb-gen corpus)"
        )
    return RetrievalSplit(
        split=split,
        item_ids=[item["item_id"] for item in items],
        pictures=_decode(items, Path(corpus.plan["notes"].get("root", "")), picture_size),
        picture_identity=torch.tensor([number[item["identity"]] for item in items]),
        row_ids=[caption["row_id"] for caption in captions],
        texts=[caption["text"] for caption in captions],
        wordings=[SAME_WORDING if caption["wording"] == WORDING else caption["wording"] for caption in captions],
        caption_identity=torch.tensor([number[caption["identity"]] for caption in captions]),
    )


def _decode(items: Sequence[dict[str, Any]], root: Path, size: int) -> Tensor:
    pictures = torch.empty(len(items), 3, size, size, dtype=torch.uint8)
    for i, item in enumerate(items):
        data, path = item["media"]["bytes"], item["media"]["path"]
        if data is None and path is None:
            raise UserError("the corpus holds captions alone: make it again with --set media=path or media=embed")
        try:
            with Image.open(io.BytesIO(data) if data is not None else root / path) as picture:
                rgb = _on_white(picture)
        except (UnidentifiedImageError, OSError):
            where = "" if data is not None else f" at {root / path}"
            raise UserError(f"picture '{item['item_id']}'{where} of the corpus cannot be read: make it again") from None
        if rgb.size != (size, size):
            rgb = rgb.resize((size, size), Image.Resampling.BILINEAR)
        pictures[i] = torch.from_numpy(np.array(rgb)).permute(2, 0, 1)
    return pictures


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.mode == "RGB":
        return picture.copy()
    rgba = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
