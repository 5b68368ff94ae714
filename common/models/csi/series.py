"""What the learned baselines share: CSI as real time series, unit power, and training on some of the rows.

::

    history [B,T,Nr,Nt] ─► unit power ─► series [B·R, T, F] ─► model ─► [B·R, P, F] ─► back to rows and scale

A series is what the published code of LLM4CP calls a sample, and its features what it calls subcarriers:

============  ===========================  =======================  ==================
``sample``    CSI                          series R                 features F
============  ===========================  =======================  ==================
``row``       narrowband                   receive antennas         transmit antennas
``row``       wideband, K subcarriers      antenna pairs            K
``matrix``    any                          1                        all entries
============  ===========================  =======================  ==================

All series of a drop are scaled together, by the root mean square of the drop's history alone.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from jaxtyping import Complex64, Float, Int64
from pydantic import Field
from torch import Tensor

from sclmkb.common.csi.sets import CsiShape
from sclmkb.common.csi.tensors import normalise_power
from sclmkb.common.models.csi.base import FittedPredictor, PredictorSettings

AT_ONCE = 2**20
"""Complex numbers of a history that go through a model at once in prediction: wideband CSI would fill the memory."""


class SeriesSettings(PredictorSettings):
    """Settings of every predictor of time series."""

    sample: Literal["row", "matrix"] = Field(
        default="row",
        description="what one time series is: row or matrix (table at the top of common/models/csi/series.py)",
    )
    rows_per_step: int = Field(
        default=4,
        ge=0,
        description="series per drop that a training step sees, drawn anew at each step; 0: all. Prediction uses all",
    )


class SeriesPredictor(FittedPredictor):
    """A predictor that maps time series of T samples to their P next ones; a subclass implements :meth:`forward`.

    Attributes:
        num_series: series R of a drop.
        num_features: complex features F of a series at one time.
    """

    def __init__(self, settings: SeriesSettings, shape: CsiShape) -> None:
        super().__init__(shape)
        self.sample, self.rows_per_step = settings.sample, settings.rows_per_step
        pairs, subcarriers = shape.num_rx * shape.num_tx, shape.num_subcarriers
        if settings.sample == "matrix":
            self.num_features = pairs
        else:
            self.num_features = subcarriers if subcarriers > 1 else shape.num_tx
        self.num_series = pairs // self.num_features

    def forward(self, past: Complex64[Tensor, "N T F"]) -> Complex64[Tensor, "N P F"]:
        """Return the samples after each series."""
        raise NotImplementedError

    def training_pair(
        self, past: Complex64[Tensor, "N T F"], future: Complex64[Tensor, "N P F"]
    ) -> tuple[Complex64[Tensor, "N S F"], Complex64[Tensor, "N S F"]]:
        """Return what training compares: predicted and wanted samples, the P future ones last."""
        return self(past), future

    def predict_unit(self, history: Complex64[Tensor, "B T Nr Nt"]) -> Complex64[Tensor, "B P Nr Nt"]:
        """Predict each series, some at a time."""
        series = self.to_series(history).flatten(0, 1)
        count = max(1, AT_ONCE // (self.shape.num_history * self.num_features))
        predicted = torch.cat([self(part) for part in torch.split(series, count)])
        return self.from_series(predicted.reshape(-1, self.num_series, *predicted.shape[1:]))

    def losses(
        self,
        history: Complex64[Tensor, "B T Nr Nt"],
        future: Complex64[Tensor, "B P Nr Nt"],
        weight: Float[Tensor, " B"],
        draws: Int64[Tensor, " B"],
    ) -> Mapping[str, Tensor]:
        """Return the weighted NMSE (31), estimated from the rows that this step looks at.

        The error on some series of a drop is divided by the mean power of all of them. Its mean over all choices of
        series is the drop's NMSE. The drop's number in ``draws`` chooses them, so that every series has its turn.
        """
        self.check(history, future.shape[1])
        unit, scale = normalise_power(history)
        wanted = future / scale
        power = _square(wanted).mean((1, 2, 3)).clamp(min=1e-12)
        rows = self._rows(draws)
        drops = torch.arange(len(history), device=history.device).unsqueeze(-1)
        past, after = self.to_series(unit)[drops, rows], self.to_series(wanted)[drops, rows]  # [B, n, T or P, F]
        predicted, target = self.training_pair(past.flatten(0, 1), after.flatten(0, 1))
        error = _square(predicted - target).mean(-1).reshape(*past.shape[:2], -1).mean(1)  # [B, S]
        ratios = error / power.unsqueeze(-1)
        return {"loss": (weight * ratios.mean(-1)).mean(), "nmse": ratios[:, -future.shape[1] :].mean()}

    def to_series(self, h: Complex64[Tensor, "B T Nr Nt"]) -> Complex64[Tensor, "B R T F"]:
        """Return the time series of a drop."""
        if self.sample == "row" and self.shape.num_subcarriers > 1:
            by_subcarrier = h.reshape(*h.shape[:2], self.shape.num_subcarriers, -1, self.shape.num_tx)
            return by_subcarrier.permute(0, 3, 4, 1, 2).flatten(1, 2)
        return h.reshape(*h.shape[:2], self.num_series, self.num_features).transpose(1, 2)

    def from_series(self, series: Complex64[Tensor, "B R P F"]) -> Complex64[Tensor, "B P Nr Nt"]:
        """Undo :meth:`to_series`."""
        if self.sample == "row" and self.shape.num_subcarriers > 1:
            pairs = series.reshape(len(series), -1, self.shape.num_tx, *series.shape[2:])  # [B, Nr / K, Nt, P, K]
            return pairs.permute(0, 3, 4, 1, 2).flatten(2, 3)
        rows = series.transpose(1, 2)
        return rows.reshape(*rows.shape[:2], self.shape.num_rx, self.shape.num_tx)

    def _rows(self, draws: Int64[Tensor, " B"]) -> Int64[Tensor, "B n"]:
        """Return which ``rows_per_step`` series of each drop a step looks at, evenly spread from a random first one."""
        chosen = min(self.rows_per_step or self.num_series, self.num_series)
        steps = torch.arange(chosen, device=draws.device) * (self.num_series // chosen)
        return (draws.unsqueeze(-1) + steps) % self.num_series


def to_real(series: Complex64[Tensor, "*shape F"]) -> Float[Tensor, "*shape F2"]:
    """Return real parts, then imaginary parts."""
    return torch.cat([series.real, series.imag], -1)


def to_complex(features: Float[Tensor, "*shape F2"]) -> Complex64[Tensor, "*shape F"]:
    """Undo :func:`to_real`; half precision becomes single."""
    real, imag = features.float().chunk(2, -1)
    return torch.complex(real, imag)


@contextmanager
def drawing_from(generator: torch.Generator) -> Iterator[None]:
    """Let PyTorch's layers draw their initial weights from a generator, and leave the global one as it was."""
    seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _square(h: Tensor) -> Tensor:
    return h.real.square() + h.imag.square()
