"""What a run will do, frozen before it starts: shards of row ids, settings, inputs and versions."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import metadata
from itertools import pairwise
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sclmkb.common.artifacts.schemas import SCHEMA_VERSION
from sclmkb.common.config import fingerprint
from sclmkb.common.errors import UserError

ROWS_PREFIX = "plan-rows-"
"""Begins the name of the file with the row ids of a plan."""


def make_row_id(dataset: str, split: str, item: str, caption_index: int) -> str:
    """Return the id of a caption: a hash of where it stands, never of its text (captions repeat)."""
    text = "\x1f".join((dataset, split, item, str(caption_index)))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


class SavedRowIds(Sequence[str]):
    """Row ids of a shard of a saved plan, which are read when one of them is asked for."""

    def __init__(self, read: Callable[[], pa.ChunkedArray], start: int, count: int) -> None:
        """Take what reads the ids of all shards, and which of them are meant."""
        self._read, self._start, self._count = read, start, count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        return iter(self._read().slice(self._start, self._count).to_pylist())

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        if isinstance(index, slice):
            return tuple(self)[index]
        row_id: str = self._read()[self._start + range(self._count)[index]].as_py()
        return row_id


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One unit of work of a plan: a name, a split and the ids of its rows."""

    name: str
    split: str
    row_ids: Sequence[str]


def make_shards(
    split: str, row_ids: Sequence[str], shard_size: int, groups: Sequence[str] | NDArray[np.int64] | None = None
) -> list[Shard]:
    """Cut the rows of a split into shards named ``SPLIT-00000-of-00004``.

    Neighbours of one group stay together, which makes their shard larger.
    """
    ends = [0]
    while ends[-1] < len(row_ids):
        end = min(ends[-1] + shard_size, len(row_ids))
        while groups is not None and end < len(row_ids) and groups[end] == groups[end - 1]:
            end += 1
        ends.append(end)
    parts = [tuple(row_ids[start:end]) for start, end in pairwise(ends)] or [()]
    return [
        Shard(name=f"{split}-{i:05d}-of-{len(parts):05d}", split=split, row_ids=part) for i, part in enumerate(parts)
    ]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run will do, frozen before it starts.

    Attributes:
        kind: what the artifact is: ``corpus``, ``sdg``, ``csi`` or ``predicted``.
        tables: schema of each table that every shard holds.
        settings: the fields that can change the output (:meth:`Settings.fingerprint_fields`).
        shards: the units of work.
        inputs: content fingerprint of every artifact or file read.
        versions: versions of the packages that can change the output, by distribution name.
        notes: saved with the plan but free to differ on resume (speed-only settings, attribution).
    """

    kind: str
    tables: Mapping[str, pa.Schema]
    settings: Mapping[str, Any]
    shards: Sequence[Shard]
    inputs: Mapping[str, str]
    versions: Sequence[str] = ()
    notes: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the plan as saved in ``plan.json``."""
        plan: dict[str, Any] = {
            "kind": self.kind,
            "schema_version": SCHEMA_VERSION,
            "settings": dict(self.settings),
            "inputs": dict(self.inputs),
            "versions": {name: _version(name) for name in ("sclmkb", *self.versions)},
            "tables": sorted(self.tables),
            "shards": [{"name": s.name, "split": s.split, "num_rows": len(s.row_ids)} for s in self.shards],
            "row_ids": hash_row_ids(shard.row_ids for shard in self.shards),
        }
        return {**plan, "fingerprint": fingerprint(plan), "notes": dict(self.notes or {})}

    def rows(self) -> pa.Table:
        """Return the row ids of all shards in order, as saved beside ``plan.json``."""
        ids = [pa.array(list(shard.row_ids), pa.string()) for shard in self.shards]
        places = np.repeat(np.arange(len(ids), dtype=np.int32), [len(part) for part in ids])
        names = pa.DictionaryArray.from_arrays(places, pa.array([shard.name for shard in self.shards], pa.string()))
        return pa.table({"shard": names, "row_id": pa.chunked_array(ids, pa.string())})


def hash_row_ids(parts: Iterable[Sequence[str]]) -> str:
    """Return the sha256 of row ids in order: the same whatever wrote their file."""
    digest = hashlib.sha256()
    for ids in parts:
        if ids:
            digest.update(("\x1f".join(ids) + "\x1f").encode())
    return digest.hexdigest()


