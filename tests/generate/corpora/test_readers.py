import csv
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sclmkb.common.errors import UserError
from sclmkb.common.modalities.motion import motion_problem
from sclmkb.generate.corpora.readers.base import Entry, Problem, Reader, read_entries, vet_caption
from sclmkb.generate.corpora.readers.layouts import LAYOUTS
from sclmkb.generate.corpora.readers.table import TableReader
from sclmkb.generate.corpora.readers.table_settings import TableSettings

DATA = Path(__file__).parents[4] / "shared" / "data"
real_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")


def make(name: str, root: Path, **settings: Any) -> Reader:
    layout = LAYOUTS[name]
    return layout(root, layout.settings_type.model_validate({"media": "none", **settings}))


def read(name: str, root: Path, **settings: Any) -> tuple[list[Entry], list[Problem]]:
    return read_entries(make(name, root, **settings))


def reasons(problems: list[Problem]) -> dict[tuple[str, int], str]:
    return {(problem.file, problem.row): problem.reason for problem in problems}


def texts(entries: list[Entry]) -> dict[str, list[object]]:
    return {entry.item_id: [text for _, text in entry.captions] for entry in entries}


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("A man.", ""),
        (" A\n man.  ", ""),
        ("", "is empty"),
        (" \n", "is empty"),
        (None, "is no text"),
        (["A man."], "is no text"),
        ("A m\udce9n.", "not UTF-8"),
        ("A \ud83d man.", "not UTF-8"),
        ("A \x00man.", "control characters"),
        ("a" * 21, "more than max_caption_chars=20"),
    ],
)
def test_vetting_of_captions(raw: object, reason: str) -> None:
    text, found = vet_caption(raw, 20)
    assert reason in found
    assert (text, bool(found)) == ("", True) if reason else ("A man.", False)


# PEDES


def pedes_entry(path: str, person: int | str, split: str = "train", **other: Any) -> dict[str, Any]:
    captions = [f"A person as in {path}.", f"Somebody as in {path}."]
    return {"split": split, "captions": captions, "file_path": path, "id": person, **other}


