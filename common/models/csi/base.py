"""What every CSI predictor is.

::

    history [B, T, Nr, Nt], noisy, any scale ─► predictor ─► future [B, P, Nr, Nt] at the scale of its clean part

Batch first, complex. Rows are receive antennas; a wideband CSI has one row per receive antenna and subcarrier,
subcarriers outermost, so that a correlation over rows is one over antennas and frequencies. A predictor sees the
history alone: no pilot SNR, no speed, no scenario.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Complex64, Float, Int64
from pydantic import Field
from torch import Tensor, nn

from sclmkb.common.config import Settings
from sclmkb.common.csi.sets import CsiShape
from sclmkb.common.csi.tensors import normalise_power
from sclmkb.common.metrics import nmse
from sclmkb.common.registry import Registry


@runtime_checkable
class CsiPredictor(Protocol):
    """Predicts future channels from noisy past ones.

    Attributes:
        name: what it is called in tables and figures.
    """

    name: str

    def predict(
        self, history: Complex64[Tensor, "B T Nr Nt"], num_future: int
    ) -> Complex64[Tensor, "B num_future Nr Nt"]:
        """Predict the ``num_future`` samples after a noisy history of any scale, at the scale of its clean part.

        Raises:
            ValueError: if the predictor was built for other sizes, or the history is too short for it.
        """
        ...


class PredictorSettings(Settings):
    """Settings of a fitted predictor; a subclass gives ``kind`` one value, its default, which tells it from others."""

    kind: str = Field(description="the predictor")


class FittedPredictor(nn.Module):
    """A predictor that is fitted to training drops: by :meth:`fit_statistics`, by gradient descent, or both.

    A subclass sets ``name``, and implements :meth:`predict_unit` and what it is fitted by.

    Attributes:
        name: what it is called in tables and figures.
        learning_rate: of AdamW at its peak, where training names none.
        shape: the sizes that it was built for.
    """

    name: str
    learning_rate: ClassVar[float] = 1e-3

    def __init__(self, shape: CsiShape) -> None:
        super().__init__()
        self.shape = shape

    @property
    def has_gradients(self) -> bool:
        """Whether there is anything for gradient descent to fit."""
        return any(p.requires_grad for p in self.parameters())

    def fit_statistics(
        self,
        clean: Complex64[Tensor, "N S Nr Nt"],
        pilot_snr_db: tuple[float, float],
        generator: torch.Generator,
    ) -> None:
        """Fit what is fitted in closed form, before gradient descent; by default nothing.

        Args:
            clean: training sequences of S = T + P samples, without noise, their histories of unit power.
            pilot_snr_db: range of the pilot SNRs [dB] that training draws from.
            generator: of every random number.
        """

    def losses(
        self,
        history: Complex64[Tensor, "B T Nr Nt"],
        future: Complex64[Tensor, "B P Nr Nt"],
        weight: Float[Tensor, " B"],
        draws: Int64[Tensor, " B"],
    ) -> Mapping[str, Tensor]:
        """Return scalars to log; ``loss`` is what is minimised.

        Args:
            history: noisy histories.
            future: clean futures at the same scale.
            weight: of each sample in the loss.
            draws: a random whole number per drop, new at every step, for a predictor that samples parts of a drop.
        """
        ratios = nmse(future, self.predict(history, future.shape[1]))
        return {"loss": (weight * ratios).mean(), "nmse": ratios.mean()}

    def predict(
        self, history: Complex64[Tensor, "B T Nr Nt"], num_future: int
    ) -> Complex64[Tensor, "B num_future Nr Nt"]:
        """See :class:`CsiPredictor`; gradients flow."""
        self.check(history, num_future)
        unit, scale = normalise_power(history)
        return self.predict_unit(unit) * scale

    def predict_unit(self, history: Complex64[Tensor, "B T Nr Nt"]) -> Complex64[Tensor, "B P Nr Nt"]:
        """Predict from noisy histories of unit power and of the right sizes, at their scale."""
        raise NotImplementedError

    def check(self, history: Tensor, num_future: int) -> None:
        """Refuse sizes that the predictor was not built for.

        Raises:
            ValueError: naming the first that differs.
        """
        _, num_history, num_rx, num_tx = history.shape
        given = {"num_history": num_history, "num_future": num_future, "num_rx": num_rx, "num_tx": num_tx}
        for name, value in given.items():
            if value != getattr(self.shape, name):
                raise ValueError(f"{self.name} was built for {name} = {getattr(self.shape, name)}, not {value}")


PREDICTORS: Registry[FittedPredictor] = Registry("sclmkb.common.models.csi")
"""The class of each kind. It is built from ``(settings, shape, generator=…)``, and from ``backbone=…`` as well if its
settings name a ``language_model``; it raises ValueError if the shape is not one that it can work with."""

AnyPredictorSettings = Annotated[PredictorSettings, PREDICTORS]
"""Settings of any fitted predictor; the field ``kind`` tells them apart."""


@torch.no_grad()
def predict_in_batches(
    predictor: CsiPredictor,
    history: Complex64[Tensor, "N T Nr Nt"],
    num_future: int,
    batch_size: int = 50,
) -> Complex64[Tensor, "N num_future Nr Nt"]:
    """Return the prediction for many histories, made a batch at a time, without gradients."""
    return torch.cat([predictor.predict(part, num_future) for part in torch.split(history, batch_size)])
