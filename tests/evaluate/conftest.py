"""Tiny corpora of pictures, motion and sound, and checkpoints that are opened on them."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from measuring import PARENTS, save_jscc
from media_files import npy, sound

from sclmkb.common.artifacts import schemas
from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.plan import make_row_id
from sclmkb.common.models.encoders.tuned_text import CaptionEncoder
from sclmkb.common.tasks.trained import TrainedSystem
from sclmkb.evaluate.measure import systems
from sclmkb.evaluate.measure.systems import Loader, OpenSystem
from sclmkb.evaluate.separate import sscc


def _motion(draw: np.random.Generator) -> bytes:
    return npy(draw.normal(size=(10, len(PARENTS), 3)).cumsum(0).astype(np.float32))


def _sound(draw: np.random.Generator) -> bytes:
    return sound(draw.integers(-9000, 9000, 1600, dtype=np.int16), 4000)


@pytest.fixture
def write_items(make_tiny: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return what writes tiny artifacts whose corpus holds media of a kind: six identities, two items each."""

    def write(kind: str) -> Any:
        tiny = make_tiny(kind)
        if kind == "pictures":
            tiny.write_all()
            return tiny
        make, suffix = {"motion": (_motion, "npy"), "audio": (_sound, "wav")}[kind]
        draw, items, captions = np.random.default_rng(0), [], []
        for name in (f"thing-{i}" for i in range(6)):
            common = {"identity": name, "group": name, "split": "test"}
            for item in (f"{name}-{copy}" for copy in range(2)):
                media = {"bytes": make(draw), "path": f"{item}.{suffix}"}
                items.append({**common, "item_id": item, "source": "draw", "modality": kind, "media": media})
            caption = {"caption_index": 0, "wording": "label", "role": "caption", "text": name.replace("-", " number ")}
            captions.append({**common, **caption, "row_id": make_row_id("tiny", "test", name, 0)})
        tiny._write("corpus", {"items": (schemas.ITEMS, items), "captions": (schemas.CAPTIONS, captions)})
        tiny.write_csi()
        tiny.write_predicted()
        return tiny

    return write


@pytest.fixture
def open_system(write_items: Callable[[str], Any], tmp_path: Path, one_text_encoder: None) -> Callable[..., OpenSystem]:
    """Return what makes artifacts and a checkpoint of a kind, and opens them."""

    def open_it(kind: str = "pictures", **settings: Any) -> OpenSystem:
        tiny = write_items(kind)
        loader = Loader(Artifact.open(tiny.corpus, "corpus"), tiny.csi, tiny.predicted)
        return loader.open(TrainedSystem.load(save_jscc(tmp_path, kind=kind, **settings)))

    return open_it


@pytest.fixture
def one_text_encoder(embedding_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Load the sentence encoder once for all tests, and keep decoded media out of the user's cache."""
    monkeypatch.setenv("SCLMKB_CACHE", str(embedding_cache))
    for module in (systems, sscc):
        monkeypatch.setattr(module, "CaptionEncoder", _one_encoder)


@cache
def _one_encoder(settings: Any, tuned: None = None) -> CaptionEncoder:
    return CaptionEncoder(settings)