def write_json(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path.parent


def test_cuhk_pedes(tmp_path: Path) -> None:
    people = [pedes_entry("Market/a.jpg", 1), pedes_entry("cam_a/b.png", "2", "val"), pedes_entry("c.png", 3, "test")]
    entries, problems = read("cuhk-pedes", write_json(tmp_path / "reid_raw.json", people))
    assert not problems
    assert [(e.item_id, e.identity, e.split, e.source, e.row) for e in entries] == [
        ("Market/a.jpg", "1", "train", "Market", 1),
        ("cam_a/b.png", "2", "val", "cam_a", 2),
        ("c.png", "3", "test", "", 3),
    ]
    assert entries[0].captions == ((0, "A person as in Market/a.jpg."), (1, "Somebody as in Market/a.jpg."))
    assert entries[0].media == "imgs/Market/a.jpg"


def test_every_broken_entry_is_named_and_costs_no_other(tmp_path: Path) -> None:
    people = [
        pedes_entry("a.jpg", 1),
        pedes_entry("a.jpg", 1),
        pedes_entry("b.jpg", 1, "test"),
        pedes_entry("c.jpg", "nobody"),
        pedes_entry("d.jpg", 4, "dev"),
        pedes_entry("../e.jpg", 5),
        pedes_entry("f.jpg", 6, captions=["", "A man.", 7, "a " * 2000]),
        "no object",
        {"split": "train"},
        pedes_entry("g.jpg", 8),
        pedes_entry("h.jpg", 9, captions=[]),
    ]
    entries, problems = read("cuhk-pedes", write_json(tmp_path / "reid_raw.json", people))
    assert list(texts(entries)) == ["a.jpg", "f.jpg", "g.jpg", "h.jpg"]
    # The captions that are left keep their places: row ids follow from them.
    assert entries[1].captions == ((1, "A man."),)
    found = Counter(p.row for p in problems)
    assert found == {2: 1, 3: 1, 4: 1, 5: 1, 6: 1, 7: 3, 8: 1, 9: 1, 11: 1}
    said = reasons(problems)
    for row, reason in {
        2: "there already: row 1",
        3: "identity '1' is in split train already",
        4: "'nobody' is no number",
        5: "'dev' is none of train, val, test",
        6: "outside",
        8: "no object but str",
        9: "'file_path' is missing",
        11: "no caption",
    }.items():
        assert reason in said["reid_raw.json", row]


def test_a_split_that_was_not_asked_for_is_not_looked_at(tmp_path: Path) -> None:
    people = [pedes_entry("a.jpg", 1), pedes_entry("b.jpg", 1, "test", captions=[""]), pedes_entry("c.jpg", 3, "test")]
    root = write_json(tmp_path / "reid_raw.json", people)
    entries, problems = read("cuhk-pedes", root, splits=["train"])
    assert (list(texts(entries)), problems) == (["a.jpg"], [])


def test_truncated_and_latin1_annotations(tmp_path: Path) -> None:
    people = [pedes_entry("a.jpg", 1), pedes_entry("b.jpg", 2, captions=["A café.", "Two."]), pedes_entry("c.jpg", 3)]
    whole = json.dumps(people, ensure_ascii=False)
    (tmp_path / "reid_raw.json").write_bytes(whole[: whole.index("c.jpg") + 2].encode("latin-1"))
    entries, problems = read("cuhk-pedes", tmp_path)
    assert texts(entries) == {"a.jpg": people[0]["captions"], "b.jpg": ["Two."]}
    said = reasons(problems)
    assert "caption 1: is not UTF-8: set encoding" in said["reid_raw.json", 2]
    assert "breaks at character" in said["reid_raw.json", 3]
    entries, problems = read("cuhk-pedes", tmp_path, encoding="latin-1")
    assert texts(entries)["b.jpg"] == ["A café.", "Two."]
    assert len(problems) == 1


@pytest.mark.parametrize("file", ["ICFG-PEDES.json", "ICFG_PEDES.json"])
def test_icfg_counts_persons_in_each_split(tmp_path: Path, file: str) -> None:
    people = [pedes_entry("train/a.jpg", 0), pedes_entry("test/b.jpg", 0, "test")]
    entries, problems = read("icfg-pedes", write_json(tmp_path / file, people))
    assert [e.identity for e in entries] == ["train-0", "test-0"]
    assert not problems


def test_rstpreid_names_the_path_otherwise(tmp_path: Path) -> None:
    people = [{"id": 0, "img_path": "0000_c1.jpg", "captions": ["A man."], "split": "train"}]
    entries, _ = read("rstpreid", write_json(tmp_path / "data_captions.json", people))
    assert texts(entries) == {"0000_c1.jpg": ["A man."]}


@pytest.mark.parametrize("name", ["cuhk-pedes", "icfg-pedes", "rstpreid", "kit-ml", "clotho"])
def test_missing_files_are_named_with_the_address(name: str, tmp_path: Path) -> None:
    reader = make(name, tmp_path)
    with pytest.raises(UserError, match=r"is missing: get .* from https://"):
        reader.annotation_files()


def test_nothing_readable_is_an_error_that_shows_the_first_problem(tmp_path: Path) -> None:
    (tmp_path / "reid_raw.json").write_text("[{")
    with pytest.raises(UserError, match=r"no entry of CUHK-PEDES.*reid_raw.json row 1: the JSON breaks"):
        read("cuhk-pedes", tmp_path)


# KIT-ML


def write_kit(root: Path, lists: dict[str, str], notes: dict[str, Any], folder: str = "splits") -> Path:
    for split, ids in lists.items():
        path = root / folder / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(ids.split()) + "\n")
    if notes:
        write_json(root / "annotations.json", notes)
    return root


def note(*found: object) -> dict[str, Any]:
    return {"annotations": [{"text": text} for text in found]}


def test_mirrored_copies_stay_in_the_split_of_their_originals(tmp_path: Path) -> None:
    lists = {"train": "00001 M00002 00004", "val": "00003", "test": "00002 M00001"}
    notes = {f"{m}{i:05d}": note("A person walks.") for i in (1, 2, 3) for m in ("", "M")}
    del notes["M00003"]
    root = write_kit(tmp_path, lists, notes)
    entries, problems = read("kit-ml", root)
    assert {e.item_id: (e.split, e.group, e.identity) for e in entries} == {
        "00001": ("train", "00001", "00001"),
        "M00001": ("train", "00001", "M00001"),
        "00002": ("test", "00002", "00002"),
        "M00002": ("test", "00002", "M00002"),
        "00003": ("val", "00003", "00003"),
    }
    assert reasons(problems) == {("splits/train.txt", 3): "not in annotations.json"}
    # Also when the split of the original is not read.
    assert set(texts(read("kit-ml", root, splits=["train"])[0])) == {"00001", "M00001"}
    assert set(texts(read("kit-ml", root, mirrored=False)[0])) == {"00001", "00002", "00003"}


