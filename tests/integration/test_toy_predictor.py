"""A predictor of one's own: one class that registers itself is trained, predicts, and stands in a figure."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
import torch
from commands import must_run
from torch import Tensor, nn

from sclmkb.common.csi.sets import CsiShape
from sclmkb.common.models.csi.base import PREDICTORS, FittedPredictor, PredictorSettings
from sclmkb.common.models.csi.gru import GruSettings
from sclmkb.train.predictor.fit import CsiTrainSettings


class ToySettings(PredictorSettings):
    kind: Literal["toy"] = "toy"
    start: float = 0.5


class Toy(FittedPredictor):
    """The channel shrinks by one factor, which is learned."""

    name = "toy"

    def __init__(self, settings: ToySettings, shape: CsiShape, generator: torch.Generator) -> None:
        super().__init__(shape)
        self.factor = nn.Parameter(torch.tensor(settings.start))

    def predict(self, history: Tensor, num_future: int) -> Tensor:
        self.check(history, num_future)
        return self.factor * history[:, -1:].expand(-1, num_future, -1, -1)


@pytest.fixture
def _toy() -> Iterator[None]:
    PREDICTORS.register(ToySettings)(Toy)
    CsiTrainSettings.model_rebuild(force=True)
    yield
    PREDICTORS.forget("toy")
    CsiTrainSettings.model_rebuild(force=True)


@pytest.mark.usefixtures("_toy")
def test_a_registered_predictor_reaches_a_figure(tmp_path: Path, write_path_csi: Callable[..., Path]) -> None:
    csi = write_path_csi(tmp_path / "csi")
    steps = "--set num_steps=4 --set batch_size=8 --set threads=1 --set num_validations=2 --set model.start=0.25"
    must_run(f"sclmkb-train cdg --predictor toy --csi {csi} --out {tmp_path}/toy {steps}")
    must_run(f"sclmkb-gen cdg --csi {csi} --checkpoint {tmp_path}/toy --out {tmp_path}/predicted")
    must_run(f"sclmkb-eval csi --csi {csi} --checkpoints {tmp_path} --out {tmp_path}/eval --set threads=1")
    figures = [path for path in (tmp_path / "eval").rglob("*.svg") if "toy" in path.read_text()]
    assert figures, "no figure names the predictor"


def test_a_kind_is_taken_once() -> None:
    with pytest.raises(ValueError, match="kind 'gru' is taken by Gru"):
        PREDICTORS.register(GruSettings)(Toy)
