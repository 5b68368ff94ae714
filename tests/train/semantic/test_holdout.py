from collections.abc import Callable
from typing import Any

import pytest
import torch

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.errors import UserError
from sclmkb.common.modalities.image import PictureForm
from sclmkb.train.semantic.holdout import load_splits


@pytest.fixture
def corpus(tiny_artifacts: Any, jscc_cache: None, monkeypatch: pytest.MonkeyPatch) -> Artifact:
    """Return a corpus that says it has no validation split."""
    monkeypatch.setattr(Artifact, "splits", property(lambda self: ["train", "test"]))
    return Artifact.open(tiny_artifacts.corpus, "corpus")


def test_a_part_of_training_is_held_out_once_and_for_all(corpus: Artifact) -> None:
    train, val = load_splits(corpus, PictureForm(size=16), 0.3)
    again, _ = load_splits(corpus, PictureForm(size=16), 0.3)
    assert again.row_ids == train.row_ids
    assert (len(train.texts), len(val.texts)) == (7, 3)
    assert not set(train.row_ids) & set(val.row_ids)
    assert not set(train.item_ids) & set(val.item_ids)
    assert all(item.startswith("train-") for item in [*train.item_ids, *val.item_ids])
    for part, count in ((train, 7), (val, 3)):
        assert sorted(part.caption_identity.tolist()) == list(range(count))
        assert part.media_identity.bincount().tolist() == [3] * count
        for text, identity in zip(part.texts, part.caption_identity.tolist(), strict=True):
            own = part.media.take(torch.nonzero(part.media_identity == identity)[:, 0]).values.float()
            color = torch.tensor([float(x) for x in text.split()[-3:]])
            assert (own.mean((0, 2, 3)) - color).abs().max() < 20, (text, identity)  # noise, clipped


def test_too_few_groups_are_refused(corpus: Artifact) -> None:
    with pytest.raises(UserError, match="too few groups"):
        load_splits(corpus, PictureForm(size=16), 0.99)


def test_a_validation_split_is_taken_where_there_is_one(make_tiny: Callable[[str], Any], jscc_cache: None) -> None:
    tiny = make_tiny("whole")
    tiny.write_corpus()
    train, val = load_splits(Artifact.open(tiny.corpus, "corpus"), PictureForm(size=16), 0.3)
    assert len(train.texts) == 10
    assert all(item.startswith("val-") for item in val.item_ids)
