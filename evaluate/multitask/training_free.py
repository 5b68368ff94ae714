"""Rows beside every trained system of a text task that need no training: what is a text worth that was not learned?

============= ========= ==============================================================================================
system        task      what it writes of a medium
============= ========= ==============================================================================================
`majority`    answer    the commonest answer of training to the same question
`constant`    caption   one caption of training for all: the one most like the others
`nearest`     caption   the first caption of the nearest training medium
`consensus-5` caption   of the captions of the 5 nearest, the one most like those of the other 4 (Devlin et al., 2015)
============= ========= ==============================================================================================

Nearness is the cosine of frozen features, standardised over training and averaged over a medium's tokens. "Like" is
CIDEr. The texts are found at the transmitter and arrive without error: no channel, no uses, one value for all SNRs. So
these rows are generous.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sclmkb.common.models.lam.features import Features
from sclmkb.common.tasks.caption import cider
from sclmkb.common.tasks.media.data import TaskData

_MOST = 200
"""So many training media say which constant caption is best."""
_CHUNK = 2048
_NEIGHBOURS = 5

Write = Callable[[TaskData, TaskData, Tensor], list[str]]
"""From training, a measured split and rows of it to the text of each row."""


def majority(train: TaskData, data: TaskData, rows: Int[Tensor, " Q"]) -> list[str]:
    """Return the commonest answer of training to each question; of a new question, the commonest of all."""
    assert train.samples is not None and data.samples is not None
    of: dict[str, Counter[str]] = defaultdict(Counter)
    everything: Counter[str] = Counter()
    for prompt, answers in zip(train.samples.prompts, train.samples.references, strict=True):
        of[prompt].update(answers)
        everything.update(answers)
    asked = [data.samples.prompts[i] for i in rows.tolist()]
    return [of.get(prompt, everything).most_common(1)[0][0] for prompt in asked]


def constant(train: TaskData, data: TaskData, rows: Int[Tensor, " Q"]) -> list[str]:
    """Return the caption, one of up to 200 training media, that is most like those of the other media."""
    assert train.samples is not None
    said = [train.samples.references[i] for i in train.some(_MOST).tolist()]
    means = [cider([texts[0]] * len(said), said).mean() for texts in said]
    return [said[int(np.argmax(means))][0]] * len(rows)


def nearest(train: TaskData, data: TaskData, rows: Int[Tensor, " Q"]) -> list[str]:
    """Return the first caption of the training medium whose features are nearest."""
    assert train.samples is not None
    found = _nearest(train, data, rows, 1)
    return [train.samples.references[i][0] for i in found[:, 0].tolist()]


def consensus(train: TaskData, data: TaskData, rows: Int[Tensor, " Q"]) -> list[str]:
    """Return, of all captions of the 5 nearest training media, the one most like those of the other 4."""
    assert train.samples is not None
    candidates, others, owner = [], [], []
    for query, near in enumerate(_nearest(train, data, rows, _NEIGHBOURS).tolist()):
        said = [train.samples.references[i] for i in near]
        for number, texts in enumerate(said):
            rest = [text for i, one in enumerate(said) if i != number for text in one] or texts
            candidates += texts
            others += [rest] * len(texts)
            owner += [query] * len(texts)
    best: dict[int, tuple[float, str]] = {}
    for query, value, text in zip(owner, cider(candidates, others).tolist(), candidates, strict=True):
        if query not in best or value > best[query][0]:
            best[query] = (value, text)
    return [best[query][1] for query in range(len(rows))]


TRAINING_FREE: Mapping[str, Mapping[str, Write]] = {
    "answer": {"majority": majority},
    "caption": {"constant": constant, "nearest": nearest, f"consensus-{_NEIGHBOURS}": consensus},
}
"""What writes each row, by the role of the texts and the name of the system."""


def _nearest(train: TaskData, data: TaskData, rows: Int[Tensor, " Q"], count: int) -> Int[Tensor, "Q count"]:
    """Return the training samples whose media are nearest to those of some samples, the nearest first."""
    assert train.samples is not None and data.samples is not None
    looked = train.features.take(train.samples.item[train.some(_CHUNK)]).mean(1)
    mean, deviation = looked.mean(0), looked.std(0, correction=0).clamp(min=1e-3)

    def unit(features: Features, items: Sequence[int] | Tensor) -> Float[Tensor, "n f"]:
        pooled = features.take(torch.as_tensor(items)).mean(1)
        return nn.functional.normalize((pooled - mean) / deviation, dim=1)

    queries = unit(data.features, data.samples.item[rows])
    best = torch.full((len(rows), count), -torch.inf)
    which = torch.zeros(len(rows), count, dtype=torch.long)
    for part in torch.split(torch.arange(len(train)), _CHUNK):
        near = torch.cat([best, queries @ unit(train.features, train.samples.item[part]).T], dim=1)
        best, at = near.topk(count, dim=1)
        which = torch.cat([which, part.expand(len(rows), -1)], dim=1).gather(1, at)
    return which
