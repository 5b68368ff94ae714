"""Texts by their role, and what reads captions alone."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.plan import Plan, make_row_id, make_shards
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.artifacts.schemas import CAPTIONS, ITEMS
from sclmkb.common.artifacts.texts import no_texts, of_role, questions_of, texts_of
from sclmkb.common.errors import UserError

ROLES = (
    ("caption", "a room"),
    ("question", "what is red"), ("answer", "the sofa"), ("answer", "a sofa"),
    ("question", "how many"), ("answer", "2"),
)  # fmt: skip
Write = Callable[[tuple[tuple[str, str], ...]], Artifact]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a corpus whose two items have the same texts, given as role and text."""

    def made(texts: tuple[tuple[str, str], ...]) -> Artifact:
        shards = make_shards("train", ["one", "two"], 2)
        run = Run.open(
            tmp_path / "corpus",
            Plan(kind="corpus", tables={"items": ITEMS, "captions": CAPTIONS}, settings={}, shards=shards, inputs={}),
        )
        rows = [
            {
                "row_id": make_row_id("d", "train", item, index), "identity": item, "group": item, "split": "train",
                "caption_index": index, "wording": "caption", "role": role, "text": f"{text} {item}",
            }
            for item in ("one", "two")
            for index, (role, text) in enumerate(texts)
        ]  # fmt: skip
        run.commit_shard(
            shards[0], {"items": ITEMS.empty_table(), "captions": pa.Table.from_pylist(rows, schema=CAPTIONS)}
        )
        return run.finish("Roles", "Roles.")

    return made


def test_texts_of_one_role_alone_with_the_columns_asked_for(write: Write) -> None:
    corpus = write(ROLES)
    assert texts_of(corpus, "train", ["text"]).to_pydict() == {"text": ["a room one", "a room two"]}
    assert texts_of(corpus, "train", role="answer")["caption_index"].to_pylist() == [2, 3, 5] * 2
    table = corpus.table("captions", "train")
    assert of_role(table, "question").num_rows == 4
    assert of_role(of_role(table, "caption"), "caption").column_names == table.column_names


def test_questions_come_with_their_own_answers(write: Write) -> None:
    found = list(questions_of(write(ROLES), "train"))
    assert [(asked.identity, asked.question, asked.answers) for asked in found] == [
        ("one", "what is red one", ("the sofa one", "a sofa one")), ("one", "how many one", ("2 one",)),
        ("two", "what is red two", ("the sofa two", "a sofa two")), ("two", "how many two", ("2 two",)),
    ]  # fmt: skip
    assert found[1].row_id == make_row_id("d", "train", "one", 4)


def test_a_corpus_without_a_role_says_what_it_has(write: Write) -> None:
    corpus = write(ROLES[1:3])
    assert texts_of(corpus, "train").num_rows == 0
    assert str(no_texts(corpus, ["train", "test"])).endswith(
        "has no captions in train, test: the texts there are of role answer and question"
    )


def test_a_corpus_of_captions_has_no_questions(write: Write) -> None:
    with pytest.raises(UserError, match="has no questions in train: the texts there are of role caption"):
        list(questions_of(write(ROLES[:1]), "train"))
