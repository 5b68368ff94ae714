"""What a search shows of the items that it finds: identity, caption, a drawing, and the sound itself."""

import io
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import torch
from PIL import Image

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.modalities.store import MediaStore
from sclmkb.common.tasks.retrieval_corpus import SAME_WORDING, RetrievalSplit


class Sound(NamedTuple):
    """A sound file, and its media type for a browser."""

    data: bytes
    media_type: str


class Files:
    """The files of a split's items, read when asked for, and what the corpus says of them.

    Attributes:
        identity: of each item, by its id.
        source: who made it.
    """

    def __init__(self, corpus: Artifact, split: str) -> None:
        self.identity: dict[str, str] = {}
        self.source: dict[str, str] = {}
        self._place: dict[str, tuple[str, int]] = {}
        self._corpus = corpus
        for shard in corpus.plan.shards:
            if shard.split == split:
                table = corpus.shard_table("items", shard.name, ["item_id", "identity", "source"])
                for row, item in enumerate(table.to_pylist()):
                    self._place[item["item_id"]] = (shard.name, row)
                    self.identity[item["item_id"]], self.source[item["item_id"]] = item["identity"], item["source"]
        self._media = lru_cache(maxsize=2)(self._read_media)

    def read(self, item_id: str) -> bytes | None:
        """Return an item's file; None if it is not there any more."""
        shard, row = self._place[item_id]
        media = self._media(shard)[row].as_py()
        if media["bytes"] is not None:
            return bytes(media["bytes"])
        try:
            path = Path(self._corpus.plan.notes.get("root", "")) / str(media["path"])
            return path.read_bytes()
        except OSError:
            return None

    def _read_media(self, shard: str) -> pa.ChunkedArray:
        return self._corpus.shard_table("items", shard, ["media"]).column("media")


class Items:
    """The items of a split, as one checkpoint's encoder takes them.

    Attributes:
        corpus: where they are from.
        split: ids, captions and decoded items.
        identities: name of each item's identity.
    """

    def __init__(self, corpus: Artifact, split: RetrievalSplit) -> None:
        self.corpus, self.split = corpus, split
        self._files = Files(corpus, split.split)
        self.identities = [self._files.identity[item] for item in split.item_ids]
        self._captions = _one_caption_each(split)

    def __len__(self) -> int:
        return len(self.split.item_ids)

    def caption(self, index: int) -> str:
        """Return a caption of an item's identity, worded as in training where there is one; empty without any."""
        return self._captions.get(int(self.split.media_identity[index]), "")

    def described_by(self, text: str) -> set[int]:
        """Return the items that a text describes, if it is a caption of the split; otherwise none."""
        found = {int(self.split.caption_identity[i]) for i, known in enumerate(self.split.texts) if known == text}
        return {i for i, identity in enumerate(self.split.media_identity.tolist()) if identity in found}

    def draw(self, index: int) -> Image.Image:
        """Draw an item as its file has it, or else as the encoder sees it."""
        media = self.split.media
        data = self._files.read(self.split.item_ids[index]) if media.modality.draws_files else None
        drawn = media.modality.draw_file(data) if data is not None else None
        return drawn or draw_stored(media, index, self.corpus.plan.notes)

    def sound(self, index: int) -> Sound | None:
        """Return an item's sound file; None if it is no sound that a browser may play."""
        types = self.split.media.modality.sound_types
        data = self._files.read(self.split.item_ids[index]) if types else None
        return next((Sound(data, name) for start, name in types.items() if data and data.startswith(start)), None)


def draw_stored(media: MediaStore, index: int, notes: Mapping[str, Any]) -> Image.Image:
    """Draw a decoded item; ``notes`` are those of the corpus, e.g. the skeleton of motion."""
    values, length = media.take(torch.tensor([index]))
    return media.modality.draw(values[0].numpy(), int(length), media.form, notes)


def to_png(image: Image.Image) -> bytes:
    """Return an image as a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG", optimize=False, compress_level=3)
    return file.getvalue()


def _one_caption_each(split: RetrievalSplit) -> dict[int, str]:
    captions: dict[int, str] = {}
    for same in (True, False):
        for identity, text, wording in zip(split.caption_identity.tolist(), split.texts, split.wordings, strict=True):
            if (wording == SAME_WORDING) == same:
                captions.setdefault(identity, text)
    return captions
