"""LLM4CP: a language model adapted to channel prediction (Liu et al. 2024, arXiv 2406.14440).

::

    series [N,T,F] ─┬───────────────────► patches ─► CSI attention ─┐
                    │                                               + ─► conv1d + position ─► linear over time
                    └─► IDFT over F ────► patches ─► CSI attention ─┘                               │
                       (delay or angle)                                                             ▼
       [N,P,F] ◄── linear over time T → P ◄── linear D → 2F ◄── language model, 6 layers ◄── [N,T,D]

    CSI attention: conv 2 → C, blocks of (conv, ReLU, conv, squeeze-and-excite over channels, skip), conv C → 2

The layer norms and position embeddings of the language model are tuned, the rest of it stays frozen. The paper's is
GPT-2; another one stands in where ``language_model`` names it, and the predictor's name then says so.

Differences from the paper and its published code are listed in docs/predictors.md.
"""

import math
from typing import ClassVar, Literal

import torch
from jaxtyping import Complex64, Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sclmkb.common.csi.sets import CsiShape
from sclmkb.common.models.backbone import Backbone, BackboneKind
from sclmkb.common.models.csi.base import PREDICTORS
from sclmkb.common.models.csi.series import SeriesPredictor, SeriesSettings, drawing_from, to_complex, to_real
from sclmkb.common.models.pretrained import EMBEDDED_LM


class LanguageSeriesSettings(SeriesSettings):
    """Settings of the predictors of series that stand on a language model."""

    rows_per_step: int = Field(
        default=1,
        ge=0,
        description="series per drop that a training step sees; fewer than elsewhere, since the language model is "
        "expensive; 0: all",
    )
    language_model: str = Field(
        default=EMBEDDED_LM, description="GPT-2 as a folder or a hub name; default: the embedded stand-in"
    )
    backbone: BackboneKind = Field(
        default="pretrained",
        description="weights of the language model: pretrained, random (a control), or none (no layers, a control)",
    )
    num_layers: int = Field(default=6, ge=1, description="layers of the language model that are used")


class Llm4cpSettings(LanguageSeriesSettings):
    """Settings of :class:`Llm4cp`."""

    kind: Literal["llm4cp"] = Field(default="llm4cp", description="the predictor: llm4cp")
    patch_size: int = Field(default=4, ge=1, description="time steps N per patch")
    num_channels: int = Field(default=64, ge=1, description="channels C of the CSI attention")
    num_blocks: int = Field(default=4, ge=1, description="blocks of the CSI attention in each branch")


@PREDICTORS.register(Llm4cpSettings)
class Llm4cp(SeriesPredictor):
    """The model drawn at the top of this module; norms and positions of its backbone are trained from here on.

    Raises:
        ValueError: if the history is not a whole number of patches.
    """

    learning_rate: ClassVar[float] = 3e-3
    position: Tensor

    def __init__(
        self, settings: Llm4cpSettings, shape: CsiShape, *, backbone: Backbone, generator: torch.Generator
    ) -> None:
        super().__init__(settings, shape)
        self.name = label("llm4cp", backbone, settings.backbone)
        if shape.num_history % settings.patch_size:
            raise ValueError(
                f"patch_size {settings.patch_size} does not divide the {shape.num_history} samples of a history, set"
                " another"
            )
        self.settings = settings
        self.backbone = backbone.tune_norms()
        with drawing_from(generator):
            self.frequency, self.delay = (
                Branch(settings.patch_size, settings.num_channels, settings.num_blocks) for _ in range(2)
            )
            self.embed = nn.Conv1d(
                2 * self.num_features, backbone.width, 3, padding=1, padding_mode="circular", bias=False
            )
            self.mix = nn.Linear(shape.num_history, shape.num_history)
            self.project = nn.Linear(backbone.width, 2 * self.num_features)
            self.ahead = nn.Linear(shape.num_history, shape.num_future)
            for part in (self.frequency, self.delay, self.embed):
                part.apply(_start)
        self.register_buffer("position", _sinusoids(shape.num_history, backbone.width), persistent=False)

    def forward(self, past: Complex64[Tensor, "N T F"]) -> Complex64[Tensor, "N P F"]:
        """Return the samples after each series."""
        features = self.frequency(past) + self.delay(torch.fft.ifft(past, norm="ortho"))
        tokens = self.embed(features.mT).mT + self.position
        hidden = self.backbone(self.mix(tokens.mT).mT)
        return to_complex(self.ahead(self.project(hidden).mT).mT)


class Branch(nn.Module):
    """Patching and CSI attention of one domain: a linear layer mixes the time steps of a patch, then convolutions."""

    def __init__(self, patch_size: int, num_channels: int, num_blocks: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.patch = nn.Linear(patch_size, patch_size)
        self.first = nn.Conv2d(2, num_channels, 3, padding=1)
        self.blocks = nn.Sequential(*(CsiAttention(num_channels) for _ in range(num_blocks)))
        self.last = nn.Conv2d(num_channels, 2, 3, padding=1)

    def forward(self, series: Complex64[Tensor, "N T F"]) -> Float[Tensor, "N T F2"]:
        """Return real features, two for each complex one."""
        count, num_samples, num_features = series.shape
        patches = to_real(series).reshape(count, -1, self.patch_size, 2 * num_features)
        mixed = self.patch(patches.mT).mT.reshape(count, num_samples, 2, num_features)
        result: Tensor = self.last(self.blocks(self.first(mixed.transpose(1, 2))))
        return result.transpose(1, 2).flatten(2)


class CsiAttention(nn.Module):
    """Two convolutions whose channels are weighted by what they hold, added to the input.

    Squeeze: mean and maximum of each channel; excite: two linear layers, shared by both, and a sigmoid of their sum.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(num_channels, num_channels, 3, padding=1) for _ in range(2))
        self.squeeze, self.excite = (nn.Linear(num_channels, num_channels, bias=False) for _ in range(2))

    def forward(self, image: Float[Tensor, "N C T F"]) -> Float[Tensor, "N C T F"]:
        """Return the image, refined."""
        found = self.second(F.relu(self.first(image)))
        pooled = torch.stack([found.mean((2, 3)), found.amax((2, 3))])
        weight = self.excite(F.relu(self.squeeze(pooled))).sum(0).sigmoid()
        result: Tensor = image + weight[..., None, None] * found
        return result


def label(name: str, backbone: Backbone, kind: BackboneKind) -> str:
    """Return what a predictor around a language model is called where it is not GPT-2 as trained."""
    architecture = [backbone.architecture] if backbone.architecture != "gpt2" else []
    return "-".join([name, *architecture, *([kind] if kind != "pretrained" else [])])


def _start(layer: nn.Module) -> None:
    """He initialisation without biases: with PyTorch's own, biases drown the CSI before it becomes a token."""
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight)
    if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _sinusoids(length: int, width: int) -> Tensor:
    """Return the position embeddings of Vaswani et al. 2017, ``[length, width]``."""
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angle = torch.arange(length)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :width]
