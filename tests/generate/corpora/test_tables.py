"""Captions in tables of any columns."""

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layout_files import layout, read, reasons, texts, write
from media_files import png

from sclmkb.common.errors import UserError
from sclmkb.generate.corpora.vetting import read_entries

ROWS = [
    {"text": "A boat.", "who": "x", "part": "development", "name": "1", "file": "1.png"},
    {"text": "One boat.", "who": "x", "part": "development", "name": "1", "file": "1.png"},
    {"text": "A car.", "who": "y", "part": "dev", "name": "2", "file": "2.png"},
    {"text": "A cat.", "who": "z", "part": "fold9", "name": "3", "file": "3.png"},
]
MAPPED = {
    "columns": {"caption": "text", "identity": "who", "item": "name", "split": "part", "media": "file"},
    "split_names": {"fold9": "test"},
}
EMBEDDED = {"media": "embed", "columns": {"media": "image"}}


def write_rows(root: Path, kind: str, rows: list[dict[str, Any]]) -> Path:
    path = root / f"rows.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    elif kind == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif kind == "saved":
        pytest.importorskip("datasets").Dataset.from_list(rows).save_to_disk(str(path))
    else:
        write(path, rows)
    return path


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "json", "csv", "saved"])
def test_every_kind_of_table_gives_the_same_entries(tmp_path: Path, kind: str) -> None:
    path = write_rows(tmp_path, kind, ROWS)
    entries, problems = read("table", path, **MAPPED)
    assert not problems
    assert [(e.item_id, e.identity, e.split, [t for _, t in e.captions], e.media) for e in entries] == [
        ("1", "x", "train", ["A boat.", "One boat."], "1.png"),
        ("2", "y", "val", ["A car."], "2.png"),
        ("3", "z", "test", ["A cat."], "3.png"),
    ]
    with pytest.raises(UserError, match=r"no column 'caption': it has text, who, part, name, file.*caption=text"):
        read("table", path)


def test_rows_of_one_item_must_agree(tmp_path: Path) -> None:
    rows = [*ROWS, {**ROWS[0], "part": "test"}, {**ROWS[0], "who": "q", "part": "train"}, ROWS[1]]
    _, problems = read("table", write_rows(tmp_path, "jsonl", rows), **MAPPED)
    assert reasons(problems) == {
        ("rows.jsonl", 5): "row 1 of rows.jsonl gives the item another split",
        ("rows.jsonl", 6): "row 1 of rows.jsonl gives the item another identity",
        ("rows.jsonl", 7): "repeats row 1 of rows.jsonl",
    }


def test_splits_may_be_numbers_and_unknown_ones_name_the_mend(tmp_path: Path) -> None:
    rows = [{"caption": f"Text {i}.", "fold": i} for i in (1, 2)]
    path = write_rows(tmp_path, "jsonl", rows)
    entries, problems = read("table", path, columns={"split": "fold"}, split_names={1: "train"})
    assert [e.split for e in entries] == ["train"]
    assert "--set split_names.2=train" in problems[0].reason
    with pytest.raises(ValueError, match="'train', 'val' or 'test'"):
        read("table", path, split_names={1: "dev"})


def test_captions_in_lists_or_several_columns(tmp_path: Path) -> None:
    listed = write_rows(tmp_path, "parquet", [{"caption": ["One.", "Two."]}])
    columns = write_rows(tmp_path, "csv", [{"c1": "One.", "c2": "Two."}])
    for path, caption in ((listed, "caption"), (columns, ["c1", "c2"])):
        (entry,) = read("table", path, columns={"caption": caption})[0]
        assert entry.captions == ((0, "One."), (1, "Two."))


def test_splits_come_from_file_names_or_else_from_a_hash_of_the_group(tmp_path: Path) -> None:
    for name in ("train-00000", "validation", "a_test_file"):
        write(tmp_path / f"{name}.jsonl", [{"caption": name}])
    entries, _ = read("table", tmp_path)
    assert {e.file: e.split for e in entries} == {
        "a_test_file.jsonl": "test",
        "train-00000.jsonl": "train",
        "validation.jsonl": "val",
    }
    rows = [{"caption": f"Text {i}.", "who": str(i % 300)} for i in range(900)]
    root = write(tmp_path / "all" / "rows.jsonl", rows)
    entries, problems = read("table", root, columns={"identity": "who"})
    assert not problems  # no identity falls into two splits
    shares = Counter(e.split for e in entries)
    assert 630 <= shares["train"] <= 810
    assert min(shares["val"], shares["test"]) > 30


