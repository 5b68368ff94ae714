"""Questions and answers on their way from a reader through the artifact to what reads captions alone."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from PIL import Image

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.texts import questions_of
from sclmkb.common.errors import UserError
from sclmkb.common.modalities.image import PictureForm
from sclmkb.common.tasks.retrieval_corpus import load_retrieval_split
from sclmkb.generate.captions.sdg import read_captions
from sclmkb.generate.corpora.on_disk import corpus_lines, plan_corpus
from sclmkb.generate.corpora.reader import Entry, Reader, ReaderSettings
from sclmkb.generate.corpora.roles import find_unpaired
from sclmkb.generate.filter.calibrate import read_training_captions

LONG = "x" * 3000


class Asking(Reader):
    """A picture with these texts, the same in each split."""

    name = "asking"
    title = "Asking"
    address = licence = "none"
    modality = "pictures"
    texts: ClassVar[Sequence[tuple[str, object]]] = ()

    def annotation_files(self) -> Sequence[Path]:
        return []

    def entries(self) -> Iterator[Entry]:
        for row, split in enumerate(("train", "val", "test"), start=1):
            yield Entry(
                file="f", row=row, split=split, item_id=split, identity=split, group=split, media="a.png",
                captions=tuple((place, text) for place, (_, text) in enumerate(self.texts)),
                role={place: role for place, (role, _) in enumerate(self.texts)},
            )  # fmt: skip


def write(tmp_path: Path, *texts: tuple[str, object]) -> Artifact:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    layout = type("Some", (Asking,), {"texts": texts})
    return plan_corpus(layout(tmp_path, ReaderSettings()), tmp_path / "out").run_here()


def test_an_answer_stays_with_its_question_when_other_texts_are_left_out(tmp_path: Path) -> None:
    corpus = write(
        tmp_path,
        ("question", "what is it"), ("answer", "a cup"), ("answer", " "),
        ("question", LONG), ("answer", "lost with it"),
        ("question", "unanswered"), ("answer", None),
        ("question", "how many"), ("answer", "2"), ("answer", "2"),
    )  # fmt: skip
    found = [(asked.question, asked.answers) for asked in questions_of(corpus, "test")]
    assert found == [("what is it", ("a cup",)), ("how many", ("2", "2"))]
    reasons = [p["reason"] for p in corpus.table("problems").to_pylist() if p["split"] == "test"]
    assert reasons == [
        "answer 3: is empty",
        "question 4: has 3000 characters, more than max_caption_chars=2000",
        "answer 5: its question is left out",
        "question 6: it has no answer",
        "answer 7: is no text but NoneType",
    ]
    assert corpus.table("captions", "train")["caption_index"].to_pylist() == [0, 1, 7, 8, 9]
    assert "train holds 1 identities, 1 items, 2 questions, 3 answers" in corpus_lines(corpus)


def test_an_answer_before_any_question_is_left_out() -> None:
    assert find_unpaired(["answer", "question", "answer"], [True] * 3) == {0: "no question stands before it"}


def test_what_reads_captions_takes_no_question(tmp_path: Path) -> None:
    corpus = write(tmp_path, ("caption", "a cup"), ("question", "what is it"), ("answer", "a mug"))
    assert load_retrieval_split(corpus, "test", PictureForm(size=8)).texts == ["a cup"]
    assert [row["text"] for row in read_captions(corpus, ["train"]).values()] == ["a cup"]
    assert read_training_captions(corpus.root)[0] == ["a cup"]


def test_a_corpus_without_captions_is_one_clear_line(tmp_path: Path) -> None:
    corpus = write(tmp_path, ("question", "what is it"), ("answer", "a mug"))
    for read in (
        lambda: load_retrieval_split(corpus, "test", PictureForm(size=8)),
        lambda: read_captions(corpus, ["test"]),
    ):
        with pytest.raises(UserError, match="no captions in test: the texts there are of role answer and question"):
            read()
    with pytest.raises(UserError, match="no captions in train: the texts there are"):
        read_training_captions(corpus.root)
