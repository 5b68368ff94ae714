from typing import Any, cast

import numpy as np
import torch

from sclmkb.common.models.lam.features import Features
from sclmkb.common.tasks.media.data import TaskData
from sclmkb.common.tasks.media.samples import TextSamples
from sclmkb.evaluate.multitask.baselines.base import BaselineSetup
from sclmkb.evaluate.multitask.baselines.known import baselines_named

DOGS = ["a brown dog runs", "the brown dog runs fast", "a brown dog runs on grass"]
CARS = ["a red car waits", "the red car waits here", "a red car waits at a light"]


def data(texts: list[list[str]], kinds: list[int], prompts: list[str] | None = None) -> TaskData:
    """Media whose features are those of their kind with a little noise, two tokens each."""
    draw = np.random.default_rng(len(texts))
    values = np.eye(4)[kinds][:, None, :] + 0.05 * draw.standard_normal((len(kinds), 2, 4))
    ids = [str(i) for i in range(len(texts))]
    samples = TextSamples(
        item=torch.arange(len(texts)), prompts=prompts or ["describe it"] * len(texts), references=texts, row_ids=ids,
        groups=ids,
    )  # fmt: skip
    features = Features(item_ids=ids, values=values.astype(np.float16))
    return TaskData(modality="pictures", features=features, samples=samples, pictures=None)


def written(name: str, task: str, train: TaskData, test: TaskData) -> list[str]:
    of = cast(Any, None)
    setup = BaselineSetup(
        task=task, channel=of, seed=0, beside=of, corpus=of, split="test", rows=torch.arange(len(test)),
        load=lambda split: {"train": train, "test": test}[split],
    )  # fmt: skip
    baseline = next(one for one in baselines_named([name]) if task in one.tasks)
    assert not baseline.counts_uses
    receive = baseline.prepare(setup)
    assert receive(-12.0) == receive(18.0)
    return list(receive(0.0))


def test_majority_answers_from_the_question_alone() -> None:
    asked = ["is it red?"] * 3 + ["what is it?"] * 2
    train = data([["no"], ["no"], ["yes"], ["cup"], ["cup"]], [0, 1, 2, 3, 0], asked)
    test = data([["yes"], ["plate"], ["3"]], [2, 1, 0], ["is it red?", "what is it?", "how many are there?"])
    assert written("majority", "answer", train, test) == ["no", "cup", "no"]


def test_captions_of_the_nearest_media_are_taken() -> None:
    train = data([[text] for pair in zip(DOGS, CARS, strict=True) for text in pair], [0, 1] * 3)
    test = data([["?"], ["?"]], [1, 0])
    car, dog = written("nearest", "caption", train, test)
    assert (car in CARS, dog in DOGS) == (True, True)


def test_the_consensus_is_the_caption_most_like_the_others() -> None:
    odd = ["my holiday", "untitled"]
    train = data([[text] for text in [*odd, *DOGS, *CARS, "cars of all kinds", "red"]], [0] * 5 + [1] * 5)
    test = data([["?"], ["?"]], [0, 1])
    dog, car = written("consensus-5", "caption", train, test)
    assert (dog in DOGS, car in CARS) == (True, True)


def test_the_constant_caption_is_one_for_all() -> None:
    train = data([[text] for text in ["untitled", *DOGS, "a red car", "two people sit"]], [0, 1, 2, 3, 0, 1])
    texts = written("constant", "caption", train, data([["?"]] * 3, [0, 1, 2]))
    assert set(texts) <= set(DOGS)
    assert len(set(texts)) == 1
