"""Corpora of pictures with questions, in small files of their official layouts."""

import json
from pathlib import Path

import pytest
from commands import must_run, run_command
from layout_files import DATA, made, picture, problems_of, write

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.schemas import SPLITS
from sclmkb.common.artifacts.texts import questions_of
from sclmkb.common.errors import UserError
from sclmkb.generate.corpora.layouts import LAYOUTS


def by_split(corpus: Artifact) -> dict[str, set[str]]:
    return {split: set(corpus.table("items", split)["item_id"].to_pylist()) for split in corpus.splits}


# easy-VQA


@pytest.fixture
def easy(tmp_path: Path) -> Path:
    """Twelve training and three test pictures with two questions each."""
    root = tmp_path / "data"
    for part, count in (("train", 12), ("test", 3)):
        asked = [[q, a, n] for q, a in (("what shape is it?", "circle"), ("is it red?", "yes")) for n in range(count)]
        write(root / part / "questions.json", asked)
        for number in range(count):
            picture(root / part / "images" / f"{number}.png")
    return root


def test_easy_vqa_cuts_validation_by_picture(easy: Path, tmp_path: Path) -> None:
    corpus = made("easy-vqa", easy, tmp_path / "out", val_share=0.3)
    found = by_split(corpus)
    assert found["test"] == {f"test/{number}" for number in range(3)}
    assert len(found["train"]) + len(found["val"]) == 12
    assert 1 <= len(found["val"]) <= 8
    for split in SPLITS:
        asked = list(questions_of(corpus, split))
        assert [a.question for a in asked] == ["what shape is it?", "is it red?"] * len(found[split])
        assert {a.identity for a in asked} == found[split]
        assert asked[1].answers == ("yes",)
    assert problems_of(corpus) == []
    assert by_split(made("easy-vqa", easy, tmp_path / "other", val_share=0.3, seed=1))["val"] != found["val"]


def test_easy_vqa_lists_what_is_broken(easy: Path, tmp_path: Path) -> None:
    rows = [["what is it?", "circle", 0], ["no picture"], ["what?", "", 1], "text", ["gone?", "yes", 99]]
    write(easy / "test" / "questions.json", json.dumps(rows)[:-1] + ", [")
    corpus = made("easy-vqa", easy, tmp_path / "out", splits=("test",))
    assert [asked.question for asked in questions_of(corpus, "test")] == ["what is it?"]
    found = dict(problems_of(corpus))
    assert {2, 3, 4, 5, 6} == set(found)
    assert (found[2], found[4]) == ("is no list of question, answer and number of the picture", "no object but str")
    assert "the JSON breaks at character" in found[6]
    assert (corpus.counts()["ok"], corpus.counts()["quarantined"]) == (2, 1)


