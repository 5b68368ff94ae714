"""Decodes the items of a corpus once, into a file that is mapped into memory.

::

    items, a shard at a time ─► decode, a few at once ─► KEY.values   those that can be read, one after another
                                       └─ unreadable ─► KEY.json     ids, lengths, what was quarantined, checksum

The key is a hash of the items' contents and of their form. Sizes and times of change of items beside the corpus are
checked each time. The contents are hashed again if one of these differs. Memory holds one shard and a few decoded
items, however large the corpus is.
"""

import hashlib
import os
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.files import (
    one_at_a_time,
    read_json,
    replacing,
    sha256_file,
    sweep_temporaries,
    write_json,
)
from sclmkb.common.config import fingerprint
from sclmkb.common.console import progress
from sclmkb.common.errors import UserError
from sclmkb.common.modalities.base import MediaForm, UnreadableError, modality_of

NO_MEDIA = "the corpus holds captions alone: make it again with --set media=path or media=embed"

_VERSION = 1
"""Raised whenever the decoders give other values: what they made before is made again."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """What :class:`~sclmkb.common.modalities.store.MediaStore` holds, its values mapped into memory to be read."""

    values: NDArray[Any]
    item_ids: list[str]
    lengths: list[int]
    quarantined: list[tuple[str, str]]


def open_decoded(corpus: Artifact, split: str, form: MediaForm, folder: Path) -> Decoded:
    """Open the decoded items of a split; where ``folder`` does not hold them whole, decode them first.

    Raises:
        UserError: if the corpus holds no media or not one item that can be read, or the form cannot be had.
    """
    stem = folder / _key(corpus, split, form, folder)
    found = _read(stem, form)
    if found is None:
        with one_at_a_time(stem):
            if (found := _read(stem, form)) is None:  # another process may just have written them
                sweep_temporaries(folder)
                _write(stem, corpus, split, form)
                found = _read(stem, form)
    if found is None:
        raise UserError(f"{stem}.values is not what was just written there: is the disk in order?")
    return found


def cells(corpus: Artifact, split: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Go through the ids of the items and their cells ``media``, with one shard in memory."""
    for shard in corpus.plan.shards:
        if split is None or shard.split == split:
            table = corpus.shard_table("items", shard.name, ["item_id", "media"])
            for batch in table.to_batches(max_chunksize=16):
                for row in batch.to_pylist():
                    yield row["item_id"], row["media"]


def read_bytes(corpus: Artifact, media: dict[str, Any]) -> bytes:
    """Return the bytes of an item, out of the corpus or of its file.

    Raises:
        UserError: if the corpus holds no media.
        UnreadableError: if the file cannot be read.
    """
    if media["bytes"] is not None:
        return bytes(media["bytes"])
    path = media_path(corpus, media)
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreadableError(f"{path}: {error.strerror or error}") from None


def media_path(corpus: Artifact, media: dict[str, Any]) -> Path:
    """Return where the file of an item lies.

    Raises:
        UserError: if the corpus holds no media.
    """
    if media["path"] is None:
        raise UserError(NO_MEDIA)
    return Path(corpus.plan.notes.get("root", ""), media["path"])


def _key(corpus: Artifact, split: str, form: MediaForm, folder: Path) -> str:
    shards = {shard.name for shard in corpus.plan.shards if shard.split == split}
    context = _context(corpus, form)
    contents = sorted(
        entry["sha256"]
        for manifest in corpus.manifests
        for name, entry in manifest["files"].items()
        if manifest["shard"] in shards and name.startswith("items/")
    )
    if "root" in corpus.plan.notes:  # by path: the corpus holds names alone
        contents.append(_hash_of_files(corpus, split, folder))
    return fingerprint([_VERSION, form.fingerprint_fields(), context, contents])


def _context(corpus: Artifact, form: MediaForm) -> Any:
    """Return what the decoded values follow from beside bytes and form."""
    try:
        return modality_of(form.kind).context(form, corpus.plan.notes)
    except UnreadableError as error:
        raise UserError(f"the corpus at {corpus.root} {error}") from None


