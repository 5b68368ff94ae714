"""Visual question answering: a question about a picture shall be answered at the receiver."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from sclmkb.common.tasks.media.base import ItemScores, TextTask, plain


class Answer(TextTask):
    """Exact answers, and BLEU-1 beside them; the paper's "BLEU-based answer accuracy" states neither."""

    name = "answer"
    role = "answer"
    prompt = ""
    measures: ClassVar[Mapping[str, str]] = {"accuracy": "accuracy", "bleu1": "BLEU-1"}

    def score(self, outputs: Sequence[str], references: Sequence[Sequence[str]]) -> ItemScores:
        """Return 1 where an output is one of the answers, and the best BLEU-1 with one of them."""
        pairs = [(plain(text), [plain(one) for one in right]) for text, right in zip(outputs, references, strict=True)]
        accuracy = [float(text in right) for text, right in pairs]
        bleu = [max((_bleu1(text.split(), one.split()) for one in right), default=0.0) for text, right in pairs]
        return {"accuracy": np.array(accuracy), "bleu1": np.array(bleu)}


def _bleu1(words: Sequence[str], reference: Sequence[str]) -> float:
    """Return clipped unigram precision times the brevity penalty (Papineni et al., 2002)."""
    if not words or not reference:
        return float(list(words) == list(reference))
    hits = sum(min(words.count(word), reference.count(word)) for word in set(words))
    penalty = min(1.0, float(np.exp(1 - len(reference) / len(words))))
    return penalty * hits / len(words)
