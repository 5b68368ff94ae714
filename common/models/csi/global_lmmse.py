"""Global LMMSE: one Wiener filter for every antenna pair of every sample, from the covariance over time of all.

::

    history ─► unit power ─► noise power σ² ─► W = ((1-σ²) R_TT + σ² I)⁻¹ (1-σ²) R_TP ─► each antenna pair ─► future

It knows only how fast channels of the training set move on average, and how noisy this history is.
"""

from typing import Literal

import torch
from jaxtyping import Complex64
from pydantic import Field
from torch import Tensor

from sclmkb.common.csi.noise import estimate_noise_power
from sclmkb.common.csi.sets import CsiShape
from sclmkb.common.csi.tensors import normalise_power
from sclmkb.common.models.csi.base import PREDICTORS, FittedPredictor, PredictorSettings


class GlobalLmmseSettings(PredictorSettings):
    """Settings of :class:`GlobalLmmse`: there is nothing to choose but the predictor."""

    kind: Literal["global_lmmse"] = Field(default="global_lmmse", description="the predictor: global_lmmse")


@PREDICTORS.register(GlobalLmmseSettings)
class GlobalLmmse(FittedPredictor):
    """The linear estimator of least mean square error for a stationary process of known covariance in white noise.

    The covariance R over the T + P samples is a mean over training drops of unit power, antenna pairs, their
    conjugates and time reversal. So it is real, and predictions turn with the phase of the history.

    Attributes:
        covariance: R ``[T + P, T + P]``; not a trained parameter, but saved.
    """

    name = "global_lmmse"
    covariance: Tensor

    def __init__(
        self, settings: GlobalLmmseSettings, shape: CsiShape, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(shape)
        self.settings = settings
        size = shape.num_history + shape.num_future
        self.register_buffer("covariance", torch.eye(size, dtype=torch.float64))

    @torch.no_grad()
    def fit_statistics(
        self, clean: Complex64[Tensor, "N S Nr Nt"], pilot_snr_db: tuple[float, float], generator: torch.Generator
    ) -> None:
        """Fit the covariance; noise enters when it is known, with the history."""
        total = torch.zeros_like(self.covariance)
        for part in torch.split(clean, 200):
            unit, _ = normalise_power(part, self.shape.num_history)
            parts = torch.view_as_real(unit.flatten(2)).flatten(2)  # [B, S, 2·N]
            total += torch.einsum("bsn,btn->st", parts, parts).double()
        total = total + total.flip(0, 1)
        history = total[: self.shape.num_history, : self.shape.num_history]
        self.covariance.copy_(total / history.diagonal().mean())

    def predict_unit(self, history: Complex64[Tensor, "B T Nr Nt"]) -> Complex64[Tensor, "B P Nr Nt"]:
        """Filter each antenna pair."""
        noise = estimate_noise_power(history).double().clamp(max=1 - 1e-3).view(-1, 1, 1)
        covariance = (1 - noise) * self.covariance
        past, num_history = covariance[:, :, : history.shape[1]], history.shape[1]
        eye = torch.eye(num_history, dtype=past.dtype, device=past.device)
        taps = torch.linalg.solve(past[:, :num_history] + noise * eye, past[:, num_history:].mT)  # [B, T, P]
        return torch.einsum("btij,btp->bpij", history, taps.to(history.dtype))
