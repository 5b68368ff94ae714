"""What every reader of a corpus gives: entries, and the problems that kept one out.

::

    annotation files ─► entries() ─► read_entries: captions vetted, duplicates out ─► entries, problems
    media files ───────────────────► read_media, checked one at a time ─────────────► bytes or a problem

A reader only walks its layout. What is wrong with an entry becomes a :class:`Problem` that names file and row; nothing
is dropped without one.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

from pydantic import Field

from sclmkb.common.artifacts.files import sha256_file
from sclmkb.common.artifacts.schemas import ROLE, WORDING
from sclmkb.common.config import Settings
from sclmkb.common.errors import UserError
from sclmkb.common.modalities.base import media_problem, modality_of
from sclmkb.generate.corpora.readers.roles import find_unpaired

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")

SPLITS = ("train", "val", "test")


class ReaderSettings(Settings):
    """Settings that every reader of files has."""

    media: Literal["path", "embed", "none"] = Field(
        default="path",
        description="path: each medium by its path relative to the data's folder; embed: as bytes in the artifact; "
        "none: captions alone",
    )
    splits: tuple[Literal["train", "val", "test"], ...] = Field(
        default=("train", "val", "test"),
        min_length=1,
        description="splits to read; files of other splits need not exist",
    )
    encoding: str | None = Field(
        default=None, description="character encoding of the annotation files; default: that of the layout"
    )
    max_items: int | None = Field(
        default=None,
        ge=1,
        description="number of items per split, taken from the start, to try things out; default: all",
    )
    max_caption_chars: int = Field(
        default=2000, ge=1, description="most characters per caption; longer captions are listed in `problems`"
    )
    shard_size: int | None = Field(
        default=None, ge=1, description="items per shard; default: 128 with embedded media, 8,192 without"
    )

    @property
    def items_per_shard(self) -> int:
        """Items per shard, the default resolved."""
        return self.shard_size or (128 if self.media == "embed" else 8192)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One item with its texts.

    Attributes:
        file: annotation file, relative to the data's folder.
        row: number of the entry in that file, from 1.
        split: ``train``, ``val`` or ``test``.
        item_id: unique in the corpus.
        identity: what a caption and an item must share to be a match.
        group: entries of one group never fall into two splits.
        captions: index and text; the index stays when another caption is quarantined.
        source: who recorded or drew it, where the layout says so.
        media: the item's file, relative to the data's folder; empty if it has none.
        wording: how the captions are worded; by their index where they differ.
        role: what the texts are to the item, ``caption``, ``question`` or ``answer``; by their index where they differ.
            The answers of a question follow it, before the next question.
    """

    file: str
    row: int
    split: str
    item_id: str
    identity: str
    group: str
    captions: tuple[tuple[int, object], ...]
    source: str = ""
    media: str = ""
    wording: str | Mapping[int, str] = WORDING
    role: str | Mapping[int, str] = ROLE

    def wording_of(self, index: int) -> str:
        """Return how the text of an index is worded."""
        return self.wording if isinstance(self.wording, str) else self.wording[index]

    def role_of(self, index: int) -> str:
        """Return what the text of an index is to the item."""
        return self.role if isinstance(self.role, str) else self.role[index]


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Something that was left out: where it stands and why."""

    file: str
    row: int
    reason: str
    split: str = ""
    item: str = ""


class Reader(ABC):
    """Reads one layout.

    Attributes:
        name: what the command calls it.
        title: what people call it.
        address: where to get the data.
        licence: under which terms.
        settings_type: its settings.
        merges_rows: whether several rows may give texts of one item; a caption that repeats another is left out.
        shares_captions: captions are told once for several items of an identity, with one of them: the others have
            none, and they stay if that item is quarantined.
        modality: name of what its items are; empty where each item's file says so.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    address: ClassVar[str]
    licence: ClassVar[str]
    settings_type: ClassVar[type[ReaderSettings]] = ReaderSettings
    merges_rows: ClassVar[bool] = False
    shares_captions: ClassVar[bool] = False
    modality: ClassVar[str] = ""

    def __init__(self, root: Path, settings: ReaderSettings) -> None:
        self.root, self.settings = root, settings

    @classmethod
    def find_root(cls) -> Path | None:
        """Return where the data lie if a user need not say, fetched first where needed; None if a user must say.

        Raises:
            UserError: if they cannot be had.
        """
        return None

    @abstractmethod
    def annotation_files(self) -> Sequence[Path]:
        """Return the files that captions and splits come from.

        Raises:
            UserError: if one, or the folder of the media, is missing.
        """

    def inputs(self) -> dict[str, str]:
        """Return a hash of everything that captions and splits come from, by name.

        Raises:
            UserError: as :meth:`annotation_files` does.
        """
        return {self.relative(path): sha256_file(path) for path in self.annotation_files()}

    @abstractmethod
    def entries(self) -> Iterator[Entry | Problem]:
        """Go through the layout, captions not yet vetted."""

    def read_media(self, entry: Entry) -> bytes:
        """Return the bytes of the entry's item.

        Raises:
            OSError: if its file cannot be read.
        """
        return (self.data_folder / entry.media).read_bytes()

    def notes(self) -> dict[str, Any]:
        """Return what else is worth knowing of the items, e.g. their ``frames_per_second``."""
        return {}

    @property
    def dataset(self) -> str:
        """Name of the corpus; every row id follows from it."""
        return self.name

    @property
    def data_folder(self) -> Path:
        """What paths of annotations and media are relative to."""
        return self.root

    def media_problem(self, entry: Entry, data: bytes) -> str:
        """Return what is wrong with the bytes of an item, empty if nothing is."""
        if not self.modality or not data:
            return media_problem(entry.media, data)
        return modality_of(self.modality).problem(data, PurePosixPath(entry.media).suffix.lower())

    def require(self, path: Path, *, is_media: bool = False) -> Path:
        """Return ``path`` if it exists.

        Raises:
            UserError: if not, with the address of the data.
        """
        if path.exists():
            return path
        mend = "; --set media=none reads the captions alone" if is_media else ""
        raise UserError(f"{path} is missing: get {self.title} from {self.address} and unpack it so{mend}")

    def relative(self, path: Path) -> str:
        """Return a path relative to the data's folder, with forward slashes."""
        return path.relative_to(self.data_folder).as_posix()


