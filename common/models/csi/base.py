"""What every CSI predictor is."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Complex64, Float
from torch import Tensor


@runtime_checkable
class CsiPredictor(Protocol):
    """Predicts future channels from noisy past ones.

    Attributes:
        name: what it is called in tables and figures.
    """

    name: str

    def predict(
        self, history: Complex64[Tensor, "B T Nr Nt"], pilot_snr_db: Float[Tensor, " B"], num_future: int
    ) -> Complex64[Tensor, "B P Nr Nt"]:
        """Predict the ``num_future`` samples after the history.

        Args:
            history: noisy channels, oldest first, any scale.
            pilot_snr_db: known pilot SNR of each history [dB].
            num_future: samples P to predict.

        Returns:
            Predicted channels at the scale of the history's clean part.
        """
        ...


def predict_in_batches(
    predictor: CsiPredictor,
    history: Complex64[Tensor, "B T Nr Nt"],
    pilot_snr_db: Float[Tensor, " B"],
    num_future: int,
    batch_size: int = 50,
) -> Complex64[Tensor, "B P Nr Nt"]:
    """Return the prediction for many histories, made a batch at a time."""
    starts = range(0, len(history), batch_size)
    parts = [(history[i : i + batch_size], pilot_snr_db[i : i + batch_size]) for i in starts]
    return torch.cat([predictor.predict(part, snr, num_future) for part, snr in parts])
