"""Vets what a reader gives: clean captions, whole names, known splits, nothing twice."""

import re
from dataclasses import replace
from pathlib import PurePosixPath

from sclmkb.common.artifacts.schemas import ROLE, SPLITS
from sclmkb.common.errors import UserError
from sclmkb.generate.corpora.reader import Entry, Problem, Reader
from sclmkb.generate.corpora.roles import find_unpaired

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")  # bytes that could not be decoded, or half a character


def read_entries(reader: Reader) -> tuple[list[Entry], list[Problem]]:
    """Walk a reader's layout; vet captions, names and splits, and keep duplicates apart.

    Returns:
        Entries in the order of the files, with clean captions, and what was left out.

    Raises:
        UserError: if a file is missing or not one entry is left.
    """
    found: dict[str, Entry] = {}
    split_of: dict[tuple[str, str], str] = {}
    told: set[tuple[str, object]] = set()
    problems: list[Problem] = []
    for raw in reader.entries():
        if isinstance(raw, Problem):
            problems.append(_readable(raw))
            continue
        if raw.split in SPLITS and raw.split not in reader.settings.splits:
            continue
        if reason := _unusable(raw):
            problems.append(_problem(raw, reason))
            continue
        entry, wrong = _with_clean_texts(raw, reader)
        problems += wrong
        if earlier := found.get(entry.item_id):
            entry, reason = _merged(earlier, entry, reader)
        else:
            reason = _other_split(split_of, entry)
        if reason:
            problems.append(_problem(raw, reason))
            continue
        found[entry.item_id] = _untold(entry, told) if reader.shares_captions else entry
    if not found:
        first = f"; the first of {len(problems)} problems: {problems[0].text}" if problems else ""
        raise UserError(f"{reader.root} holds no entry of {reader.title} that can be read{first}")
    return list(found.values()), problems


def _unusable(entry: Entry) -> str:
    """Return what is wrong with an entry but for its captions, empty if nothing is."""
    for what, name in {"item": entry.item_id, "identity": entry.identity, "media": entry.media}.items():
        if _SURROGATE.search(name):
            return f"the name of the {what} is not UTF-8: set encoding, e.g. latin-1"
    if not entry.item_id or not entry.identity:
        return "the item or its identity has no name"
    if entry.split not in SPLITS:
        return f"split '{entry.split}' is none of {', '.join(SPLITS)}"
    path = PurePosixPath(entry.media)
    return f"the file {path} lies outside the data's folder" if ".." in path.parts or path.is_absolute() else ""


def _other_split(split_of: dict[tuple[str, str], str], entry: Entry) -> str:
    """Note the split of the entry's identity and group; say so if one of them is in another split already."""
    for kind, name in (("identity", entry.identity), ("group", entry.group)):
        if (first := split_of.setdefault((kind, name), entry.split)) != entry.split:
            return f"{kind} '{name}' is in split {first} already"
    return ""


def _merged(earlier: Entry, entry: Entry, reader: Reader) -> tuple[Entry, str]:
    """Add the texts of another row of the same item; where that cannot be, say why."""
    there = f"row {earlier.row} of {earlier.file}"
    if not reader.merges_rows:
        return earlier, f"the item is there already: {there}"
    for name in ("split", "identity", "media"):
        if getattr(earlier, name) != getattr(entry, name):
            return earlier, f"{there} gives the item another {name}"
    roles = {index: earlier.role_of(index) for index, _ in earlier.captions}
    known = {text for index, text in earlier.captions if roles[index] == ROLE}
    added = [(i, text) for i, text in entry.captions if entry.role_of(i) != ROLE or text not in known]
    start = max(roles, default=-1) + 1
    roles |= {place: entry.role_of(index) for place, (index, _) in enumerate(added, start)}
    texts = enumerate((text for _, text in added), start)
    merged = replace(earlier, captions=(*earlier.captions, *texts), role=roles)
    return merged, "" if added or not entry.captions else f"repeats {there}"


def _with_clean_texts(entry: Entry, reader: Reader) -> tuple[Entry, list[Problem]]:
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


def _untold(entry: Entry, told: set[tuple[str, object]]) -> Entry:
    """Leave out the captions and labels that another item of the identity has told, and note the others."""
    captions = []
    for index, text in entry.captions:
        if entry.role_of(index) not in (ROLE, "label") or (entry.identity, text) not in told:
            told.add((entry.identity, text))
            captions.append((index, text))
    return replace(entry, captions=tuple(captions))


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
    if _SURROGATE.search(text):
        return "", "is not UTF-8: set encoding, e.g. latin-1"
    if _CONTROL.search(text):
        return "", "has control characters"
    if len(text) > max_chars:
        return "", f"has {len(text)} characters, more than max_caption_chars={max_chars}"
    return text, ""


def _problem(entry: Entry, reason: str) -> Problem:
    return _readable(entry.problem(reason))


def _readable(problem: Problem) -> Problem:
    """Escape what cannot be written as UTF-8."""
    item, reason = (t.encode("utf-8", "backslashreplace").decode() for t in (problem.item, problem.reason))
    return replace(problem, item=item, reason=reason, split=problem.split if problem.split in SPLITS else "")
