from pathlib import Path
from typing import Any

import pytest
import torch

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.errors import UserError
from sclmkb.common.modalities.audio import AudioForm
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
    relevant = split.relevant(same)
    assert relevant.sum(1).tolist() == [3] * len(same)
    assert torch.equal(relevant, split.caption_identity[same][:, None] == split.media_identity)


def test_an_unknown_split_is_an_empty_corpus(tiny_artifacts: Any) -> None:
    with pytest.raises(UserError, match="split 'dev' has no caption"):
        load_retrieval_split(Artifact.open(tiny_artifacts.corpus, "corpus"), "dev", FORM)


def test_another_kind_of_media_than_the_encoder_takes_is_refused(tiny_artifacts: Any) -> None:
    with pytest.raises(UserError, match="holds pictures, but the encoder takes audio"):
        load_retrieval_split(Artifact.open(tiny_artifacts.corpus, "corpus"), "test", AudioForm())
