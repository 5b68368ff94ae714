"""Checkpoints with random weights, on tiny corpora of pictures, motion and sound."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from media_files import npy, sound

from sclmkb.common.artifacts import schemas
from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.checkpoints import save_checkpoint
from sclmkb.common.artifacts.files import write_json
from sclmkb.common.artifacts.plan import make_row_id
from sclmkb.common.models.encoders.audio_cnn import AudioCnnSettings
from sclmkb.common.models.encoders.base import MediaEncoderSettings
from sclmkb.common.models.encoders.image_cnn import CnnSettings
from sclmkb.common.models.encoders.motion import MotionTransformerSettings
from sclmkb.common.models.encoders.text import TextSettings
from sclmkb.common.models.encoders.tuned_text import CaptionEncoder
from sclmkb.common.models.transceiver import TransceiverSettings, build_transceiver
from sclmkb.common.tasks.trained import TrainedSystem
from sclmkb.evaluate.measure import systems
from sclmkb.evaluate.measure.systems import Loader, System

PARENTS = [-1, 0, 1, 1]
ENCODERS: dict[str, MediaEncoderSettings] = {
    "pictures": CnnSettings(size=16, widths=(8, 8)),
    "motion": MotionTransformerSettings(num_frames=12, frames_per_second=None, width=16, num_layers=1, num_heads=2),
    "audio": AudioCnnSettings(sample_rate=4000, seconds=0.5, num_mels=16, widths=(8, 8)),
}


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
        for i in range(6):
            common = {"identity": f"thing-{i}", "group": f"thing-{i}", "split": "test"}
            for copy in range(2):
                media = {"bytes": make(draw), "path": f"thing-{i}-{copy}.{suffix}"}
                item = {"item_id": f"thing-{i}-{copy}", "source": "draw", "modality": kind, "media": media}
                items.append({**common, **item})
            captions.append(
                {
                    **common,
                    "row_id": make_row_id("tiny", "test", f"thing-{i}", 0),
                    "caption_index": 0,
                    "wording": "label",
                    "role": "caption",
                    "text": f"thing number {i}",
                }
            )
        tiny._write("corpus", {"items": (schemas.ITEMS, items), "captions": (schemas.CAPTIONS, captions)})
        tiny.write_csi()
        tiny.write_predicted()
        return tiny

    return write


@pytest.fixture
def save_jscc() -> Callable[..., Path]:
    """Return what saves an untrained transceiver as ``sclmkb-train jscc`` saves a trained one."""

    def save(root: Path, system: str = "sc-lmkb", seed: int = 0, csi_source: str = "perfect", kind: str = "pictures",
             **other: Any) -> Path:  # fmt: skip
        folder = root / "jscc" / system / f"seed-{seed}"
        torch.manual_seed(seed)
        media = ENCODERS[kind]
        model = TransceiverSettings(num_streams=2, num_uses=4, hidden_width=32, embedding_width=16, media=media)
        settings = {"system": system, "seed": seed, "csi_source": csi_source, "with_sdg": True, "fusion": "mixed"}
        settings |= {"text": {"name": "minilm"}, "link": {}, "model": model.model_dump(mode="json")} | other
        write_json(folder / "plan.json", {"kind": "jscc"})
        tensors = build_transceiver(model, TextSettings(), (0, 3 * len(PARENTS))).state_dict()
        save_checkpoint(folder, kind="jscc", settings=settings, tensors=tensors)
        return folder

    return save


@pytest.fixture
def open_system(
    write_items: Callable[[str], Any], save_jscc: Callable[..., Path], tmp_path: Path, one_text_encoder: None
) -> Callable[..., System]:
    """Return what makes artifacts and a checkpoint of a kind, and opens them."""

    def open_it(kind: str = "pictures", **settings: Any) -> System:
        tiny = write_items(kind)
        loader = Loader(Artifact.open(tiny.corpus, "corpus"), tiny.csi, tiny.predicted)
        return loader.open(TrainedSystem.load(save_jscc(tmp_path, kind=kind, **settings)))

    return open_it


@pytest.fixture
def one_text_encoder(embedding_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Load the sentence encoder once for all tests, and keep decoded media out of the user's cache."""
    monkeypatch.setenv("SCLMKB_CACHE", str(embedding_cache))
    monkeypatch.setattr(systems, "CaptionEncoder", lambda settings, tuned=None: _ENCODERS.setdefault(
        str(settings), _ENCODERS.get(str(settings)) or CaptionEncoder(settings)
    ))  # fmt: skip


_ENCODERS: dict[str, CaptionEncoder] = {}
