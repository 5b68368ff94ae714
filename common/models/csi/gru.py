"""GRU: the recurrent baseline, as LLM4CP's and CSI-4CAST's published code has it.

::

    series [N,T,F] ─► real [N,T,2F] ─► linear ─► GRU, 2 layers ─► linear ─► next sample ─┐
                                          ▲                                             │ P - 1 times
                                          └─────────────────────────────────────────────┘

Each prediction is fed back, in training too, so that the loss sees the errors that feeding back makes.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Complex64
from pydantic import Field
from torch import Tensor, nn

from sclmkb.common.csi.sets import CsiShape
from sclmkb.common.models.csi.base import PREDICTORS
from sclmkb.common.models.csi.series import SeriesPredictor, SeriesSettings, drawing_from, to_complex, to_real


class GruSettings(SeriesSettings):
    """Settings of :class:`Gru`; the default trains 1.8 million weights on 16×16 CSI."""

    kind: Literal["gru"] = Field(default="gru", description="the predictor: gru")
    hidden: int = Field(default=384, ge=1, description="width of the embedding and of the state")
    num_layers: int = Field(default=2, ge=1, description="GRU layers")


@PREDICTORS.register(GruSettings)
class Gru(SeriesPredictor):
    """The model drawn at the top of this module."""

    name = "gru"
    learning_rate: ClassVar[float] = 3e-3

    def __init__(self, settings: GruSettings, shape: CsiShape, *, generator: torch.Generator) -> None:
        super().__init__(settings, shape)
        self.settings = settings
        with drawing_from(generator):
            self.embed = nn.Linear(2 * self.num_features, settings.hidden)
            self.recurrent = nn.GRU(settings.hidden, settings.hidden, settings.num_layers, batch_first=True)
            self.project = nn.Linear(settings.hidden, 2 * self.num_features)

    def forward(self, past: Complex64[Tensor, "N T F"]) -> Complex64[Tensor, "N P F"]:
        """Return the samples after each series."""
        output, state = self.recurrent(self.embed(to_real(past)))
        predicted = [self.project(output[:, -1:])]
        while len(predicted) < self.shape.num_future:
            output, state = self.recurrent(self.embed(predicted[-1]), state)
            predicted.append(self.project(output))
        return to_complex(torch.cat(predicted, 1))
