from pathlib import Path
from typing import Any

import pytest
import torch

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.errors import UserError
from sclmkb.common.modalities.audio import AudioForm
from sclmkb.common.modalities.base import MediaForm
from sclmkb.common.modalities.image import PictureForm
from sclmkb.common.tasks.retrieval_corpus import load_retrieval_split

FORM = PictureForm(size=16)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCLMKB_CACHE", str(tmp_path / "cache"))


def test_wordings_and_matches(tiny_artifacts: Any) -> None:
    split = load_retrieval_split(Artifact.open(tiny_artifacts.corpus, "corpus"), "test", FORM)
    same, changed = split.with_wording("same"), split.with_wording("changed")
    assert {split.wordings[i] for i in same} == {"label"}
    assert {split.wordings[i] for i in changed} == {"sentence"}
    assert torch.equal(changed, split.with_wording("sentence"))
    assert not len(split.with_wording("unknown"))
    assert (split.caption_identity[same][:, None] == split.media_identity).sum(1).tolist() == [3] * len(same)


@pytest.mark.parametrize(
    ("split", "form", "message"),
    [("dev", FORM, "split 'dev' has no caption"), ("test", AudioForm(), "holds pictures, but the encoder takes audio")],
)
def test_a_split_that_is_not_there_and_another_kind_of_media_are_refused(
    tiny_artifacts: Any, split: str, form: MediaForm, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load_retrieval_split(Artifact.open(tiny_artifacts.corpus, "corpus"), split, form)
