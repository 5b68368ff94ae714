from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.errors import UserError
from sclmkb.common.modalities.image import PictureForm
from sclmkb.common.tasks.retrieval_corpus import load_retrieval_split
from sclmkb.train.semantic.data import TrainingData, drop_entries, index_generated
from sclmkb.train.semantic.generated import load_generated


@pytest.fixture
def data(tiny_artifacts: Any, jscc_cache: None) -> TrainingData:
    split = load_retrieval_split(Artifact.open(tiny_artifacts.corpus, "corpus"), "train", PictureForm(size=16))
    _, places = index_generated(load_generated(Artifact.open(tiny_artifacts.sdg, "sdg"), split.row_ids))
    return TrainingData(split=split, generated_of=places, seed=0)


def test_a_draw_depends_on_its_step_alone(data: TrainingData) -> None:
    one, again, other = data.draw(3, 4, 2), data.draw(3, 4, 2), data.draw(4, 4, 2)
    for a, b in zip(one, again, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert not torch.equal(one.chance, other.chance)


def test_every_epoch_has_every_caption_once(data: TrainingData) -> None:
    seen = torch.cat([data.draw(step, 4, 1).caption for step in range(5)])  # 20 draws from 10 captions
    assert sorted(seen[:10].tolist()) == sorted(seen[10:].tolist()) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()


def test_media_show_the_identities_of_the_first_captions_and_all_get_their_turn(data: TrainingData) -> None:
    seen = set()
    for step in range(40):
        drawn = data.draw(step, 8, 5)
        assert torch.equal(drawn.identity, data.split.caption_identity[drawn.caption])
        assert torch.equal(drawn.media_identity, drawn.identity[:5])
        assert torch.equal(data.split.media_identity[drawn.media], drawn.media_identity)
        seen |= set(drawn.media.tolist())
    assert seen == set(range(len(data.split.media)))


def test_balanced_batches_have_so_many_captions_and_different_media_of_each_identity(data: TrainingData) -> None:
    several = replace(data.split, caption_identity=torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2, 3]))
    balanced = replace(data, split=several, captions_per_identity=2)
    seen: list[int] = []
    for step in range(2):
        drawn = balanced.draw(step, 4, 4)
        pairs = drawn.identity.view(-1, 2)
        assert torch.equal(pairs[:, 0], pairs[:, 1])
        seen += pairs[:, 0].tolist()
        for identity, captions, media in zip(
            pairs[:, 0].tolist(), drawn.caption.view(-1, 2).tolist(), drawn.media.view(-1, 2).tolist(), strict=True
        ):
            assert len(set(captions)) == (2 if identity != 3 else 1), "identity 3 has one caption"
            assert len(set(media)) == 2, "each has three pictures"
    assert sorted(seen) == [0, 1, 2, 3], "identities take turns"


@pytest.mark.parametrize("width", [1, 2, 3])
def test_generated_captions_are_joined_by_row_id(data: TrainingData, width: int) -> None:
    drawn = replace(data, generated_per_caption=width).draw(0, 10, 1)
    for caption, generated, count in zip(
        drawn.caption.tolist(), drawn.generated.tolist(), drawn.num_generated.tolist(), strict=True
    ):
        assert count == caption % 3  # as written by the fixture
        there = [row for row in generated if row >= 0]
        assert len(there) == len(set(there)) == min(width, count)
        assert set(there) <= set(data.generated_of[caption].tolist())


def test_without_generated_captions_there_are_none(data: TrainingData) -> None:
    empty = replace(data, generated_of=torch.zeros(10, 0, dtype=torch.long))
    assert (empty.draw(0, 4, 2).generated == -1).all()


def test_all_generated_captions_are_those_that_the_engine_wrote(tiny_artifacts: Any) -> None:
    sdg = Artifact.open(tiny_artifacts.sdg, "sdg")
    row_ids = sdg.table("attempts", "train").column("row_id").to_pylist()
    accepted, everything = load_generated(sdg, row_ids), load_generated(sdg, row_ids, "all")
    assert [len(texts) for texts in accepted] == [i % 3 for i in range(10)]
    assert everything == [[f"caption of {i}"] for i in range(10)], "rejected ones too"


def test_generated_captions_of_another_corpus_are_refused(make_tiny: Callable[[str], Any]) -> None:
    tiny = make_tiny("other")
    tiny.write_sdg()
    with pytest.raises(UserError, match="belong to another corpus"):
        load_generated(Artifact.open(tiny.sdg, "sdg"), ["unknown row"])


def test_dropped_entries_are_the_mean_and_the_expectation_stays() -> None:
    draw, mean = torch.Generator().manual_seed(0), torch.tensor([1.0, -2.0, 3.0])
    embeddings = mean + torch.tensor([0.5, -1.0, 2.0]).expand(20000, 3)
    dropped = drop_entries(embeddings, mean, 0.25, draw) - mean
    whole = dropped != 0
    assert whole.float().mean().item() == pytest.approx(0.75, abs=0.01)
    torch.testing.assert_close(dropped[whole], ((embeddings - mean) / 0.75)[whole])
    torch.testing.assert_close(dropped.mean(0), (embeddings - mean)[0], rtol=0.03, atol=0)
    torch.testing.assert_close(drop_entries(embeddings, mean, 0.0, draw), embeddings)
