import pytest
import torch

from sclmkb.common.tasks.answer import Answer
from sclmkb.common.tasks.caption import Caption
from sclmkb.common.tasks.reconstruct import Reconstruct, to_bytes


def test_answers_count_when_they_are_one_of_the_references() -> None:
    found = Answer().score(["Yes.", "a red car", "", "blue"], [["yes", "no"], ["red car"], ["no"], ["green"]])
    assert found["accuracy"].tolist() == [1, 0, 0, 0]
    assert found["bleu1"] == pytest.approx([1, 2 / 3, 0, 0])


def test_bleu1_punishes_answers_that_are_short_or_repeat_words() -> None:
    found = Answer().score(["red", "red red red"], [["red car here"], ["red car here"]])["bleu1"]
    assert found == pytest.approx([torch.tensor(-2.0).exp().item(), 1 / 3])


def test_psnr_is_that_of_eight_bits() -> None:
    true = torch.full((2, 3, 16, 16), 100, dtype=torch.uint8)
    off = true.clone()
    off[0, 0, 0, 0] = 110
    found = Reconstruct().score(list(off), list(true))["psnr"]
    assert found[0] == pytest.approx(10 * torch.log10(torch.tensor(255**2 / (100 / 768))).item(), abs=1e-4)
    assert found[1] == 100
    limited = to_bytes(torch.tensor([-0.2, 0.5, 1.3]).view(1, 3, 1, 1))
    assert limited.flatten().tolist() == [0, 128, 255]


def test_cider_prefers_the_caption_of_the_picture() -> None:
    pytest.importorskip("pycocoevalcap")
    references = [["a dog runs over grass", "the dog runs"], ["two cars on a road"], ["a child eats an apple"]]
    right = Caption().score(["a dog runs over grass", "two cars on a road", "a child eats"], references)["cider"]
    wrong = Caption().score(["two cars on a road", "a child eats", "a dog runs over grass"], references)["cider"]
    assert (right > wrong).all()
    assert right[1] == pytest.approx(10)
