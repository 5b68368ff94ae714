"""The texts of a corpus by their role: what a text is to the item that it belongs to.

=========== =====================================================================
role        the text
=========== =====================================================================
caption     describes the item
label       names the class of the item, which many items share
question    asks something of the item
answer      answers the last question of the item before it, by ``caption_index``
=========== =====================================================================

The rows of an item stand together in the table, by ``caption_index``. A question has at least one answer, and several
where several people were asked.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.errors import UserError

Role = Literal["caption", "label", "question", "answer"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A question with its answers.

    Attributes:
        row_id: of the question.
        identity: of the item that is asked about.
        question: its text.
        answers: at least one, in the order of the corpus; those that several people gave stand there as often.
    """

    row_id: str
    identity: str
    question: str
    answers: tuple[str, ...]


def of_role(texts: pa.Table, role: Role) -> pa.Table:
    """Return the rows of the table ``captions`` that have a role, in order."""
    chosen = pc.equal(texts["role"], role)
    return texts if pc.all(chosen).as_py() else texts.filter(chosen)


def texts_of(corpus: Artifact, split: str, columns: Sequence[str] | None = None, role: Role = "caption") -> pa.Table:
    """Return the texts of a split that have a role; there may be none.

    Args:
        corpus: the corpus.
        split: its split.
        columns: those of the table ``captions`` to read; by default all.
        role: what the texts are to their items.

    Raises:
        UserError: if the split does not exist or a file cannot be read.
    """
    wanted = None if columns is None else list(dict.fromkeys((*columns, "role")))
    found = of_role(corpus.table("captions", split, wanted), role)
    return found if columns is None else found.select(list(columns))


def no_texts(corpus: Artifact, splits: Sequence[str], role: Role = "caption") -> UserError:
    """Return the error for a corpus without a text of a role in some splits; it says what there is instead."""
    tables = [corpus.table("captions", split, ["role"]) for split in splits if split in corpus.splits]
    there = sorted({found for table in tables for found in table["role"].unique().to_pylist()} - {role})
    mend = f"the texts there are of role {' and '.join(there)}" if there else "make the corpus again"
    return UserError(f"{corpus.root} has no {role}s in {', '.join(splits)}: {mend}")


def questions_of(corpus: Artifact, split: str) -> Iterator[Asked]:
    """Go through the questions of a split with their answers, in the order of the corpus.

    Raises:
        UserError: if the split does not exist or holds no question.
    """
    rows = corpus.table("captions", split, ["row_id", "identity", "role", "text"])
    question: tuple[str, str, str] | None = None
    answers: list[str] = []
    found = False
    for row in rows.to_pylist():
        if row["role"] == "answer":
            answers.append(row["text"])
        elif row["role"] == "question":
            if question is not None:
                yield _asked(question, answers)
            question, answers, found = (row["row_id"], row["identity"], row["text"]), [], True
    if not found:
        raise no_texts(corpus, [split], "question")
    if question is not None:
        yield _asked(question, answers)


def _asked(question: tuple[str, str, str], answers: Sequence[str]) -> Asked:
    row_id, identity, text = question
    return Asked(row_id=row_id, identity=identity, question=text, answers=tuple(answers))