def read_entries(reader: Reader) -> tuple[list[Entry], list[Problem]]:
    """Walk a reader's layout; vet captions, names and splits, and keep duplicates apart.

    Returns:
        Entries in the order of the files, with clean captions, and what was left out.

    Raises:
        UserError: if a file is missing or not one entry is left.
    """
    found: dict[str, Entry] = {}
    split_of: dict[tuple[str, str], str] = {}
    problems: list[Problem] = []
    for raw in reader.entries():
        if isinstance(raw, Problem):
            problems.append(_readable(raw))
            continue
        if raw.split in SPLITS and raw.split not in reader.settings.splits:
            continue
        entry, wrong = _vet(raw, reader)
        problems += wrong
        if entry is None:
            continue
        earlier = found.get(entry.item_id)
        if earlier is not None:
            merged, reason = _merge(earlier, entry) if reader.merges_rows else (None, "")
            if merged is not None:
                found[entry.item_id] = merged
            else:
                reason = reason or f"the item is there already: row {earlier.row} of {earlier.file}"
                problems.append(_problem(entry, reason))
        elif leak := _other_split(split_of, entry):
            problems.append(_problem(entry, leak))
        else:
            found[entry.item_id] = entry
    if not found:
        first = f"; the first of {len(problems)} problems: {_where(problems[0])}" if problems else ""
        raise UserError(f"{reader.root} holds no entry of {reader.title} that can be read{first}")
    return list(found.values()), problems


def _other_split(split_of: dict[tuple[str, str], str], entry: Entry) -> str:
    """Note the split of the entry's identity and group; say so if one of them is in another split already."""
    for kind, name in (("identity", entry.identity), ("group", entry.group)):
        if (first := split_of.setdefault((kind, name), entry.split)) != entry.split:
            return f"{kind} '{name}' is in split {first} already"
    return ""


