"""The items of a corpus, decoded once and read from a memory-mapped file.

::

    items of a split, shard by shard ─► decode ─► CACHE/media/KEY.values   all items that can be read, one after another
                         └─ unreadable ─► quarantined   KEY.json     ids, lengths, what was quarantined, checksum

The key is a hash of the items' contents and of the form. At most one shard is in memory, whatever the corpus' size.
"""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from sclmkb.common.artifacts import Artifact, read_json, replacing, write_json
from sclmkb.common.cli import progress, say
from sclmkb.common.config import fingerprint
from sclmkb.common.corpora.media import kind_of
from sclmkb.common.corpora.media_decode import UnreadableError, decode_picture
from sclmkb.common.corpora.media_forms import AudioForm, MediaBatch, MediaForm, MediaKind, MotionForm, PictureForm
from sclmkb.common.errors import UserError
from sclmkb.common.models.pretrained import cache_dir

__all__ = [
    "AudioForm",
    "MediaBatch",
    "MediaForm",
    "MediaKind",
    "MediaStore",
    "MotionForm",
    "PictureForm",
    "media_kind",
]

_VERSION = 1
"""Raised whenever the decoders give other values: what they made before is made again."""
_NO_MEDIA = "the corpus holds captions alone: make it again with --set media=path or media=embed"


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

        Args:
            corpus: the corpus.
            split: its split.
            form: what the items shall look like.
            cache: folder of the cache, by default ``media`` in :func:`cache_dir`.

        Raises:
            UserError: if the corpus holds no media, media of another kind, or not one item that can be read.
        """
        if (kind := media_kind(corpus)) != form.kind:
            raise UserError(f"the corpus at {corpus.root} holds {kind}, but the encoder takes {form.kind}")
        folder = cache or cache_dir() / "media"
        stem = folder / _key(corpus, split, form)
        store = _read(stem, form)
        if store is None:
            _write(stem, corpus, split, form)
            store = _read(stem, form)
        if store is None:
            raise UserError(f"{stem}.values is not what was written there: is the disk of the cache in order?")
        if store.quarantined:
            item, reason = store.quarantined[0]
            total = len(store) + len(store.quarantined)
            say(
                f"corpus: {len(store.quarantined)} of {total} {form.kind} of split {split} cannot be read and are"
                f" left out; the first: '{item}': {reason}"
            )
        return store

    @property
    def kind(self) -> MediaKind:
        """What the items are."""
        return self.form.kind

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one item, without the batch."""
        return tuple(self._values.shape[1:])

    def __len__(self) -> int:
        return len(self.item_ids)

    def take(self, index: Int[Tensor, " B"]) -> MediaBatch:
        """Return copies of some items, in the order of ``index``, on the CPU."""
        return MediaBatch(torch.from_numpy(np.array(self._values[index.numpy()])), self._lengths[index])


def media_kind(corpus: Artifact) -> MediaKind:
    """Return what the items of a corpus are: as its plan says, or else as its first item looks.

    Raises:
        UserError: if it holds no media, or nobody can tell.
    """
    noted: MediaKind | None = corpus.plan["notes"].get("media_kind")
    if noted is not None:
        return noted
    for _, media in _cells(corpus, None):
        if media["bytes"] is None and media["path"] is None:
            raise UserError(_NO_MEDIA)
        if kind := kind_of(media["path"] or "", media["bytes"] or b""):
            return kind
        raise UserError(f"the corpus at {corpus.root} holds neither pictures, motion nor sound: '{media['path']}'")
    raise UserError(f"the corpus at {corpus.root} is empty; make it again (sclmkb-gen corpus)")


def _cells(corpus: Artifact, split: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Go through ids and media of the items, one shard in memory."""
    for shard in corpus.plan["shards"]:
        if split is None or shard["split"] == split:
            table = corpus.shard_table("items", shard["name"], ["item_id", "media"])
            for batch in table.to_batches(max_chunksize=64):
                for row in batch.to_pylist():
                    yield row["item_id"], row["media"]


def _root(corpus: Artifact) -> Path:
    return Path(corpus.plan["notes"].get("root", ""))


def _key(corpus: Artifact, split: str, form: MediaForm) -> str:
    files = sorted(
        (name, entry["sha256"])
        for shard, manifest in zip(corpus.plan["shards"], corpus.manifests, strict=True)
        if shard["split"] == split
        for name, entry in manifest["files"].items()
        if name.startswith("items/")
    )
    return fingerprint([_VERSION, form.fingerprint_fields(), files])


def _read(stem: Path, form: MediaForm) -> MediaStore | None:
    """Open what the cache holds; None if it holds nothing, or nothing whole."""
    values = stem.with_suffix(".values")
    try:
        notes = read_json(stem.with_suffix(".json"))
        if _checksum(values) != notes["checksum"]:
            return None
        mapped = np.memmap(values, dtype=form.dtype, mode="r", shape=tuple(notes["shape"]))
        quarantined = [(item, reason) for item, reason in notes["quarantined"]]
        return MediaStore(form, notes["item_ids"], mapped, notes["lengths"], quarantined)
    except (OSError, UserError, ValueError, KeyError, TypeError):
        return None


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _write(stem: Path, corpus: Artifact, split: str, form: MediaForm) -> None:
    """Decode a split into the cache."""
    root = _root(corpus)
    total = corpus.table("items", split, ["item_id"]).num_rows if split in corpus.splits else 0
    item_ids: list[str] = []
    lengths: list[int] = []
    quarantined: list[tuple[str, str]] = []
    shape: tuple[int, ...] | None = None
    checksum = 0
    with (
        replacing(stem.with_suffix(".values")) as temporary,
        temporary.open("wb") as file,
        progress(f"decoding {form.kind} of {split}", total=total) as bar,
    ):
        for item, media in _cells(corpus, split):
            try:
                values, length = _decode(_bytes(media, root), form)
                shape = shape or values.shape
                if values.shape != shape:
                    raise UnreadableError(f"has shape {list(values.shape)} where the others have {list(shape)}")
                block = np.ascontiguousarray(values).tobytes()
                file.write(block)
                checksum = zlib.crc32(block, checksum)
                item_ids.append(item)
                lengths.append(length)
            except UnreadableError as error:
                quarantined.append((item, str(error)))
            bar.advance()
        if not item_ids:
            first = f"; the first, '{quarantined[0][0]}': {quarantined[0][1]}" if quarantined else ""
            raise UserError(
                f"not one of the {total} {form.kind} of split '{split}' of the corpus at {corpus.root} can be"
                f" read{first}: make it again (sclmkb-gen corpus)"
            )
    write_json(
        stem.with_suffix(".json"),
        {
            "form": form.model_dump(mode="json"),
            "shape": [len(item_ids), *(shape or ())],
            "checksum": checksum,
            "item_ids": item_ids,
            "lengths": lengths,
            "quarantined": quarantined,
        },
    )


def _bytes(media: dict[str, Any], root: Path) -> bytes:
    if media["bytes"] is not None:
        return bytes(media["bytes"])
    if media["path"] is None:
        raise UserError(_NO_MEDIA)
    try:
        return Path(root, media["path"]).read_bytes()
    except OSError as error:
        raise UnreadableError(f"{root / media['path']}: {error.strerror or error}") from None


def _decode(data: bytes, form: MediaForm) -> tuple[NDArray[Any], int]:
    """Return an item and how many of its frames are real.

    Raises:
        UnreadableError: if it cannot be read.
    """
    if isinstance(form, PictureForm):
        return decode_picture(data, form), 1
    raise NotImplementedError(f"{form.kind} cannot be decoded yet")