def test_easy_vqa_is_found_where_it_is_installed(easy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = LAYOUTS["easy-vqa"]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs the package easy-vqa: pip install easy-vqa"):
        reader.find_root()


def test_the_installed_easy_vqa_is_whole(tmp_path: Path) -> None:
    pytest.importorskip("easy_vqa")
    reader = LAYOUTS["easy-vqa"]
    corpus = made("easy-vqa", Path(str(reader.find_root())), tmp_path / "out", media="none")
    assert sum(len(items) for items in by_split(corpus).values()) == 5000
    assert sum(1 for split in SPLITS for _ in questions_of(corpus, split)) == 48248
    assert problems_of(corpus) == []


# DAQUAR


def test_daquar_is_split_by_photo(tmp_path: Path) -> None:
    root = tmp_path / "data"
    lines = [
        {"image": "images/a.jpg", "question": "what is it", "answer": "garbage_bin, sofa", "split": "train"},
        {"image": "images/b.jpg", "question": "how many", "answer": "2", "split": "test"},
        {"image": "images/a.jpg", "question": "which colour", "answer": "red", "split": "test"},
        {"image": "images/a.jpg", "question": "where", "answer": "left", "split": "train"},
        {"image": "images/b.jpg", "question": "empty", "answer": "", "split": "test"},
        {"question": "of nothing"},
    ]
    write(root / "questions.jsonl", "\n".join(map(json.dumps, lines)) + "\n{broken")
    for name in "ab":
        picture(root / "images" / f"{name}.jpg")
    corpus = made("daquar", root, tmp_path / "out")
    assert by_split(corpus) == {"train": {"images/a.jpg"}, "test": {"images/b.jpg"}}
    asked = [(a.question, a.answers) for a in questions_of(corpus, "train")]
    assert asked == [("what is it", ("garbage bin, sofa",)), ("where", ("left",))]
    assert problems_of(corpus) == [
        (6, "has no 'image', 'question' and 'split'"),
        (7, "no JSON: Expecting property name enclosed in double quotes"),
        (3, "row 1 of questions.jsonl gives the item another split"),
        (5, "question 1: it has no answer"),
        (5, "answer 2: is empty"),
    ]


@pytest.mark.skipif(not (DATA / "daquar").is_dir(), reason=f"no DAQUAR in {DATA}")
def test_real_daquar(tmp_path: Path) -> None:
    corpus = made("daquar", DATA / "daquar", tmp_path / "out", media="none")
    assert [sum(1 for _ in questions_of(corpus, split)) for split in SPLITS] == [7171, 933, 2090]
    assert problems_of(corpus) == []


# VQAv2


def write_vqav2(root: Path) -> None:
    for part, images in (("train", range(1, 11)), ("val", range(101, 103))):
        asked = [{"question_id": 10 * i + q, "image_id": i, "question": f"what {q}?"} for i in images for q in (0, 1)]
        answers = [
            {"question_id": a["question_id"], "answers": [{"answer": text} for text in ("net", "net", "a net")]}
            for a in asked
        ]
        write(root / f"v2_OpenEnded_mscoco_{part}2014_questions.json", {"info": {"a": [1]}, "questions": asked})
        write(root / f"v2_mscoco_{part}2014_annotations.json", {"license": {}, "annotations": answers, "more": 1})
        for image in images:
            picture(root / f"{part}2014" / f"COCO_{part}2014_{image:012d}.jpg")


def test_vqav2_keeps_all_answers_and_shares_its_cut_with_the_captions(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_vqav2(root)
    corpus = made("vqav2", root, tmp_path / "out", val_share=0.3)
    found = by_split(corpus)
    assert found["test"] == {f"COCO_val2014_{image:012d}" for image in (101, 102)}
    assert len(found["train"] | found["val"]) == 10
    assert all(a.answers == ("net", "net", "a net") for split in SPLITS for a in questions_of(corpus, split))
    assert len(list(questions_of(corpus, "test"))) == 4
    images = [{"id": i, "file_name": f"COCO_train2014_{i:012d}.jpg"} for i in range(1, 11)]
    notes = [{"image_id": i["id"], "id": 0, "caption": "a net"} for i in images]
    write(root / "annotations" / "captions_train2014.json", {"images": images, "annotations": notes})
    captions = made("coco-captions", root, tmp_path / "captions", val_share=0.3, splits=("train", "val"))
    assert by_split(captions) == {split: found[split] for split in ("train", "val")}


def test_vqav2_lists_questions_without_answers(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_vqav2(root)
    asked = [{"question_id": 1, "image_id": 101, "question": "what?"}, {"image_id": 101}, 7]
    write(
        root / "v2_OpenEnded_mscoco_val2014_questions.json", {"questions": [*asked, {**asked[0], "question_id": 1010}]}
    )
    answers = [{"question_id": 1, "answers": [{}]}, {"question_id": 1010, "answers": [{"answer": "net"}]}]
    write(root / "v2_mscoco_val2014_annotations.json", {"annotations": answers})
    corpus = made("vqav2", root, tmp_path / "out", splits=("test",))
    assert problems_of(corpus) == [
        (1, "has no 'question_id' and no list 'answers' of 'answer'"),
        (1, "question 1 has no answers"),
        (2, "has no 'image_id' and 'question_id'"),
        (3, "no object but int"),
    ]
    assert [a.answers for a in questions_of(corpus, "test")] == [("net",)]


def test_a_file_without_its_list_is_named(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_vqav2(root)
    write(root / "v2_OpenEnded_mscoco_val2014_questions.json", {"question": []})
    with pytest.raises(UserError, match="holds no list 'questions'"):
        made("vqav2", root, tmp_path / "out", splits=("test",))


def test_a_command_that_needs_captions_refuses_questions(easy: Path, tmp_path: Path) -> None:
    told = must_run(f"sclmkb-gen corpus easy-vqa --root {easy} --out {tmp_path}/corpus").err
    assert "test holds 3 identities, 3 items, 6 questions, 6 answers" in told
    done = run_command(f"sclmkb-gen sdg --corpus {tmp_path}/corpus --out {tmp_path}/sdg --set engine=template")
    assert done.code == 2
    assert "has no captions in train: the texts there are of role answer and question" in done.err