def test_kit_problems(tmp_path: Path) -> None:
    lists = {"train": "00001 00002", "val": "00001", "test": "00003"}
    notes = {"00001": note("Walks.", "", None), "00002": {"path": "x"}, "00003": note("Runs."), "00009": note("Hops.")}
    entries, problems = read("kit-ml", write_kit(tmp_path, lists, notes))
    assert texts(entries) == {"00001": ["Walks."], "00003": ["Runs."]}
    said = {(p.file, p.row, p.reason) for p in problems}
    assert said == {
        ("splits/val.txt", 1, "listed in train already"),
        ("annotations.json", 1, "caption 2: is empty"),
        ("annotations.json", 1, "caption 3: is no text but NoneType"),
        ("annotations.json", 2, "'annotations' is missing or no list"),
        ("annotations.json", 4, "in no list of a split"),
    }


def test_kit_texts_of_text2motion(tmp_path: Path) -> None:
    write_kit(tmp_path, {"train": "00001 00002", "val": "00003", "test": "00004"}, {}, folder=".")
    (tmp_path / "texts").mkdir()
    lines = [
        "A person walks #1.#a/DET person/NOUN walk/VERB#0.0#0.0",
        "Somebody walks.#somebody/PRON walk/VERB#0.0#0.0",
    ]
    (tmp_path / "texts" / "00001.txt").write_text("\n".join(lines))
    for name in ("00003", "00004"):
        (tmp_path / "texts" / f"{name}.txt").write_text("Runs.#run/VERB#0.0#0.0\n")
    entries, problems = read("kit-ml", tmp_path)
    assert texts(entries) == {
        "00001": ["A person walks #1.", "Somebody walks."],
        "00003": ["Runs."],
        "00004": ["Runs."],
    }
    assert reasons(problems) == {("train.txt", 2): "texts/00002.txt is missing"}


@real_data
def test_the_real_kit_annotations() -> None:
    entries, problems = read("kit-ml", DATA / "kit_ml")
    assert Counter(e.split for e in entries) == {"train": 4688, "val": 292, "test": 786}
    assert sum(len(e.captions) for e in entries) == 12164
    assert not problems
    split_of = {e.item_id: e.split for e in entries}
    mirrored = [e for e in entries if e.item_id.startswith("M")]
    assert len(mirrored) == 2883
    assert all(split_of[e.group] == e.split for e in mirrored)


# Clotho


def write_clotho(root: Path, part: str, names: list[str], encoding: str = "utf-8") -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["file_name", *(f"caption_{i}" for i in range(1, 6))])
    writer.writerows([name, *(f'{name} sounds, "{i}" times' for i in range(5))] for name in names)
    (root / f"clotho_captions_{part}.csv").write_bytes(buffer.getvalue().encode(encoding))


def test_clotho(tmp_path: Path) -> None:
    for part, names in {"development": ["a.wav", "é.wav"], "validation": ["a.wav"], "evaluation": ["c.wav"]}.items():
        write_clotho(tmp_path, part, names, "latin-1")
    entries, problems = read("clotho", tmp_path)
    assert not problems
    assert [(e.item_id, e.split, len(e.captions)) for e in entries] == [
        ("development/a.wav", "train", 5),
        ("development/é.wav", "train", 5),
        ("validation/a.wav", "val", 5),
        ("evaluation/c.wav", "test", 5),
    ]
    assert entries[0].captions[1] == (1, 'a.wav sounds, "1" times')


def test_clotho_without_validation_split_says_how_to_leave_it_out(tmp_path: Path) -> None:
    write_clotho(tmp_path, "development", ["a.wav"])
    write_clotho(tmp_path, "evaluation", ["b.wav"])
    with pytest.raises(UserError, match=r"validation.csv is missing.*'splits=\[train, test\]'"):
        make("clotho", tmp_path).annotation_files()
    assert len(read("clotho", tmp_path, splits=["train", "test"])[0]) == 2
    with pytest.raises(UserError, match=r"development is missing.*media=none"):
        make("clotho", tmp_path, splits=["train"], media="path").annotation_files()


