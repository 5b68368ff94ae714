import io
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from sclmkb.common.artifacts import Artifact
from sclmkb.common.corpora.retrieval import _decode, load_retrieval_split
from sclmkb.common.errors import UserError


def png(mode: str, color: tuple[int, ...], size: int = 8) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (size, size), color).save(file, "PNG")
    return file.getvalue()


def item(data: bytes | None, path: str | None = None) -> dict[str, Any]:
    return {"item_id": "a-1", "media": {"bytes": data, "path": path}}


def test_transparency_shows_white_and_pictures_get_the_size_asked_for() -> None:
    files = [png("RGB", (10, 20, 30)), png("RGBA", (10, 20, 30, 0)), png("RGBA", (10, 20, 30, 255), size=32)]
    pictures = _decode([item(data) for data in files], Path(), 8)
    assert pictures.shape == (3, 3, 8, 8)
    assert pictures[:, :, 3, 3].tolist() == [[10, 20, 30], [255, 255, 255], [10, 20, 30]]


def test_a_broken_picture_is_named() -> None:
    with pytest.raises(UserError, match="picture 'a-1' of the corpus cannot be read"):
        _decode([item(b"no picture")], Path(), 8)


def test_pictures_by_path_are_read_from_the_data_folder(tmp_path: Path) -> None:
    (tmp_path / "imgs").mkdir()
    (tmp_path / "imgs" / "a.png").write_bytes(png("RGB", (10, 20, 30)))
    pictures = _decode([item(None, "imgs/a.png")], tmp_path, 8)
    assert pictures[0, :, 3, 3].tolist() == [10, 20, 30]
    with pytest.raises(UserError, match=r"'a-1' at .*imgs/b\.png of the corpus cannot be read"):
        _decode([item(None, "imgs/b.png")], tmp_path, 8)
    with pytest.raises(UserError, match="captions alone: make it again with --set media=path"):
        _decode([item(None)], tmp_path, 8)


def test_wordings_and_matches(tiny_artifacts: Any) -> None:
    split = load_retrieval_split(Artifact.open(tiny_artifacts.corpus, "corpus"), "test", 16)
    same, changed = split.with_wording("same"), split.with_wording("changed")
    assert {split.wordings[i] for i in same} == {"label"}
    assert {split.wordings[i] for i in changed} == {"sentence"}
    assert torch.equal(changed, split.with_wording("sentence"))
    assert not len(split.with_wording("unknown"))
    relevant = split.relevant(same)
    assert relevant.sum(1).tolist() == [3] * len(same)
    assert torch.equal(relevant, split.caption_identity[same][:, None] == split.picture_identity)


def test_an_unknown_split_is_an_empty_corpus(tiny_artifacts: Any) -> None:
    with pytest.raises(UserError, match="split 'dev' has no caption"):
        load_retrieval_split(Artifact.open(tiny_artifacts.corpus, "corpus"), "dev", 16)
