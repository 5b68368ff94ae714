"""Media that can be sent: the test split of corpora, and the latest uploads, which are kept in memory alone."""

import hashlib
import math
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

import torch

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.texts import Asked, questions_of, texts_of
from sclmkb.common.errors import UserError
from sclmkb.common.modalities.base import MediaBatch, MediaForm, Modality, UnreadableError, modality_of, recognise
from sclmkb.common.modalities.image import is_animated
from sclmkb.common.modalities.store import media_kind
from sclmkb.common.modalities.video_files import read_frames
from sclmkb.common.tasks.media.samples import roles_of
from sclmkb.evaluate.search.items import Files, to_png

MOST_UPLOAD = 4 << 20
"""Largest upload [bytes]."""
_MOST_UPLOADS = 8
_SPLIT = "test"
_MOVING = {b"RIFF": "image/webp", b"\x89PNG": "image/png", b"GIF8": "image/gif"}
_CALLED = {"pictures": "picture", "audio": "sound", "video": "animation"}


class NoMediumError(UserError):
    """There is no such medium, or no longer."""


@dataclass(frozen=True, kw_only=True)
class Medium:
    """A picture, sound or clip.

    Attributes:
        key: its name in addresses.
        item_id: its id in the corpus, or that of the upload.
        title: where it is from.
        kind: the modality.
        data: the file.
        asked: what people asked about it and answered.
        captions: how people described it; row ids and texts.
    """

    key: str
    item_id: str
    title: str
    kind: str
    data: bytes
    asked: tuple[Asked, ...] = ()
    captions: tuple[tuple[str, str], ...] = ()

    @property
    def called(self) -> str:
        """What people call media of its kind."""
        return _CALLED.get(self.kind, self.kind)

    @property
    def media_type(self) -> str:
        """Media type of its file, if a browser shows or plays that as it is; otherwise empty."""
        moves = is_animated(self.data) or self.data.startswith(b"GIF8")
        known = {**modality_of(self.kind).sound_types, **(_MOVING if moves else {})}
        return next((name for start, name in known.items() if self.data.startswith(start)), "")

    def decode(self, form: MediaForm) -> MediaBatch:
        """Return it in the form that an encoder takes, a batch of one.

        Raises:
            UserError: if it cannot be read, or is of another kind.
        """
        if form.kind != self.kind:
            raise UserError(f"{self.item_id} is no medium of the kind {form.kind}")
        try:
            values, length = modality_of(self.kind).decode(self.data, form)
        except UnreadableError as error:
            raise UserError(f"{self.item_id}: {error}") from None
        return MediaBatch(torch.from_numpy(values.copy())[None], torch.tensor([length]))

    def draw(self) -> bytes:
        """Return a drawing, a PNG file; of a clip, its first frame where Pillow reads it.

        Raises:
            UserError: if it cannot be read.
        """
        modality = modality_of(self.kind)
        drawn = modality_of("pictures").draw_file(self.data) or modality.draw_file(self.data)
        if drawn is None:
            form = modality.form()
            values, length = self.decode(form)
            drawn = modality.draw(values[0].numpy(), int(length), form, {})
        return to_png(drawn)


class Shelf:
    """The test split of a corpus.

    Args:
        number: of the shelf, in the keys of its media.
        corpus: the corpus.

    Attributes:
        name: of the corpus.
        kind: of its media.
    """

    def __init__(self, number: int, corpus: Artifact) -> None:
        self.number, self.name, self.kind = number, corpus.root.name, media_kind(corpus)
        self._corpus, self._files = corpus, Files(corpus, _SPLIT)
        self._ids = list(self._files.identity)

    def __len__(self) -> int:
        return len(self._ids)

    def medium(self, row: int) -> Medium:
        """Return one medium.

        Raises:
            NoMediumError: if there is none of that number, or its file is gone.
        """
        if not 0 <= row < len(self):
            raise NoMediumError(f"there is no sample {row} of {self.name}: there are {len(self)}")
        item_id = self._ids[row]
        data = self._files.read(item_id)
        if data is None:
            raise NoMediumError(f"the file of sample {item_id} of {self.name} is gone")
        identity = self._files.identity[item_id]
        return Medium(
            key=f"{self.number}-{row}", item_id=item_id, title=self.name, kind=self.kind, data=data,
            asked=tuple(self._asked.get(identity, ())), captions=tuple(self._captions.get(identity, ())),
        )  # fmt: skip

    def others(self, row: int, count: int) -> list[str]:
        """Return the keys of media that come after one, from all over the split; going on so reaches all of them."""
        step = next(s for s in range(round(0.382 * len(self)) or 1, 2 * len(self) + 2) if math.gcd(s, len(self)) == 1)
        rows = [(row + step * i) % len(self) for i in range(1, min(count, len(self) - 1) + 1)]
        return [f"{self.number}-{one}" for one in rows]

    @cached_property
    def _asked(self) -> dict[str, list[Asked]]:
        found: dict[str, list[Asked]] = defaultdict(list)
        for one in questions_of(self._corpus, _SPLIT) if "question" in roles_of(self._corpus) else ():
            found[one.identity].append(one)
        return found

    @cached_property
    def _captions(self) -> dict[str, list[tuple[str, str]]]:
        found: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for text in texts_of(self._corpus, _SPLIT, ["row_id", "identity", "text"]).to_pylist():
            found[text["identity"]].append((text["row_id"], text["text"]))
        return found


