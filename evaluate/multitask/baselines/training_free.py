"""Texts that need no training, beside every trained system of a text task.

============= ========= =============================================================================================
baseline      tasks     what it writes
============= ========= =============================================================================================
`majority`    answer    the commonest answer of training to the same question
`constant`    captions  one caption of training for all: the one most like those of other media
`nearest`     captions  the first caption of the nearest training medium
`consensus-5` captions  of the captions of the 5 nearest, the one most like those of the other 4 (Devlin et al., 2015)
============= ========= =============================================================================================

Nearness is the cosine of frozen features, standardised over training and averaged over a medium's tokens. Likeness is
CIDEr. The texts are found at the transmitter and arrive without error in no uses, so that the rows are generous.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sclmkb.common.models.lam.features import Features
from sclmkb.common.tasks.caption import cider
from sclmkb.common.tasks.media.samples import TextSamples
from sclmkb.common.tasks.media.trained import TaskName
from sclmkb.evaluate.multitask.baselines.base import Baseline, BaselineSetup, Receive

_MOST = 200
"""So many training media say which constant caption is best."""
_CHUNK = 2048
_NEIGHBOURS = 5
_CAPTIONS: tuple[TaskName, ...] = ("caption", "caption_sound", "caption_video")


def _majority(setup: BaselineSetup) -> list[str]:
    """Return the commonest answer of training to each question; of a new question, the commonest of all."""
    train, asked = _samples(setup, "train"), _samples(setup, setup.split).prompts
    of: dict[str, Counter[str]] = defaultdict(Counter)
    everything: Counter[str] = Counter()
    for prompt, answers in zip(train.prompts, train.references, strict=True):
        of[prompt].update(answers)
        everything.update(answers)
    return [of.get(asked[i], everything).most_common(1)[0][0] for i in setup.rows.tolist()]


def _constant(setup: BaselineSetup) -> list[str]:
    """Return the caption, the first of one of up to 200 training media, that is most like those of all of them."""
    train = _samples(setup, "train")
    said = [train.references[i] for i in setup.load("train").some(_MOST).tolist()]
    means = [cider([texts[0]] * len(said), said).mean() for texts in said]
    return [said[int(np.argmax(means))][0]] * len(setup.rows)


def _nearest_caption(setup: BaselineSetup) -> list[str]:
    """Return the first caption of the training medium whose features are nearest."""
    train = _samples(setup, "train")
    return [train.references[i][0] for i in _nearest(setup, 1)[:, 0].tolist()]


def _consensus(setup: BaselineSetup) -> list[str]:
    """Return, of all captions of the nearest training media, the one most like those of the others."""
    train = _samples(setup, "train")
    candidates: list[str] = []
    others: list[Sequence[str]] = []
    owner: list[int] = []
    for query, near in enumerate(_nearest(setup, _NEIGHBOURS).tolist()):
        said = [train.references[i] for i in near]
        for number, texts in enumerate(said):
            rest = [text for i, one in enumerate(said) if i != number for text in one] or texts
            candidates += texts
            others += [rest] * len(texts)
            owner += [query] * len(texts)
    likeness, owners = cider(candidates, others), np.array(owner)
    found = []
    for query in range(len(setup.rows)):
        own = np.flatnonzero(owners == query)
        found.append(candidates[own[np.argmax(likeness[own])]])
    return found


def _samples(setup: BaselineSetup, split: str) -> TextSamples:
    samples = setup.load(split).samples
    assert samples is not None
    return samples


def _nearest(setup: BaselineSetup, most: int) -> Int[Tensor, "Q k"]:
    """Return the training samples whose media are nearest to those that are measured, the nearest first."""
    train, data = setup.load("train"), setup.data
    items = _samples(setup, "train").item
    looked = train.features.take(items[train.some(_CHUNK)]).mean(1)
    mean, deviation = looked.mean(0), looked.std(0, correction=0).clamp(min=1e-3)

    def unit(features: Features, media: Tensor) -> Float[Tensor, "n f"]:
        return nn.functional.normalize((features.take(media).mean(1) - mean) / deviation, dim=1)

    queries = unit(data.features, _samples(setup, setup.split).item[setup.rows])
    best, which = torch.empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.long)
    for part in torch.split(torch.arange(len(items)), _CHUNK):
        near = torch.cat([best, queries @ unit(train.features, items[part]).T], dim=1)
        best, at = near.topk(min(most, near.shape[1]), dim=1)
        which = torch.cat([which, part.expand(len(queries), -1)], dim=1).gather(1, at)
    return which


def _of(name: str, tasks: tuple[TaskName, ...], write: Callable[[BaselineSetup], list[str]]) -> Baseline:
    def prepare(setup: BaselineSetup) -> Receive:
        texts = write(setup)
        return lambda snr_db: texts

    return Baseline(name=name, tasks=tasks, prepare=prepare, counts_uses=False)


BASELINES = (
    _of("majority", ("answer",), _majority),
    _of("constant", _CAPTIONS, _constant),
    _of("nearest", _CAPTIONS, _nearest_caption),
    _of(f"consensus-{_NEIGHBOURS}", _CAPTIONS, _consensus),
)