def _hash_of_files(corpus: Artifact, split: str, folder: Path) -> str:
    """Return a hash of the contents of the items' files; it is kept beside a hash of what ``stat`` says of them."""
    seen = hashlib.sha256()
    for item, media in cells(corpus, split):
        path = media_path(corpus, media)
        try:
            known = path.stat()
            seen.update(f"{item}\x1f{path}\x1f{known.st_size}\x1f{known.st_mtime_ns}\x1e".encode())
        except OSError:
            seen.update(f"{item}\x1f{path}\x1e".encode())
    note = folder / f"{seen.hexdigest()[:16]}.files.json"
    try:
        return str(read_json(note)["sha256"])
    except (UserError, KeyError, TypeError):
        pass
    total = corpus.table("items", split, ["item_id"]).num_rows
    contents = hashlib.sha256()
    with progress(f"hashing the files of {split}", total=total) as bar:
        for item, media in cells(corpus, split):
            try:
                contents.update(f"{item}\x1f{sha256_file(media_path(corpus, media))}\x1e".encode())
            except OSError:
                contents.update(f"{item}\x1e".encode())
            bar.advance()
    write_json(note, {"sha256": contents.hexdigest()})
    return contents.hexdigest()


def _read(stem: Path, form: MediaForm) -> Decoded | None:
    """Open what the cache holds; None if that is nothing, or nothing whole."""
    values = stem.with_suffix(".values")
    try:
        notes = read_json(stem.with_suffix(".json"))
        shape = tuple(int(size) for size in notes["shape"])
        if _checksum(values) != notes["checksum"] or len(notes["lengths"]) != shape[0]:
            return None
        return Decoded(
            values=np.memmap(values, dtype=form.dtype, mode="r", shape=shape),
            item_ids=[str(item) for item in notes["item_ids"]],
            lengths=[int(length) for length in notes["lengths"]],
            quarantined=[(str(item), str(reason)) for item, reason in notes["quarantined"]],
        )
    except (OSError, UserError, ValueError, KeyError, TypeError, IndexError):
        return None


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _write(stem: Path, corpus: Artifact, split: str, form: MediaForm) -> None:
    """Decode a split into the cache; the JSON file comes last and says that the other one is whole."""
    total = corpus.table("items", split, ["item_id"]).num_rows
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
        for item, values, outcome in _decode_all(corpus, split, form):
            if values is None:
                quarantined.append((item, str(outcome)))
            elif values.shape != (shape := shape or values.shape):
                quarantined.append((item, f"has {values.shape[-1]} values a frame where others have {shape[-1]}"))
            else:
                block = np.ascontiguousarray(values).tobytes()
                file.write(block)
                checksum = zlib.crc32(block, checksum)
                item_ids.append(item)
                lengths.append(int(outcome))
            bar.advance()
        if shape is None:
            first = f"; the first, '{quarantined[0][0]}': {quarantined[0][1]}" if quarantined else ""
            raise UserError(
                f"not one of the {total} {form.kind} of split '{split}' of the corpus at {corpus.root} can be"
                f" read{first}; make it again (sclmkb-gen corpus)"
            )
    notes = {
        "form": form.model_dump(mode="json"),
        "shape": [len(item_ids), *shape],
        "checksum": checksum,
        "item_ids": item_ids,
        "lengths": lengths,
        "quarantined": quarantined,
    }
    write_json(stem.with_suffix(".json"), notes)


def _decode_all(corpus: Artifact, split: str, form: MediaForm) -> Iterator[tuple[str, NDArray[Any] | None, int | str]]:
    """Yield every item in order: its values and how many frames are real, or None and why it cannot be read."""
    modality, context = modality_of(form.kind), _context(corpus, form)

    def decode(cell: tuple[str, dict[str, Any]]) -> tuple[str, NDArray[Any] | None, int | str]:
        item, media = cell
        try:
            return item, *modality.decode(read_bytes(corpus, media), form, context)
        except UnreadableError as error:
            return item, None, str(error)

    threads = len(os.sched_getaffinity(0))
    source = cells(corpus, split)
    yield from map(decode, islice(source, 1))  # by this thread: libraries are imported at first use
    with ThreadPoolExecutor(threads) as pool:
        while some := list(islice(source, 4 * threads)):
            yield from pool.map(decode, some)