class Library:
    """All media that can be chosen.

    Args:
        corpora: whose test splits are shown, at least one.
        kinds: of media that can be sent.

    Attributes:
        shelves: the corpora.
    """

    def __init__(self, corpora: Sequence[Artifact], kinds: Collection[str]) -> None:
        self.shelves = [Shelf(i, corpus) for i, corpus in enumerate(corpora)]
        self._kinds = kinds
        self._uploads: OrderedDict[str, Medium] = OrderedDict()
        self._lock = threading.Lock()

    def medium(self, key: str) -> Medium:
        """Return what a key names.

        Raises:
            NoMediumError: if it is unknown, or an upload that had to go for later ones.
        """
        with self._lock:
            if key in self._uploads:
                return self._uploads[key]
        shelf, _, row = key.partition("-")
        if shelf.isdecimal() and row.isdecimal() and int(shelf) < len(self.shelves):
            return self.shelves[int(shelf)].medium(int(row))
        if key.startswith("upload-"):
            raise NoMediumError(f"that upload is gone, the {_MOST_UPLOADS} latest are kept: upload it again")
        raise NoMediumError(f"there is no sample '{key[:40]}': choose one that the page shows")

    def place(self, key: str) -> tuple[Shelf, int]:
        """Return where a medium stands; an upload stands before the first one."""
        shelf, _, row = key.partition("-")
        return (self.shelves[int(shelf)], int(row)) if shelf.isdecimal() else (self.shelves[0], -1)

    def add(self, name: str, data: bytes) -> Medium:
        """Keep an upload; the oldest one goes if there are many.

        Raises:
            UserError: if it is too large, no medium, or of a kind that nothing here takes.
        """
        shown = name[-60:] or "the upload"
        if not data:
            raise UserError(f"{shown} is empty: choose a picture, a sound or an animation")
        if len(data) > MOST_UPLOAD:
            raise UserError(f"{shown} is too large: at most {MOST_UPLOAD >> 20} MiB are taken")
        modality = self._kind_of(name, data)
        wanted = " or ".join(f"a{'n' * (c[0] == 'a')} {c}" for k, c in _CALLED.items() if k in self._kinds)
        if modality is None:
            raise UserError(f"{shown} is no picture, sound or animation that can be read: choose {wanted}")
        if problem := modality.problem(data, PurePosixPath(name).suffix.lower()):
            raise UserError(f"{shown}: {problem}")
        if modality.name not in self._kinds:
            raise UserError(f"{shown}: no system here takes {modality.name}: choose {wanted}")
        key = f"upload-{hashlib.sha256(data).hexdigest()[:16]}"
        medium = Medium(key=key, item_id=key, title=shown, kind=modality.name, data=data)
        with self._lock:
            self._uploads[key] = medium
            self._uploads.move_to_end(key)
            while len(self._uploads) > _MOST_UPLOADS:
                self._uploads.popitem(last=False)
        return medium

    def _kind_of(self, name: str, data: bytes) -> Modality[MediaForm] | None:
        """Return the kind of a file, by its bytes rather than its name; None if it is none of those that are sent.

        What moves is a picture where nothing takes clips.
        """
        if "video" in self._kinds and (is_animated(data) or (data.startswith(b"GIF8") and _moves(data))):
            return modality_of("video")
        if is_animated(data):
            return modality_of("pictures")
        by_content = [modality_of(kind) for kind in _CALLED if modality_of(kind).recognises(data)]
        found = by_content[0] if by_content else recognise(name, data)
        return found if found is not None and found.name in _CALLED else None


def _moves(gif: bytes) -> bool:
    try:
        return len(read_frames(gif, 2)) > 1
    except UnreadableError:
        return False
