"""What the tasks of the multi-task transceiver take of a corpus: media with questions, answers and captions."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.texts import Asked, no_texts, questions_of, texts_of
from sclmkb.common.tasks.media.base import TextTask


@dataclass(frozen=True, kw_only=True)
class TextSamples:
    """M samples of a text task.

    Attributes:
        item: row of each one's medium ``[M]``.
        prompts: what is asked.
        references: the texts that people gave, at least one.
        row_ids: of the question, or of the first reference; where an identity has several media, with the medium's id.
        groups: samples of one group are never in two splits; intervals are clustered by it.
    """

    item: Int[torch.Tensor, " M"]
    prompts: list[str]
    references: list[list[str]]
    row_ids: list[str]
    groups: list[str]

    def __len__(self) -> int:
        return len(self.prompts)


def load_text_samples(corpus: Artifact, split: str, task: TextTask, item_ids: Sequence[str]) -> TextSamples:
    """Read the samples of a task whose medium can be read.

    Args:
        corpus: the corpus.
        split: its split.
        task: says which texts.
        item_ids: of the media that can be read.

    Raises:
        UserError: if the split has no such sample.
    """
    number = {item: i for i, item in enumerate(item_ids)}
    rows_of: dict[str, list[int]] = defaultdict(list)
    group_of: dict[str, str] = {}
    num_media: Counter[str] = Counter()
    for item in corpus.table("items", split, ["item_id", "identity", "group"]).to_pylist():
        group_of[item["identity"]] = item["group"]
        num_media[item["identity"]] += 1
        if item["item_id"] in number:
            rows_of[item["identity"]].append(number[item["item_id"]])
    told = questions_of(corpus, split) if task.role == "answer" else _captions(corpus, split, task)
    found = [(row, one) for one in told for row in rows_of[one.identity]]
    if not found:
        raise no_texts(corpus, [split], "question" if task.role == "answer" else task.role)
    return TextSamples(
        item=torch.tensor([row for row, _ in found]),
        prompts=[one.question for _, one in found],
        references=[list(one.answers) for _, one in found],
        row_ids=[one.row_id if num_media[one.identity] == 1 else f"{one.row_id}/{item_ids[row]}" for row, one in found],
        groups=[group_of[one.identity] for _, one in found],
    )


def roles_of(corpus: Artifact) -> set[str]:
    """Return the roles of the texts of a corpus."""
    return {role for split in corpus.splits for role in corpus.table("captions", split, ["role"])["role"].to_pylist()}


def _captions(corpus: Artifact, split: str, task: TextTask) -> list[Asked]:
    """Return the captions of each item as answers to the task's prompt."""
    of: dict[str, list[dict[str, str]]] = defaultdict(list)
    for text in texts_of(corpus, split, ["row_id", "identity", "text"], task.role).to_pylist():
        of[text["identity"]].append(text)
    return [
        Asked(row_id=told[0]["row_id"], identity=identity, question=task.prompt, answers=tuple(t["text"] for t in told))
        for identity, told in of.items()
    ]