def _where(problem: Problem) -> str:
    return f"{problem.file} row {problem.row}: {problem.reason}"


def _merge(earlier: Entry, entry: Entry) -> tuple[Entry | None, str]:
    """Add the texts of another row of the same item; where it contradicts the first one, say how."""
    for name in ("split", "identity", "media"):
        if getattr(earlier, name) != getattr(entry, name):
            return None, f"row {earlier.row} of {earlier.file} gives the item another {name}"
    roles = {index: earlier.role_of(index) for index, _ in earlier.captions}
    known = {text for index, text in earlier.captions if roles[index] == ROLE}
    added = [(i, text) for i, text in entry.captions if entry.role_of(i) != ROLE or text not in known]
    if not entry.captions:
        return earlier, ""
    if not added:
        return None, f"repeats row {earlier.row} of {earlier.file}"
    start = max(roles, default=-1) + 1
    roles |= {place: entry.role_of(index) for place, (index, _) in enumerate(added, start)}
    texts = enumerate((text for _, text in added), start)
    return replace(earlier, captions=(*earlier.captions, *texts), role=roles), ""


def _vet(entry: Entry, reader: Reader) -> tuple[Entry | None, list[Problem]]:
    names = {"item": entry.item_id, "identity": entry.identity, "media": entry.media}
    for what, name in names.items():
        if _is_broken(name):
            return None, [_problem(entry, f"the name of the {what} is not UTF-8: set encoding, e.g. latin-1")]
    if not entry.item_id or not entry.identity:
        return None, [_problem(entry, "the item or its identity has no name")]
    if entry.split not in SPLITS:
        return None, [_problem(entry, f"split '{entry.split}' is none of {', '.join(SPLITS)}")]
    if entry.media and (".." in (path := PurePosixPath(entry.media)).parts or path.is_absolute()):
        return None, [_problem(entry, f"the file {entry.media} lies outside the data's folder")]
    problems, captions = [], []
    if not entry.captions and not reader.shares_captions:
        problems.append(_problem(entry, "no caption; the item stays without one"))
    vetted = [vet_caption(raw, reader.settings.max_caption_chars) for _, raw in entry.captions]
    roles = [entry.role_of(index) for index, _ in entry.captions]
    unpaired = find_unpaired(roles, [not reason for _, reason in vetted])
    for place, ((index, _), (text, reason)) in enumerate(zip(entry.captions, vetted, strict=True)):
        if reason := reason or unpaired.get(place, ""):
            problems.append(_problem(entry, f"{roles[place]} {index + 1}: {reason}"))
        else:
            captions.append((index, text))
    return replace(entry, captions=tuple(captions)), problems


def vet_caption(raw: object, max_chars: int) -> tuple[str, str]:
    """Return a caption with single spaces, and why it cannot be used (empty if it can).

    Example:
        >>> vet_caption(" A man  walks. ", 100)
        ('A man walks.', '')
        >>> vet_caption("   ", 100)
        ('', 'is empty')
    """
    if not isinstance(raw, str):
        return "", f"is no text but {type(raw).__name__}"
    text = " ".join(raw.split())
    if not text:
        return "", "is empty"
    if _is_broken(text):
        return "", "is not UTF-8: set encoding, e.g. latin-1"
    if _CONTROL.search(text):
        return "", "has control characters"
    if len(text) > max_chars:
        return "", f"has {len(text)} characters, more than max_caption_chars={max_chars}"
    return text, ""


def _is_broken(text: str) -> bool:
    """Whether a text holds surrogates: bytes that could not be decoded, or half a character."""
    return _SURROGATE.search(text) is not None


def _problem(entry: Entry, reason: str) -> Problem:
    return _readable(Problem(file=entry.file, row=entry.row, split=entry.split, item=entry.item_id, reason=reason))


def _readable(problem: Problem) -> Problem:
    """Escape what cannot be written as UTF-8."""
    item, reason = (t.encode("utf-8", "backslashreplace").decode() for t in (problem.item, problem.reason))
    return replace(problem, item=item, reason=reason, split=problem.split if problem.split in SPLITS else "")
