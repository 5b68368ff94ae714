"""Csi-LLM: next-step prediction with a language model (Fan et al. 2024, arXiv 2409.00005).

::

    h_1 ─► embed ─► token ─┐                          ┌─► project ─► h^_2
    h_2 ─► embed ─► token ─┤  causal language model   ├─► project ─► h^_3
     ⋮                     │                          │     ⋮
    h_T ─► embed ─► token ─┘                          └─► project ─► h^_{T+1} ─► embed ─► … P times

One token is one time step. Training is that of a language model: every position predicts the next step from those
before. So histories of any length are learned at once. Prediction feeds each step back.

Differences from the paper are listed in docs/predictors.md.
"""

from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Complex64
from pydantic import Field
from torch import Tensor, nn

from sclmkb.common.csi.sets import CsiShape
from sclmkb.common.models.backbone import Backbone
from sclmkb.common.models.csi.base import PREDICTORS
from sclmkb.common.models.csi.llm4cp import LanguageSeriesSettings, label
from sclmkb.common.models.csi.series import SeriesPredictor, drawing_from, to_complex, to_real


class CsiLlmSettings(LanguageSeriesSettings):
    """Settings of :class:`CsiLlm`."""

    kind: Literal["csi_llm"] = Field(default="csi_llm", description="the predictor: csi_llm")
    tune_norms: bool = Field(
        default=True,
        description="whether its layer norms and position embeddings are trained; false: all of it is frozen",
    )


@PREDICTORS.register(CsiLlmSettings)
class CsiLlm(SeriesPredictor):
    """The model drawn at the top of this module."""

    learning_rate: ClassVar[float] = 3e-3

    def __init__(
        self, settings: CsiLlmSettings, shape: CsiShape, *, backbone: Backbone, generator: torch.Generator
    ) -> None:
        super().__init__(settings, shape)
        self.name = label("csi_llm", backbone, settings.backbone)
        self.settings = settings
        self.backbone = backbone.tune_norms() if settings.tune_norms else backbone
        with drawing_from(generator):
            self.embed = nn.Linear(2 * self.num_features, backbone.width)
            self.project = nn.Sequential(
                nn.Linear(backbone.width, backbone.width), nn.GELU(), nn.Linear(backbone.width, 2 * self.num_features)
            )

    def forward(self, past: Complex64[Tensor, "N T F"]) -> Complex64[Tensor, "N P F"]:
        """Return the samples after each series, each fed back to predict the next."""
        tokens, state, predicted = self.embed(to_real(past)), None, []
        for _ in range(self.shape.num_future):
            features, state = self._next(tokens, state)
            predicted.append(features)
            tokens = self.embed(features)
        return to_complex(torch.cat(predicted, 1))

    def training_pair(
        self, past: Complex64[Tensor, "N T F"], future: Complex64[Tensor, "N P F"]
    ) -> tuple[Complex64[Tensor, "N S F"], Complex64[Tensor, "N S F"]]:
        """Return the next step that every position predicts from the true earlier ones, and the true next step.

        The targets inside the history are noisy, and earlier steps say nothing about that noise. It adds to the loss,
        but does not move its minimum.
        """
        sequence = torch.cat([past, future], 1)
        hidden = self.backbone(self.embed(to_real(sequence[:, :-1])))
        return to_complex(self.project(hidden)), sequence[:, 1:]

    def _next(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        hidden, state = self.backbone.go_on(tokens, state)
        return self.project(hidden[:, -1:]), state
