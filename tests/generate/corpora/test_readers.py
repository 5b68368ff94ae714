"""What the readers of each layout make of its annotations: entries, and problems."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from layout_files import DATA, layout, note, read, real_data, reasons, texts, write, write_clotho, write_kit

from sclmkb.common.errors import UserError
from sclmkb.generate.corpora.vetting import read_entries, vet_caption


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("A man.", ""),
        (" A\n man.  ", ""),
        (" \n", "is empty"),
        (None, "is no text"),
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


def pedes_entry(path: str, person: int | str, split: str = "train", **other: Any) -> dict[str, Any]:
    captions = [f"A person as in {path}.", f"Somebody as in {path}."]
    return {"split": split, "captions": captions, "file_path": path, "id": person, **other}


@pytest.mark.parametrize(
    ("name", "file", "key", "identities"),
    [
        ("cuhk-pedes", "reid_raw.json", "file_path", ["1", "2", "3"]),
        ("icfg-pedes", "ICFG-PEDES.json", "file_path", ["train-1", "val-2", "test-3"]),
        ("icfg-pedes", "ICFG_PEDES.json", "file_path", ["train-1", "val-2", "test-3"]),
        ("rstpreid", "data_captions.json", "img_path", ["1", "2", "3"]),
    ],
)
def test_pictures_of_persons(tmp_path: Path, name: str, file: str, key: str, identities: list[str]) -> None:
    people = [pedes_entry("Market/a.jpg", 1), pedes_entry("cam_a/b.png", "2", "val"), pedes_entry("c.png", 3, "test")]
    named = [{key if field == "file_path" else field: value for field, value in one.items()} for one in people]
    entries, problems = read(name, write(tmp_path / file, named))
    assert not problems
    assert [e.identity for e in entries] == [e.group for e in entries] == identities
    assert [(e.item_id, e.split, e.source, e.media, e.row) for e in entries] == [
        ("Market/a.jpg", "train", "Market", "imgs/Market/a.jpg", 1),
        ("cam_a/b.png", "val", "cam_a", "imgs/cam_a/b.png", 2),
        ("c.png", "test", "", "imgs/c.png", 3),
    ]
    assert entries[0].captions == ((0, "A person as in Market/a.jpg."), (1, "Somebody as in Market/a.jpg."))


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
    entries, problems = read("cuhk-pedes", write(tmp_path / "reid_raw.json", people))
    assert list(texts(entries)) == ["a.jpg", "f.jpg", "g.jpg", "h.jpg"]
    # The captions that are left keep their places: row ids follow from them.
    assert entries[1].captions == ((1, "A man."),)
    assert Counter(p.row for p in problems) == {2: 1, 3: 1, 4: 1, 5: 1, 6: 1, 7: 3, 8: 1, 9: 1, 11: 1}
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
    entries, problems = read("cuhk-pedes", write(tmp_path / "reid_raw.json", people), splits=["train"])
    assert (list(texts(entries)), problems) == (["a.jpg"], [])


def test_truncated_and_latin1_annotations(tmp_path: Path) -> None:
    whole = (
        '[{"split": "train", "captions": ["One."], "file_path": "a.jpg", "id": 1},'
        ' {"split": "train", "captions": ["A café.", "Two."], "file_path": "b.jpg", "id": 2}, {"split": '
    )
    root = write(tmp_path / "reid_raw.json", whole.encode("latin-1"))
    entries, problems = read("cuhk-pedes", root)
    assert texts(entries) == {"a.jpg": ["One."], "b.jpg": ["Two."]}
    said = reasons(problems)
    assert "caption 1: is not UTF-8: set encoding" in said["reid_raw.json", 2]
    assert "breaks at character" in said["reid_raw.json", 3]
    entries, problems = read("cuhk-pedes", root, encoding="latin-1")
    assert (texts(entries)["b.jpg"], len(problems)) == (["A café.", "Two."], 1)
    write(root / "reid_raw.json", "[{")
    with pytest.raises(UserError, match=r"no entry of CUHK-PEDES.*reid_raw.json row 1: the JSON breaks"):
        read("cuhk-pedes", root)


@pytest.mark.parametrize("name", ["cuhk-pedes", "icfg-pedes", "rstpreid", "kit-ml", "bandai-motion", "clotho", "esc10"])
def test_missing_files_are_named_with_the_address(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is missing: get .* from https://"):
        layout(name, tmp_path, media="none").annotation_files()


# KIT-ML


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
    assert {(p.file, p.row, p.reason) for p in problems} == {
        ("splits/val.txt", 1, "listed in train already"),
        ("annotations.json", 1, "caption 2: is empty"),
        ("annotations.json", 1, "caption 3: is no text but NoneType"),
        ("annotations.json", 2, "'annotations' is missing or no list"),
        ("annotations.json", 4, "in no list of a split"),
    }


def test_kit_texts_of_text2motion(tmp_path: Path) -> None:
    write_kit(tmp_path, {"train": "00001 00002", "val": "00003", "test": "00004"}, {}, folder=".")
    lines = [
        "A person walks #1.#a/DET person/NOUN walk/VERB#0.0#0.0",
        "Somebody walks.#somebody/PRON walk/VERB#0.0#0.0",
    ]
    write(tmp_path / "texts" / "00001.txt", "\n".join(lines))
    for name in ("00003", "00004"):
        write(tmp_path / "texts" / f"{name}.txt", "Runs.#run/VERB#0.0#0.0\n")
    entries, problems = read("kit-ml", tmp_path)
    assert texts(entries) == {
        "00001": ["A person walks #1.", "Somebody walks."],
        "00003": ["Runs."],
        "00004": ["Runs."],
    }
    assert reasons(problems) == {("train.txt", 2): "texts/00002.txt is missing"}


# Clotho


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


def test_what_clotho_lacks_is_named(tmp_path: Path) -> None:
    write_clotho(tmp_path, "development", ["a.wav"])
    write_clotho(tmp_path, "evaluation", ["b.wav"])
    with pytest.raises(UserError, match=r"validation.csv is missing.*'splits=\[train, test\]'"):
        layout("clotho", tmp_path).annotation_files()
    assert len(read("clotho", tmp_path, splits=["train", "test"])[0]) == 2
    with pytest.raises(UserError, match=r"development is missing.*media=none"):
        layout("clotho", tmp_path, splits=["train"]).annotation_files()
    write(tmp_path / "clotho_captions_evaluation.csv", "file_name,text\nb.wav,A dog.\n")
    with pytest.raises(UserError, match="no column 'caption_1'"):
        read("clotho", tmp_path, splits=["test"])


# Real data


@real_data
def test_the_real_kit_annotations() -> None:
    entries, problems = read("kit-ml", DATA / "kit_ml")
    assert Counter(e.split for e in entries) == {"train": 4688, "val": 292, "test": 786}
    told = Counter(e.split for e in entries for _ in e.captions)
    assert told == {"train": 9980, "val": 626, "test": 1558}
    assert not problems
    split_of = {e.item_id: e.split for e in entries}
    mirrored = [e for e in entries if e.item_id.startswith("M")]
    assert len(mirrored) == 2883
    assert all(split_of[e.group] == e.split for e in mirrored)


@real_data
def test_the_real_clotho_tables() -> None:
    reader = layout("clotho", DATA / "clotho", splits=["train", "test"], media="none")
    entries, problems = read_entries(reader)
    assert Counter(e.split for e in entries) == {"train": 2893, "test": 1045}
    assert sum(len(e.captions) for e in entries) == 5 * (2893 + 1045)
    assert not problems
    here = [e for e in entries if (reader.data_folder / e.media).exists()]
    assert len(here) == 7
    assert not any(reader.media_problem(e, reader.read_media(e)) for e in here)