@real_data
def test_the_real_clotho_tables() -> None:
    reader = make("clotho", DATA / "clotho", splits=["train", "test"])
    entries, problems = read_entries(reader)
    assert Counter(e.split for e in entries) == {"train": 2893, "test": 1045}
    assert sum(len(e.captions) for e in entries) == 5 * (2893 + 1045)
    assert not problems
    here = [e for e in entries if (reader.data_folder / e.media).exists()]
    assert len(here) == 7
    assert not any(reader.media_problem(e, reader.read_media(e)) for e in here)


# Tables


def table(root: Path, **settings: Any) -> tuple[list[Entry], list[Problem]]:
    return read_entries(TableReader(root, TableSettings.model_validate(settings)))


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


def write_rows(root: Path, kind: str, rows: list[dict[str, Any]]) -> Path:
    path = root / f"rows.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "json":
        path.write_text(json.dumps(rows))
    elif kind == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        datasets = pytest.importorskip("datasets")
        path = root / "saved"
        datasets.Dataset.from_list(rows).save_to_disk(str(path))
    return path


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "json", "csv", "saved"])
def test_every_kind_of_table_gives_the_same_entries(tmp_path: Path, kind: str) -> None:
    entries, problems = table(write_rows(tmp_path, kind, ROWS), **MAPPED)
    assert not problems
    assert [(e.item_id, e.identity, e.split, [t for _, t in e.captions], e.media) for e in entries] == [
        ("1", "x", "train", ["A boat.", "One boat."], "1.png"),
        ("2", "y", "val", ["A car."], "2.png"),
        ("3", "z", "test", ["A cat."], "3.png"),
    ]


def test_rows_of_one_item_must_agree(tmp_path: Path) -> None:
    rows = [*ROWS, {**ROWS[0], "part": "test"}, {**ROWS[0], "who": "q", "part": "train"}, ROWS[1]]
    _, problems = table(write_rows(tmp_path, "jsonl", rows), **MAPPED)
    assert reasons(problems) == {
        ("rows.jsonl", 5): "row 1 of rows.jsonl gives the item another split",
        ("rows.jsonl", 6): "row 1 of rows.jsonl gives the item another identity",
        ("rows.jsonl", 7): "repeats row 1 of rows.jsonl",
    }


def test_splits_may_be_numbers_and_unknown_ones_name_the_mend(tmp_path: Path) -> None:
    rows = [{"caption": f"Text {i}.", "fold": i} for i in (1, 2)]
    entries, problems = table(write_rows(tmp_path, "jsonl", rows), columns={"split": "fold"}, split_names={1: "train"})
    assert [e.split for e in entries] == ["train"]
    assert "--set split_names.2=train" in problems[0].reason


def test_captions_in_lists_or_several_columns(tmp_path: Path) -> None:
    listed = write_rows(tmp_path, "parquet", [{"caption": ["One.", "Two."]}])
    assert [e.captions for e in table(listed)[0]] == [((0, "One."), (1, "Two."))]
    columns = write_rows(tmp_path, "csv", [{"c1": "One.", "c2": "Two."}])
    assert [e.captions for e in table(columns, columns={"caption": ["c1", "c2"]})[0]] == [((0, "One."), (1, "Two."))]


def test_splits_come_from_file_names_or_else_from_a_hash_of_the_group(tmp_path: Path) -> None:
    for name in ("train-00000", "validation", "a_test_file"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"caption": name}) + "\n")
    entries, _ = table(tmp_path)
    assert {e.file: e.split for e in entries} == {
        "a_test_file.jsonl": "test",
        "train-00000.jsonl": "train",
        "validation.jsonl": "val",
    }
    rows = [{"caption": f"Text {i}.", "who": str(i % 300)} for i in range(900)]
    (tmp_path / "all").mkdir()
    entries, problems = table(write_rows(tmp_path / "all", "jsonl", rows), columns={"identity": "who"})
    assert not problems  # no identity falls into two splits
    shares = Counter(e.split for e in entries)
    assert 630 <= shares["train"] <= 810
    assert min(shares["val"], shares["test"]) > 30


