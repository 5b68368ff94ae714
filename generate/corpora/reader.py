"""What every reader of a corpus gives: entries, and the problems that kept one out.

::

    annotation files ─► entries() ─► vetting.read_entries: captions vetted, duplicates out ─► entries, problems
    media files ───────────────────► read_media, checked one at a time ─────────────────────► bytes or a problem

A reader only walks its layout; most do it record by record (:class:`~sclmkb.generate.corpora.records.RecordReader`).
What is wrong with an entry becomes a :class:`Problem` that names file and row; nothing is dropped without one.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

from pydantic import Field

from sclmkb.common.artifacts.files import sha256_file
from sclmkb.common.artifacts.schemas import ROLE, WORDING, Split
from sclmkb.common.config import Settings
from sclmkb.common.errors import UserError
from sclmkb.common.modalities.base import media_problem, modality_of


class ReaderSettings(Settings):
    """Settings that every reader of files has."""

    media: Literal["path", "embed", "none"] = Field(
        default="path",
        description="path: each medium by its path relative to the data's folder; embed: as bytes in the artifact; "
        "none: captions alone",
    )
    splits: tuple[Split, ...] = Field(
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
class Problem:
    """Something that was left out: why, and where it stands."""

    reason: str
    item: str = ""
    split: str = ""
    file: str = ""
    row: int = 0

    @property
    def text(self) -> str:
        """All of it in one line."""
        return f"{self.file} row {self.row}: {self.reason}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One item with its texts.

    Attributes:
        item_id: unique in the corpus.
        identity: what a caption and an item must share to be a match.
        group: entries of one group never fall into two splits.
        split: ``train``, ``val`` or ``test``.
        captions: index and text; the index stays when another caption is quarantined.
        source: who recorded or drew it, where the layout says so.
        media: the item's file, relative to the data's folder; empty if it has none.
        wording: how the captions are worded; by their index where they differ.
        role: what the texts are to the item, ``caption``, ``question`` or ``answer``; by their index where they differ.
            The answers of a question follow it, before the next question.
        file: annotation file, relative to the data's folder.
        row: number of the entry in that file, from 1.
    """

    item_id: str
    identity: str
    group: str
    split: str
    captions: tuple[tuple[int, object], ...]
    source: str = ""
    media: str = ""
    wording: str | Mapping[int, str] = WORDING
    role: str | Mapping[int, str] = ROLE
    file: str = ""
    row: int = 0

    def wording_of(self, index: int) -> str:
        """Return how the text of an index is worded."""
        return self.wording if isinstance(self.wording, str) else self.wording[index]

    def role_of(self, index: int) -> str:
        """Return what the text of an index is to the item."""
        return self.role if isinstance(self.role, str) else self.role[index]

    def problem(self, reason: str) -> Problem:
        """Return what is said of the entry if it is left out."""
        return Problem(reason=reason, item=self.item_id, split=self.split, file=self.file, row=self.row)


class Reader(ABC):
    """Reads one layout.

    Attributes:
        name: what the command calls it.
        title: what people call it.
        address: where to get the data.
        licence: under which terms.
        settings_type: its settings.
        merges_rows: whether several rows may give texts of one item; a caption that repeats another is left out.
        shares_captions: captions belong to all items of an identity. Each item may give them, the first one tells each,
            and they stay if that item is quarantined.
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
        """Return a hash of everything that captions and splits come from, by name; errors as those of the files."""
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
