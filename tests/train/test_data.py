from collections.abc import Callable
from typing import Any

import pytest
import torch

from sclmkb.common.artifacts import Artifact
from sclmkb.common.corpora.media_store import PictureForm
from sclmkb.common.corpora.retrieval import load_retrieval_split
from sclmkb.common.errors import UserError
from sclmkb.train.data import TrainingData, augment, drop_entries, index_generated, load_generated


@pytest.fixture
def data(tiny_artifacts: Any) -> TrainingData:
    split = load_retrieval_split(Artifact.open(tiny_artifacts.corpus, "corpus"), "train", PictureForm(size=16))
    flat, places = index_generated(load_generated(Artifact.open(tiny_artifacts.sdg, "sdg"), split.row_ids))
    embeddings = torch.arange(len(split.texts)).float()[:, None].expand(-1, 3)
    generated = 100 + torch.arange(len(flat)).float()[:, None].expand(-1, 3)
    return TrainingData(split=split, embeddings=embeddings, generated_embeddings=generated, generated_of=places, seed=0)


def test_a_batch_depends_on_its_step_alone(data: TrainingData) -> None:
    one, again, other = data.batch(3, 4, 2), data.batch(3, 4, 2), data.batch(4, 4, 2)
    for a, b in zip(one, again, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert not torch.equal(one.pictures, other.pictures)


def test_every_epoch_has_every_caption_once(data: TrainingData) -> None:
    seen = torch.cat([data.batch(step, 4, 1).source[:, 0] for step in range(5)])  # 20 draws from 10 captions
    assert sorted(seen[:10].tolist()) == sorted(seen[10:].tolist()) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()


def test_pictures_show_the_identities_of_the_first_captions_and_all_get_their_turn(data: TrainingData) -> None:
    batch = data.batch(0, 8, 5)
    assert torch.equal(batch.picture_identity, batch.identity[:5])
    identity = torch.arange(10).repeat(40)
    index = data._pictures_of(identity, torch.Generator().manual_seed(0))
    assert torch.equal(data.split.media_identity[index], identity)
    assert len(index.unique()) == len(data.split.media)


def test_generated_captions_are_joined_by_row_id(data: TrainingData) -> None:
    batch = data.batch(0, 10, 1)
    for source, generated, has, count in zip(
        batch.source[:, 0], batch.generated[:, 0], batch.has_generated, batch.num_generated, strict=True
    ):
        number = int(data.split.row_ids.index(data.split.row_ids[int(source)]))
        assert int(count) == number % 3  # as written by the fixture
        assert bool(has) == (number % 3 > 0)
        allowed = data.generated_of[number]
        assert (generated == source) if not has else (int(generated) - 100 in allowed.tolist())


def test_generated_captions_of_another_corpus_are_refused(make_tiny: Callable[[str], Any]) -> None:
    tiny = make_tiny("other")
    tiny.write_sdg()
    with pytest.raises(UserError, match="belong to another corpus"):
        load_generated(Artifact.open(tiny.sdg, "sdg"), ["unknown row"])


def test_augmentation_only_moves_and_mirrors() -> None:
    pictures = torch.randint(0, 256, (40, 3, 16, 16), dtype=torch.uint8)
    moved = augment(pictures, torch.Generator().manual_seed(0))
    assert moved.shape == pictures.shape
    assert not torch.equal(moved, pictures)
    for before, after in zip(pictures, moved, strict=True):
        colors = {tuple(c) for c in before.flatten(1).T.tolist()}
        assert {tuple(c) for c in after.flatten(1).T.tolist()} <= colors
    constant = torch.full((2, 3, 16, 16), 7, dtype=torch.uint8)
    assert torch.equal(augment(constant, torch.Generator().manual_seed(0)), constant)


def test_dropped_entries_are_the_mean_and_the_expectation_stays() -> None:
    draw, mean = torch.Generator().manual_seed(0), torch.tensor([1.0, -2.0, 3.0])
    embeddings = mean + torch.tensor([0.5, -1.0, 2.0]).expand(20000, 3)
    dropped = drop_entries(embeddings, mean, 0.25, draw) - mean
    whole = dropped != 0
    assert whole.float().mean().item() == pytest.approx(0.75, abs=0.01)
    torch.testing.assert_close(dropped[whole], ((embeddings - mean) / 0.75)[whole])
    torch.testing.assert_close(dropped.mean(0), (embeddings - mean)[0], rtol=0.03, atol=0)
    torch.testing.assert_close(drop_entries(embeddings, mean, 0.0, draw), embeddings)


def test_an_empty_corpus_is_one_clear_line(make_tiny: Callable[[str], Any]) -> None:
    tiny = make_tiny("empty")
    tiny.write_corpus(identities=0)
    with pytest.raises(UserError, match=r"corpus at .* is empty"):
        load_retrieval_split(Artifact.open(tiny.corpus, "corpus"), "train", PictureForm(size=16))
