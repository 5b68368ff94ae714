from collections import Counter

import numpy as np
import torch

from sclmkb.common.models.lam.features import Features
from sclmkb.common.tasks.media.data import TaskData
from sclmkb.common.tasks.media.samples import TextSamples
from sclmkb.common.tasks.media.trained import TaskSettings
from sclmkb.train.multitask.data import Rows

ANSWERS = ["no"] * 90 + ["red", "teal"] * 5


def rows(balance: float) -> Rows:
    ids = [str(i) for i in range(len(ANSWERS))]
    samples = TextSamples(
        item=torch.arange(100), prompts=["?"] * 100, references=[[a] for a in ANSWERS], row_ids=ids, groups=ids
    )
    features = Features(item_ids=ids, values=np.zeros((100, 1, 1), dtype=np.float16))
    part = TaskData(modality="pictures", features=features, samples=samples, pictures=None)
    return Rows(part, TaskSettings(batch_size=20, balance=balance), 0, "answer")


def share_of_no(balance: float) -> float:
    drawn = torch.cat([rows(balance).of_step(step) for step in range(100)]).tolist()
    return Counter(ANSWERS[i] for i in drawn)["no"] / len(drawn)


def test_rare_answers_are_drawn_oftener_as_they_are_balanced() -> None:
    assert share_of_no(0) == 0.9
    assert abs(share_of_no(0.5) - 90**0.5 / (90**0.5 + 2 * 5**0.5)) < 0.03
    assert abs(share_of_no(1) - 1 / 3) < 0.03


def test_the_rows_of_a_step_depend_on_its_number_alone() -> None:
    assert torch.equal(rows(0.5).of_step(7), rows(0.5).of_step(7))
    assert not torch.equal(rows(0.5).of_step(7), rows(0.5).of_step(8))
    assert sorted(torch.cat([rows(0).of_step(step) for step in range(5)]).tolist()) == list(range(100))
