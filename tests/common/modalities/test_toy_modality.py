"""A kind of media of one's own: registered here, edited nowhere else, read from files and drawn in a figure."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from sclmkb.common.artifacts.checkpoints import save_checkpoint
from sclmkb.common.artifacts.files import write_json
from sclmkb.common.errors import UserError
from sclmkb.common.modalities.base import (
    DRAWN_HEIGHT,
    MODALITIES,
    MediaBatch,
    MediaForm,
    Modality,
    UnreadableError,
)
from sclmkb.common.modalities.image import PictureForm
from sclmkb.common.modalities.store import MediaStore, media_kind
from sclmkb.common.models.encoders.base import ENCODERS, MediaEncoder, MediaEncoderSettings
from sclmkb.common.models.encoders.text import TextSettings
from sclmkb.common.models.transceiver import TransceiverSettings, build_transceiver
from sclmkb.common.tasks.trained import JsccSettings, TrainedSystem
from sclmkb.evaluate.measure.systems import Loader
from sclmkb.evaluate.report.examples import examples_section
from sclmkb.evaluate.search.figure import draw_found
from sclmkb.evaluate.search.search import search
from sclmkb.generate.corpora.layouts import LAYOUTS
from sclmkb.generate.corpora.on_disk import plan_corpus


class BarsForm(MediaForm):
    kind: Literal["bars"] = "bars"
    num_bars: int = 6

    @property
    def shape(self) -> tuple[int | None, ...]:
        return (self.num_bars,)


class Bars(Modality[BarsForm]):
    form = BarsForm
    suffixes = (".bars",)
    encoder = "bar-mlp"

    def recognises(self, data: bytes) -> bool:
        return data.startswith(b"bars:")

    def problem(self, data: bytes, suffix: str) -> str:
        return "" if self.recognises(data) else "no bars"

    def decode(self, data: bytes, form: BarsForm, context: Any = None) -> tuple[np.ndarray, int]:
        if problem := self.problem(data, ""):
            raise UnreadableError(problem)
        bars = np.array(data.decode().removeprefix("bars:").split(), np.float32)[: form.num_bars]
        return np.pad(bars, (0, form.num_bars - len(bars))), len(bars)

    def augment(self, batch: MediaBatch, chance: Tensor) -> MediaBatch:
        return batch._replace(values=batch.values * (0.9 + 0.2 * chance[:, :1]))

    def draw(self, values: np.ndarray, length: int, form: BarsForm, notes: Mapping[str, Any]) -> Image.Image:
        sheet = Image.new("RGB", (20 * length, DRAWN_HEIGHT), "white")
        pen = ImageDraw.Draw(sheet)
        for i, bar in enumerate(values[:length]):
            pen.rectangle((20 * i, DRAWN_HEIGHT - 10 * float(bar), 20 * i + 15, DRAWN_HEIGHT), fill="#00ff00")
        return sheet


class BarMlpSettings(MediaEncoderSettings):
    kind: Literal["bar-mlp"] = "bar-mlp"
    num_bars: int = 6

    def form(self) -> BarsForm:
        return BarsForm(num_bars=self.num_bars)


class BarMlp(MediaEncoder):
    def __init__(self, settings: BarMlpSettings, shape: Sequence[int], embedding_width: int) -> None:
        super().__init__(shape[0], embedding_width)

    def features(self, batch: MediaBatch) -> Tensor:
        return batch.values


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    MODALITIES.register(BarsForm)(Bars)
    ENCODERS.register(BarMlpSettings)(BarMlp)
    for settings in (TransceiverSettings, JsccSettings):
        settings.model_rebuild(force=True)
    yield
    MODALITIES.forget("bars")
    ENCODERS.forget("bar-mlp")
    for settings in (TransceiverSettings, JsccSettings):
        settings.model_rebuild(force=True)


def test_a_toy_modality_is_read_encoded_found_and_drawn(
    tiny_artifacts: Any, embedding_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SCLMKB_CACHE", str(embedding_cache))
    data = tmp_path / "data"
    data.mkdir()
    lines = [{"caption": f"{i} bars", "file": f"{i}.bars", "split": "test"} for i in range(1, 6)]
    for i, line in enumerate(lines, start=1):
        (data / line["file"]).write_text("bars: " + " ".join(str(i + j) for j in range(i)))
    (data / "5.bars").write_text("broken")
    (data / "table.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    layout = LAYOUTS["table"]
    columns = {"media": "file", "split": "split", "item": "file"}
    settings = layout.settings_type.model_validate({"media": "path", "columns": columns})
    corpus = plan_corpus(layout(data, settings), tmp_path / "bars").run_here()
    assert [row["reason"] for row in corpus.table("problems").to_pylist()] == ["5.bars: no bars"]
    assert media_kind(corpus) == "bars"
    with pytest.raises(UserError, match=r"model\.media\.kind=bar-mlp"):
        MediaStore.open(corpus, "test", PictureForm())

    model = TransceiverSettings.model_validate(
        {"num_streams": 2, "num_uses": 4, "hidden_width": 16, "embedding_width": 8, "media": {"kind": "bar-mlp"}}
    )
    assert model.media == BarMlpSettings()
    folder = tmp_path / "checkpoint"
    trained = {"system": "toy", "seed": 0, "csi_source": "perfect", "model": model.model_dump(mode="json")}
    save_checkpoint(
        folder,
        kind="jscc",
        settings={**trained, "text": {"name": "minilm"}, "link": {}},
        tensors=build_transceiver(model, TextSettings()).state_dict(),
    )
    write_json(folder / "plan.json", {"kind": "jscc"})
    tiny_artifacts.write_csi()
    system = Loader(corpus, tiny_artifacts.csi, None).open(TrainedSystem.load(folder))
    store = system.items.split.media
    assert store.modality.augment(store.take(torch.tensor([1])), torch.zeros(1, 5)).values[0, 0] == pytest.approx(1.8)

    found = search(system, "3 bars", snr_db=20, top=4)
    assert {hit.item_id for hit in found.hits} == {f"{i}.bars" for i in range(1, 5)}
    best = system.items.draw(found.hits[0].index)
    assert (0, 255, 0) in set(best.getdata())
    draw_found(found, system.items, tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as grid:
        assert (0, 255, 0) in set(grid.convert("RGB").getdata())

    ids = [hit.item_id for hit in found.hits]
    row = {"system": "toy", "seed": 0, "text": "3 bars", "wording": "label", "snr_db": 20.0, "receiver": "literal"}
    shown = examples_section(
        [{**row, "item_ids": ids, "hits": [True] * len(ids)}],
        corpus,
        model.media.form(),
        ["toy"],
        1,
    )
    assert len(shown["queries"][0]["snrs"][0]["rankings"][0]["pictures"]) == len(ids)
