"""Readers of records: JSON, JSON lines and CSV, entry by entry, so that one broken entry costs no other.

Bytes that do not fit the encoding become lone surrogates in the texts, where the vetting of entries finds them.
"""

import csv
import io
import itertools
import json
import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from sclmkb.common.errors import UserError
from sclmkb.generate.corpora.reader import Entry, Problem, Reader

_SPACE = re.compile(r"[ \t\r\n]*")


class Place(NamedTuple):
    """Where a record stands, as :class:`Entry` has it; the split is empty where only the record says it."""

    file: str
    row: int
    split: str


class RecordReader(Reader):
    """Reads a layout of which each record is an item, or a caption of one.

    A reader of this kind says which files hold the records, and what a record is.

    Attributes:
        table: name of the file of records, if it is one and the records say their split.
        fallback: encoding of files that are not UTF-8, if the settings name none.
    """

    table: ClassVar[str] = ""
    fallback: ClassVar[str | None] = None

    def tables(self) -> Sequence[tuple[Path, str]]:
        """Return the files, and the split of each, empty where the records say it."""
        return [(self.root / self.table, "")]

    @abstractmethod
    def entry(self, record: dict[str, Any], place: Place) -> Entry | Problem:
        """Return what a record is; file and row are filled in afterwards, and the split if it is empty."""

    def media_folders(self) -> Sequence[Path]:
        """Return the folders that the media lie in."""
        return ()

    def annotation_files(self) -> Sequence[Path]:
        """Return the files of records."""
        found = [self.require(path) for path, _ in self.tables()]
        for folder in self.media_folders() if self.settings.media != "none" else ():
            self.require(folder, is_media=True)
        return found

    def records(self, path: Path) -> Iterator[tuple[int, Any]]:
        """Go through the records of a file, each with its number from 1; what cannot be read is a :class:`Problem`."""
        text = read_text(path, self.settings.encoding, fallback=self.fallback)
        match path.suffix.lower():
            case ".csv":
                return csv_rows(text)
            case ".json":
                return ((row, value) for row, _, value in json_entries(text))
            case _:
                return json_lines(text)

    def entries(self) -> Iterator[Entry | Problem]:
        """Go through the records of all files."""
        for path, split in self.tables():
            for row, record in self.records(path):
                yield self.placed(record, Place(self.relative(path), row, split))

    def placed(self, record: Any, place: Place) -> Entry | Problem:
        """Return what a record is, with its place."""
        if isinstance(record, dict):
            found = self.entry(record, place)
        else:
            found = record if isinstance(record, Problem) else Problem(reason=f"no object but {type(record).__name__}")
        return replace(found, file=place.file, row=place.row, split=found.split or place.split)


def read_text(path: Path, encoding: str | None, *, fallback: str | None = None) -> str:
    """Return the text of a file, by default in UTF-8, or in ``fallback`` if it is not that as a whole.

    Raises:
        UserError: if the file cannot be read or Python does not know the encoding.
    """
    try:
        data = path.read_bytes()
        if encoding is None and fallback is not None:
            with suppress(UnicodeDecodeError):
                return data.decode("utf-8-sig")
        return data.decode(encoding or fallback or "utf-8-sig", "surrogateescape")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except LookupError:
        raise UserError(f"unknown encoding '{encoding}': e.g. utf-8, latin-1 or cp1252") from None


def json_entries(text: str) -> Iterator[tuple[int, str, Any | Problem]]:
    """Go through a JSON list or object.

    Yields:
        The number of each entry from 1, its name (empty in a list) and its value; where the file breaks, its last
        pair holds a :class:`Problem`.
    """
    decoder = json.JSONDecoder()
    position = _skip(text, 0)
    closing = {"[": "]", "{": "}"}.get(text[position : position + 1])
    row = 0
    if closing is None:
        yield 0, "", Problem(reason="holds neither a JSON list nor an object")
        return
    try:
        position = _skip(text, position + 1)
        while text[position : position + 1] != closing:
            row += 1
            if row > 1:
                position = _expect(text, position, ",")
            name = ""
            if closing == "}":
                name, position = decoder.raw_decode(text, position)
                position = _expect(text, position, ":")
            value, position = decoder.raw_decode(text, position)
            position = _skip(text, position)
            yield row, str(name), value
    except (ValueError, RecursionError) as error:
        at = getattr(error, "pos", position)
        yield row, "", Problem(reason=f"the JSON breaks at character {at} of {len(text)}; nothing after it was read")
        return
    if text[position + 1 :].strip():
        yield row + 1, "", Problem(reason=f"there is more after the end of the JSON, at character {position + 1}")


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    assert match is not None
    return match.end()


def _expect(text: str, position: int, character: str) -> int:
    position = _skip(text, position)
    if text[position : position + 1] != character:
        raise json.JSONDecodeError(f"'{character}' expected", text, position)
    return _skip(text, position + 1)


def json_lines(text: str) -> Iterator[tuple[int, Any | Problem]]:
    """Go through JSON lines; the number of a line counts from 1 and empty lines are skipped."""
    for row, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield row, json.loads(line)
        except (ValueError, RecursionError) as error:
            yield row, Problem(reason=f"no JSON: {getattr(error, 'msg', 'nested too deep')}")


def csv_rows(text: str) -> Iterator[tuple[int, dict[str, str] | Problem]]:
    """Go through the records of a CSV file with a header; the number of a record counts from 1."""
    reader = csv.DictReader(io.StringIO(text, newline=""), restkey="", restval=None)
    for row in itertools.count(1):
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield row, Problem(reason=f"no CSV record: {error}")
            continue
        if "" in record and "" not in (reader.fieldnames or ()):
            yield row, Problem(reason=f"has more than the {len(reader.fieldnames or ())} columns of the header")
        elif missing := [name for name, value in record.items() if value is None]:
            yield row, Problem(reason=f"has no column '{missing[0]}'")
        else:
            yield row, record


def json_list(text: str, name: str) -> Iterator[tuple[int, Any | Problem]]:
    """Go through the list that a JSON object holds under a name; the number of an entry counts from 1.

    What breaks off, or holds no such list, ends with a :class:`Problem`.
    """
    decoder = json.JSONDecoder()
    row = position = 0
    try:
        position = _expect(text, position, "{")
        while text[position : position + 1] != "}":
            key, position = decoder.raw_decode(text, position)
            position = _expect(text, position, ":")
            if key != name or text[position : position + 1] != "[":
                _, position = decoder.raw_decode(text, position)
                position = _skip(text, position)
                if text[position : position + 1] != "}":
                    position = _expect(text, position, ",")
                continue
            position = _skip(text, position + 1)
            while text[position : position + 1] != "]":
                row += 1
                if row > 1:
                    position = _expect(text, position, ",")
                value, position = decoder.raw_decode(text, position)
                position = _skip(text, position)
                yield row, value
            return
    except (ValueError, RecursionError) as error:
        at = getattr(error, "pos", position)
        yield row, Problem(reason=f"the JSON breaks at character {at} of {len(text)}; nothing after it was read")
        return
    yield 0, Problem(reason=f"holds no list '{name}'")