def test_a_row_that_is_broken_is_named(tmp_path: Path) -> None:
    root = write(tmp_path / "rows.csv", "caption,who\nA boat.,x\nA café.,y\nA car.\n".encode("latin-1"))
    entries, problems = read("table", root)
    assert texts(entries)["rows.csv:1"] == ["A boat."]
    assert reasons(problems) == {
        ("rows.csv", 2): "caption 1: is not UTF-8: set encoding, e.g. latin-1",
        ("rows.csv", 3): "has no column 'who'",
    }
    assert texts(read("table", root, encoding="latin-1")[0])["rows.csv:2"] == ["A café."]
    write(tmp_path / "rows.csv", b"")
    write(tmp_path / "rows.parquet", b"PAR1 broken")
    with pytest.raises(UserError, match=r"rows.parquet row 0: no readable Parquet file"):
        read("table", root)


def test_media_in_a_table(tmp_path: Path) -> None:
    rows = [{"caption": f"Text {i}.", "image": {"bytes": png((i, 0, 0)), "path": None}} for i in range(5)]
    path = write_rows(tmp_path, "parquet", rows)
    reader = layout("table", path, **EMBEDDED)
    assert [reader.read_media(e) for e in read_entries(reader)[0]] == [row["image"]["bytes"] for row in rows]
    with pytest.raises(UserError, match="media=embed"):
        read("table", path, media="path", columns={"media": "image"})
    with pytest.raises(ValueError, match=r"columns\.media"):
        read("table", path, media="embed")


def test_pictures_of_a_saved_dataset_are_not_decoded(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"caption": datasets.Value("string"), "image": datasets.Image()})
    rows = [{"caption": "A square.", "image": {"bytes": png((1, 2, 3)), "path": "a.png"}}]
    both = datasets.DatasetDict({"train": datasets.Dataset.from_list(rows, features=features)})
    both.save_to_disk(str(tmp_path / "saved"))
    reader = layout("table", tmp_path / "saved", **EMBEDDED)
    (entry,) = read_entries(reader)[0]
    assert (entry.split, reader.read_media(entry)) == ("train", png((1, 2, 3)))


def test_a_dataset_of_the_hub_is_read_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)

    def load(name: str, config: str | None) -> Any:
        if (name, config) != ("someone/something", "small"):
            raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{name}' doesn't exist on the Hub")
        parts = {part: datasets.Dataset.from_list([{"caption": part}]) for part in ("train", "validation")}
        return datasets.DatasetDict(parts)

    monkeypatch.setattr(datasets, "load_dataset", load)
    entries, _ = read("table", Path("someone/something"), config="small")
    assert [(e.split, e.captions) for e in entries] == [("train", ((0, "train"),)), ("val", ((0, "validation"),))]
    with pytest.raises(UserError, match="cannot load the dataset someone/else: Dataset"):
        read("table", Path("someone/else"))
    with pytest.raises(UserError, match="without paths: --set media=embed"):
        layout("table", Path("someone/something"), media="path", columns={"media": "x"}).annotation_files()


def test_a_table_cannot_name_files_outside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    inside = tmp_path / "data"
    inside.mkdir()
    write_rows(inside, "parquet", [{"caption": "A.", "image": {"bytes": None, "path": str(tmp_path / "secret")}}])
    reader = layout("table", inside, **EMBEDDED)
    (entry,) = read_entries(reader)[0]
    with pytest.raises(OSError, match="outside"):
        reader.read_media(entry)
    write(inside / "rows.jsonl", [{"caption": "A.", "image": "../secret"}])
    with pytest.raises(UserError, match=r"the file \.\./secret lies outside"):
        read("table", inside / "rows.jsonl", columns={"media": "image"})


def test_a_folder_without_tables_and_a_missing_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no parquet"):
        read("table", tmp_path)
    with pytest.raises(UserError, match="no such file or folder"):
        read("table", tmp_path / "none.csv")
