"""Reads JSON, JSON lines and CSV entry by entry, so that one broken entry costs no other.

Bytes that do not fit the encoding become lone surrogates in the texts, where the vetting of entries finds them.
"""

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sclmkb.common.errors import UserError

_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class Broken:
    """An entry, or the rest of a file, that cannot be read."""

    reason: str


def read_text(path: Path, encoding: str | None, *, fallback: str | None = None) -> str:
    """Return the text of a file.

    Args:
        path: the file.
        encoding: its encoding; by default UTF-8.
        fallback: encoding to take if none was asked for and the file is not UTF-8 as a whole.

    Raises:
        UserError: if the file cannot be read or Python does not know the encoding.
    """
    try:
        data = path.read_bytes()
        if encoding is None and fallback is not None:
            try:
                return data.decode("utf-8-sig")
            except UnicodeDecodeError:
                return data.decode(fallback, "surrogateescape")
        return data.decode(encoding or "utf-8-sig", "surrogateescape")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except LookupError:
        raise UserError(f"unknown encoding '{encoding}': e.g. utf-8, latin-1 or cp1252") from None


def json_entries(text: str) -> Iterator[tuple[int, str, Any | Broken]]:
    """Go through a JSON list or object.

    Yields:
        The number of each entry from 1, its name (empty in a list) and its value; where the file breaks, its last
        pair holds :class:`Broken`.
    """
    decoder = json.JSONDecoder()
    position = _skip(text, 0)
    closing = {"[": "]", "{": "}"}.get(text[position : position + 1])
    row = 0
    if closing is None:
        yield 0, "", Broken("holds neither a JSON list nor an object")
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
        yield row, "", Broken(f"the JSON breaks at character {at} of {len(text)}; nothing after it was read")
        return
    if text[position + 1 :].strip():
        yield row + 1, "", Broken(f"there is more after the end of the JSON, at character {position + 1}")


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    assert match is not None
    return match.end()


def _expect(text: str, position: int, character: str) -> int:
    position = _skip(text, position)
    if text[position : position + 1] != character:
        raise json.JSONDecodeError(f"'{character}' expected", text, position)
    return _skip(text, position + 1)


def json_lines(text: str) -> Iterator[tuple[int, Any | Broken]]:
    """Go through JSON lines; the number of a line counts from 1 and empty lines are skipped."""
    for row, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield row, json.loads(line)
        except (ValueError, RecursionError) as error:
            yield row, Broken(f"no JSON: {getattr(error, 'msg', 'nested too deep')}")


def csv_rows(text: str) -> Iterator[tuple[int, dict[str, str] | Broken]]:
    """Go through the records of a CSV file with a header; the number of a record counts from 1."""
    reader = csv.DictReader(io.StringIO(text, newline=""), restkey="", restval=None)
    row = 0
    while True:
        row += 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield row, Broken(f"no CSV record: {error}")
            continue
        if "" in record and "" not in (reader.fieldnames or ()):
            yield row, Broken(f"has more than the {len(reader.fieldnames or ())} columns of the header")
        elif missing := [name for name, value in record.items() if value is None]:
            yield row, Broken(f"has no column '{missing[0]}'")
        else:
            yield row, record


def json_list(text: str, name: str) -> Iterator[tuple[int, Any | Broken]]:
    """Go through the list that a JSON object holds under a name; the number of an entry counts from 1.

    What breaks off, or holds no such list, ends with :class:`Broken`.
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
        yield row, Broken(f"the JSON breaks at character {at} of {len(text)}; nothing after it was read")
        return
    yield 0, Broken(f"holds no list '{name}'")
