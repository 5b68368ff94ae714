from pathlib import Path

import pytest
import torch

from sclmkb.common.models.encoders.sentence import embed_texts
from sclmkb.common.models.encoders.text import TextSettings
from sclmkb.common.models.encoders.tuned_text import hidden_states
from sclmkb.train.semantic.texts import Texts

CAPTIONS, GENERATED = ["a b c", "d", "e f g h i j k"], ["l m", "n o p q r s t u v w x y z"]
ROWS = torch.tensor([4, 0, 2, 2, 3])


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCLMKB_CACHE", str(tmp_path))


def test_frozen_embeddings_are_taken_by_row(tiny_bert: Path) -> None:
    settings = TextSettings(name=str(tiny_bert))
    texts = Texts(settings, CAPTIONS, GENERATED)
    whole = embed_texts([*CAPTIONS, *GENERATED], settings)
    torch.testing.assert_close(texts.take(ROWS), whole[ROWS])
    torch.testing.assert_close(Texts(settings, CAPTIONS, []).take(ROWS[1:4]), whole[ROWS[1:4]])


def test_states_are_taken_by_row_and_padded_to_the_longest(tiny_bert: Path) -> None:
    settings = TextSettings(name=str(tiny_bert), tune="layers", num_layers=1)
    taken = Texts(settings, CAPTIONS, GENERATED).take_states(ROWS)
    expected = hidden_states([*CAPTIONS, *GENERATED], settings).take(ROWS)
    assert torch.equal(taken.length, expected.length)
    torch.testing.assert_close(taken.values, expected.values, rtol=0.02, atol=0.02)  # bfloat16, other padding
    few = Texts(settings, CAPTIONS, GENERATED).take_states(torch.tensor([1]))
    assert few.values.shape[1] == int(few.length.max()) < taken.values.shape[1]