def rows_name(sha256: str) -> str:
    """Return the name of the file beside ``plan.json`` that holds the row ids of this hash."""
    return f"{ROWS_PREFIX}{sha256[:8]}.parquet"


@dataclass(frozen=True, kw_only=True)
class SavedPlan:
    """What ``plan.json`` says of an artifact: as a :class:`Plan`, and the fingerprint of all but the notes."""

    kind: str
    settings: dict[str, Any]
    inputs: dict[str, str]
    versions: dict[str, str]
    tables: list[str]
    shards: list[Shard]
    notes: dict[str, Any]
    fingerprint: str

    @classmethod
    def from_json(cls, saved: Mapping[str, Any], read_row_ids: Callable[[], pa.ChunkedArray]) -> "SavedPlan":
        """Return what :meth:`Plan.to_json` made of a plan; ``read_row_ids`` is called whenever a row id is asked for.

        Raises:
            KeyError: if something is missing.
        """
        shards, start = [], 0
        for shard in saved["shards"]:
            ids = SavedRowIds(read_row_ids, start, shard["num_rows"])
            shards.append(Shard(name=shard["name"], split=shard["split"], row_ids=ids))
            start += len(ids)
        return cls(shards=shards, **{f.name: saved[f.name] for f in fields(cls) if f.name != "shards"})


def parse_ranges(text: str, count: int) -> list[int]:
    """Return the numbers that a string like ``0-3,7`` stands for, each below ``count``.

    Raises:
        UserError: if it is no such string, or names a number that is not there.

    Example:
        >>> parse_ranges("0-3,7", 8)
        [0, 1, 2, 3, 7]
    """
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        if not (first.isdecimal() and (last.isdecimal() if dash else True)) or int(first) > int(last or first):
            raise UserError(f"'{text}' names no shards: write numbers and ranges like 0-3,7")
        if int(last or first) >= count:
            raise UserError(f"'{text}': there is no shard {last or first}, the run has 0 to {count - 1}")
        numbers.update(range(int(first), int(last or first) + 1))
    return sorted(numbers)


def format_ranges(numbers: Iterable[int]) -> str:
    """Return the string that :func:`parse_ranges` reads.

    Example:
        >>> format_ranges([7, 0, 1, 2, 3])
        '0-3,7'
    """
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def plan_differences(existing: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return what differs between a saved plan and a wanted one, each in a few words; notes do not count."""
    groups = ("settings", "inputs", "versions")
    for key in ("kind", "schema_version"):  # all the rest differs too, then
        if existing.get(key) != wanted.get(key):
            return [f"{key}: {existing.get(key)!r} there, {wanted.get(key)!r} now"]
    found = []
    for group in groups:
        old, new = existing.get(group, {}), wanted.get(group, {})
        for key in sorted({*old, *new}):
            there, now = old.get(key, "absent"), new.get(key, "absent")
            if there != now:
                found.append(f"{key}: {there!r} there, {now!r} now")
    rest = [key for key in wanted if key not in (*groups, "fingerprint", "notes")]
    return found + [f"{key} differ" for key in rest if existing.get(key) != wanted[key]]


def dataset_card(title: str, description: str, details: str, plan: SavedPlan, files: Sequence[str]) -> str:
    """Return a README with the header by which ``datasets`` finds tables and splits.

    Args:
        title: heading, one line.
        description: first paragraph.
        details: more, in Markdown, before the settings; may be empty.
        plan: of the artifact.
        files: the files of all shards, ``TABLE/SPLIT-…``. They are named one by one: a pattern would also match what
            a process left that was killed while another one committed the same shard.
    """
    rows = Counter[str]()
    for shard in plan.shards:
        rows[shard.split] += len(shard.row_ids)
    lines = ["---", f"pretty_name: {title}", "configs:"]
    for table in plan.tables:
        lines += [f"- config_name: {table}", "  data_files:"]
        for split in rows:
            lines += [f"  - split: {split}", "    path:"]
            lines += [f"    - {file}" for file in files if re.match(rf"{table}/{re.escape(split)}-\d{{5}}-of-", file)]
    lines += ["---", "", f"# {title}", "", description, ""]
    lines += [f"- rows in {split}: {count}" for split, count in rows.items()]
    lines += ["", details] if details else []
    lines += ["", "Settings:", "", "```json", json.dumps(plan.settings, indent=1), "```", ""]
    for key, value in plan.notes.items():
        if isinstance(value, str) and key != "root":  # a path of one machine
            lines += [f"{key}: {value}", ""]
    return "\n".join(lines)


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "absent"
