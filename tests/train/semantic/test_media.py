"""Training on motion and sound, from corpora of random motions and tones."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from media_files import npy, sound, tone

from sclmkb.train.semantic.fit import train_jscc
from sclmkb.train.semantic.inputs import JsccInputs

SMALL: dict[str, list[str]] = {
    "motion": ["model.media.kind=motion-transformer", "model.media.num_frames=16", "model.media.width=16",
               "model.media.num_layers=1", "model.media.frames_per_second=null"],
    "audio": ["model.media.kind=audio-cnn", "model.media.sample_rate=8000", "model.media.seconds=0.5",
              "model.media.num_mels=16", "model.media.widths=[8, 8]"],
}  # fmt: skip


def motion(number: int) -> tuple[str, bytes]:
    """Return joints that swing at a pace of their own."""
    time, joints = np.arange(20 + number % 5), np.arange(12).reshape(4, 3)
    return ".npy", npy(np.sin(0.1 * (1 + number) * time[:, None, None] + joints).astype(np.float32))


def hum(number: int) -> tuple[str, bytes]:
    """Return a tone of a height of its own."""
    return ".wav", sound(tone(200 * (1 + number), (3000 + 100 * number) / 8000, 8000).astype(np.float32), 8000)


@pytest.fixture
def write(make_tiny: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return what writes the tiny artifacts with media of a kind; the third item of training is broken."""

    def make(kind: str) -> Any:
        tiny = make_tiny(kind)

        class Other(type(tiny)):  # type: ignore[misc]
            def _write(self, name: str, tables: dict[str, Any]) -> None:
                for row in tables["items"][1] if name == "corpus" else []:
                    suffix, data = (motion if kind == "motion" else hum)(int(row["identity"].rpartition("-")[2]))
                    broken = row["item_id"] == "train-1-0"
                    row["modality"] = kind
                    row["media"] = {"bytes": data[:30] if broken else data, "path": row["item_id"] + suffix}
                super()._write(name, tables)

        other = Other(tiny.root)
        other.write_all()
        return other

    return make


@pytest.mark.parametrize("kind", ["motion", "audio"])
def test_motion_and_sound_train_and_what_cannot_be_read_is_left_out(
    write: Callable[[str], Any],
    kind: str,
    jscc_settings: Any,
    jscc_cache: None,
    tmp_path: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tiny = write(kind)
    chosen = jscc_settings(*SMALL[kind], num_steps=30, learning_rate=0.01, fusion="none", with_sdg=False)
    given = JsccInputs(corpus=tiny.corpus, csi=tiny.csi, predicted=tiny.predicted)
    out = train_jscc(chosen, given, tmp_path / "out")
    assert f"1 of 30 {kind} of split train cannot be read" in " ".join(capsys.readouterr().err.split())
    losses = [json.loads(line)["loss"] for line in (out / "metrics.jsonl").open()]
    assert losses[-1] < 0.9 * losses[0]
