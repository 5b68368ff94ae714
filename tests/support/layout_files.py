"""Corpora as people publish them, with a few files made by hand."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from media_files import png

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.generate.corpora.layouts import LAYOUTS
from sclmkb.generate.corpora.on_disk import plan_corpus
from sclmkb.generate.corpora.reader import Entry, Problem, Reader
from sclmkb.generate.corpora.vetting import read_entries

DATA = Path(__file__).parents[3] / "shared" / "data"
real_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")


def layout(name: str, root: Path, **settings: Any) -> Reader:
    """Return the reader of a layout."""
    return LAYOUTS[name](root, LAYOUTS[name].settings_type.model_validate(settings))


def read(name: str, root: Path, **settings: Any) -> tuple[list[Entry], list[Problem]]:
    """Read the captions of a corpus."""
    return read_entries(layout(name, root, **{"media": "none", **settings}))


def made(name: str, root: Path, out: Path, **settings: Any) -> Artifact:
    """Return the artifact of a corpus."""
    artifact = plan_corpus(layout(name, root, **settings), out).run_here()
    assert artifact is not None
    return artifact


def texts(entries: Iterable[Entry]) -> dict[str, list[object]]:
    """Return the captions of each item."""
    return {entry.item_id: [text for _, text in entry.captions] for entry in entries}


def reasons(problems: Iterable[Problem]) -> dict[tuple[str, int], str]:
    """Return what is wrong, by file and row."""
    return {(problem.file, problem.row): problem.reason for problem in problems}


def problems_of(corpus: Artifact) -> list[tuple[int, str]]:
    """Return the table of problems: row and what is wrong."""
    return [(p["row"], p["reason"]) for p in corpus.table("problems").to_pylist()]


def write(path: Path, content: object) -> Path:
    """Write bytes, a text, rows of JSON (``.jsonl``) or a JSON value, and return the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Sequence) and path.suffix == ".jsonl" and not isinstance(content, str):
        content = "".join(json.dumps(row) + "\n" for row in content)
    elif not isinstance(content, str | bytes):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path.parent


def picture(path: Path) -> None:
    """Write a small red picture."""
    write(path, png((255, 0, 0)))


def write_pedes(root: Path, name: str = "cuhk-pedes", num_people: int = 6) -> Path:
    """Write a person set: two thirds of the people in training, two pictures each, two captions a picture."""
    found: Any = LAYOUTS[name]
    entries: list[dict[str, Any]] = []
    for person in range(num_people):
        split = "train" if person < 2 * num_people // 3 else "test"
        for number in range(2):
            path = f"{split}/p{person}-{number}.png"
            captions = [f"Person {person} walks by, seen by camera {number}.", f"Somebody called {person}."]
            entries.append({"split": split, "captions": captions, found.path_key: path, "id": found.first_id + person})
            write(root / "imgs" / path, png((len(entries), 0, 0)))
    return write(root / found.annotations, entries)


def write_kit(root: Path, lists: Mapping[str, str], notes: Mapping[str, Any], folder: str = "splits") -> Path:
    """Write KIT-ML's lists of ids, and its annotations if there are any."""
    for split, ids in lists.items():
        write(root / folder / f"{split}.txt", "\n".join(ids.split()) + "\n")
    if notes:
        write(root / "annotations.json", notes)
    return root


def note(*found: object) -> dict[str, Any]:
    """Return the annotations of a motion of KIT-ML."""
    return {"annotations": [{"text": text} for text in found]}


def write_clotho(root: Path, part: str, names: Iterable[str], encoding: str = "utf-8") -> Path:
    """Write the caption table of a part of Clotho."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["file_name", *(f"caption_{i}" for i in range(1, 6))])
    writer.writerows([name, *(f'{name} sounds, "{i}" times' for i in range(5))] for name in names)
    return write(root / f"clotho_captions_{part}.csv", file.getvalue().encode(encoding))
