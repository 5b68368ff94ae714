"""What a search shows of the items that it finds: identity, caption, a drawing, and the sound itself."""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import torch
from PIL import Image

from sclmkb.common.artifacts import Artifact
from sclmkb.common.corpora.media_store import AudioForm, MotionForm
from sclmkb.common.corpora.retrieval import SAME_WORDING, RetrievalSplit
from sclmkb.evaluate.draw_media import draw_motion, draw_picture, draw_spectrogram, skeleton_edges

_SOUNDS = {
    b"RIFF": "audio/wav",
    b"OggS": "audio/ogg",
    b"fLaC": "audio/flac",
    b"ID3": "audio/mpeg",
    b"\xff\xfb": "audio/mpeg",
}


class Sound(NamedTuple):
    """A sound file.

    Attributes:
        data: its bytes.
        media_type: for a browser.
    """

    data: bytes
    media_type: str


class Items:
    """The items of a split, as one checkpoint's encoder takes them; the files behind them are read when asked for.

    Attributes:
        split: ids, captions and decoded items.
        identities: name of each item's identity.
    """

    def __init__(self, corpus: Artifact, split: RetrievalSplit) -> None:
        self.corpus, self.split = corpus, split
        self._place: dict[str, tuple[str, int]] = {}
        named: dict[str, str] = {}
        for shard in corpus.plan["shards"]:
            if shard["split"] == split.split:
                table = corpus.shard_table("items", shard["name"], ["item_id", "identity"]).to_pydict()
                for row, (item, identity) in enumerate(zip(table["item_id"], table["identity"], strict=True)):
                    self._place[item], named[item] = (shard["name"], row), identity
        self.identities = [named[item] for item in split.item_ids]
        self._captions = _one_caption_each(split)
        self._media = lru_cache(maxsize=2)(self._read_media)

    def __len__(self) -> int:
        return len(self.split.item_ids)

    def caption(self, index: int) -> str:
        """Return a caption of an item's identity, worded as in training where there is one; empty without any."""
        return self._captions.get(int(self.split.media_identity[index]), "")

    def described_by(self, text: str) -> set[int]:
        """Return the items that a text describes, if it is a caption of the split; otherwise nobody knows."""
        found = {int(self.split.caption_identity[i]) for i, known in enumerate(self.split.texts) if known == text}
        return {i for i, identity in enumerate(self.split.media_identity.tolist()) if identity in found}

    def draw(self, index: int) -> Image.Image:
        """Draw an item: a picture, a strip of stick figures, or a spectrogram."""
        media = self.split.media
        values, length = media.take(torch.tensor([index]))
        seen = values[0].numpy()
        if isinstance(media.form, MotionForm):
            return draw_motion(seen[: int(length)], skeleton_edges(self.corpus.plan["notes"], seen.shape[1]))
        if isinstance(media.form, AudioForm):
            return draw_spectrogram(seen[: int(length)], int(length) * media.form.hop_ms / 1000)
        return draw_picture(seen, self._file(index))

    def sound(self, index: int) -> Sound | None:
        """Return an item's sound file; None if it is no sound that a browser may play."""
        data = self._file(index) if isinstance(self.split.media.form, AudioForm) else None
        kinds = [kind for start, kind in _SOUNDS.items() if data is not None and data.startswith(start)]
        return Sound(data, kinds[0]) if data is not None and kinds else None

    def _file(self, index: int) -> bytes | None:
        shard, row = self._place[self.split.item_ids[index]]
        media = self._media(shard)[row].as_py()
        if media["bytes"] is not None:
            return bytes(media["bytes"])
        try:
            path = Path(self.corpus.plan["notes"].get("root", "")) / str(media["path"])
            return path.read_bytes()
        except (OSError, TypeError):
            return None

    def _read_media(self, shard: str) -> pa.ChunkedArray:
        return self.corpus.shard_table("items", shard, ["media"]).column("media")


def _one_caption_each(split: RetrievalSplit) -> dict[int, str]:
    captions: dict[int, str] = {}
    for same in (True, False):
        for identity, text, wording in zip(split.caption_identity.tolist(), split.texts, split.wordings, strict=True):
            if (wording == SAME_WORDING) == same:
                captions.setdefault(identity, text)
    return captions