def test_a_row_that_is_broken_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("caption,who\nA boat.,x\nA café.,y\nA car.\n".encode("latin-1"))
    entries, problems = table(path)
    assert texts(entries)["rows.csv:1"] == ["A boat."]
    said = reasons(problems)
    assert said["rows.csv", 2] == "caption 1: is not UTF-8: set encoding, e.g. latin-1"
    assert said["rows.csv", 3] == "has no column 'who'"
    assert texts(table(path, encoding="latin-1")[0])["rows.csv:2"] == ["A café."]


def test_unknown_columns_are_refused_with_those_there_are(tmp_path: Path) -> None:
    for kind in ("parquet", "csv", "jsonl"):
        with pytest.raises(
            UserError, match=r"no column 'caption': it has text, who, part, name, file.*columns.caption=text"
        ):
            table(write_rows(tmp_path, kind, ROWS))


def test_media_in_a_table(tmp_path: Path) -> None:
    data = picture("PNG")
    rows = [{"caption": f"Text {i}.", "image": {"bytes": data + bytes([i]), "path": None}} for i in range(5)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet", row_group_size=2)
    settings = TableSettings.model_validate({"media": "embed", "columns": {"media": "image"}})
    reader = TableReader(tmp_path / "rows.parquet", settings)
    entries, _ = read_entries(reader)
    assert [reader.read_media(e) for e in entries] == [data + bytes([i]) for i in range(5)]
    with pytest.raises(UserError, match="media=embed"):
        table(tmp_path / "rows.parquet", media="path", columns={"media": "image"})
    with pytest.raises(ValueError, match=r"columns\.media"):
        TableSettings.model_validate({"media": "embed"})


def test_pictures_of_a_saved_dataset_are_not_decoded(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    data = picture("PNG")
    features = datasets.Features({"caption": datasets.Value("string"), "image": datasets.Image()})
    rows = [{"caption": "A square.", "image": {"bytes": data, "path": "a.png"}}]
    both = datasets.DatasetDict({"train": datasets.Dataset.from_list(rows, features=features)})
    both.save_to_disk(str(tmp_path / "saved"))
    reader = TableReader(
        tmp_path / "saved", TableSettings.model_validate({"media": "embed", "columns": {"media": "image"}})
    )
    entries, _ = read_entries(reader)
    assert entries[0].split == "train"
    assert reader.read_media(entries[0]) == data


def test_a_dataset_of_the_hub_is_read_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)
    asked = []

    def load(name: str, config: str | None) -> Any:
        asked.append((name, config))
        parts = {part: datasets.Dataset.from_list([{"caption": part}]) for part in ("train", "validation")}
        return datasets.DatasetDict(parts)

    monkeypatch.setattr(datasets, "load_dataset", load)
    entries, _ = table(Path("someone/something"), config="small")
    assert asked == [("someone/something", "small")]
    assert [(e.split, e.captions) for e in entries] == [("train", ((0, "train"),)), ("val", ((0, "validation"),))]

    def fail(*_: object) -> Any:
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'someone/something' doesn't exist on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(UserError, match="cannot load the dataset someone/something: Dataset"):
        table(Path("someone/something"))


def test_a_table_cannot_name_files_outside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    inside = tmp_path / "data"
    inside.mkdir()
    rows = [{"caption": "A.", "image": {"bytes": None, "path": str(tmp_path / "secret")}}]
    pq.write_table(pa.Table.from_pylist(rows), inside / "rows.parquet")
    reader = TableReader(inside, TableSettings.model_validate({"media": "embed", "columns": {"media": "image"}}))
    entries, _ = read_entries(reader)
    with pytest.raises(OSError, match="outside"):
        reader.read_media(entries[0])
    with pytest.raises(UserError, match=r"the file \.\./secret lies outside"):
        table(write_rows(inside, "jsonl", [{"caption": "A.", "image": "../secret"}]), columns={"media": "image"})


def test_a_folder_without_tables_and_a_missing_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no parquet"):
        TableReader(tmp_path, TableSettings()).annotation_files()
    with pytest.raises(UserError, match="no such file or folder"):
        TableReader(tmp_path / "none.csv", TableSettings()).annotation_files()


# Media


def picture(kind: str) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (32, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@real_data
def test_real_motion_features() -> None:
    path = DATA / "humanml3d_sample" / "new_joint_vecs" / "012314.npy"
    assert motion_problem(path.read_bytes(), 263) == ""
    assert "not [frames, 251]" in motion_problem(path.read_bytes(), 251)
