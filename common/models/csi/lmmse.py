"""Wiener filters for each eigen-beam, from a bank indexed by the beam's SNR."""

from typing import Literal

import torch
from jaxtyping import Complex64, Float
from pydantic import Field
from torch import Tensor, nn

from sclmkb.common.csi.noise import estimate_beam_noise_power, estimate_noise_power
from sclmkb.common.csi.sets import CsiShape
from sclmkb.common.csi.tensors import EigenBeams, add_pilot_noise, normalise_power
from sclmkb.common.models.csi.base import PREDICTORS, FittedPredictor, PredictorSettings

LOWEST_DB, STEP_DB, NUM_BINS = -16.0, 2.0, 34
"""The bank's grid of beam SNRs [dB]."""
_AT_ONCE = 100


class WienerBank(nn.Module):
    """Real filters from T noisy samples of a beam to its P future ones.

    The filter for a beam of SNR s is interpolated between its neighbours on a grid in dB. Its covariances are averages
    over the training beams near that SNR, over their conjugates and over time reversal. So the filter is real, and its
    prediction turns with the phase of the beam.

    Attributes:
        filters: the bank; not a trained parameter, but saved.
    """

    filters: Tensor

    def __init__(self, num_history: int, num_future: int) -> None:
        super().__init__()
        self.register_buffer("filters", torch.zeros(NUM_BINS, num_history, num_future))

    @torch.no_grad()
    def fit(
        self,
        clean: Complex64[Tensor, "N S Nr Nt"],
        pilot_snr_db: tuple[float, float],
        generator: torch.Generator,
    ) -> "WienerBank":
        """Fit the bank on clean sequences of S = T + P samples and unit power, with noise drawn here.

        Its SNR [dB] is drawn uniformly from the range ``pilot_snr_db``.
        """
        _, num_history, num_future = self.filters.shape
        gram = torch.zeros(NUM_BINS, num_history, num_history, dtype=torch.float64)
        cross = torch.zeros(NUM_BINS, num_history, num_future, dtype=torch.float64)
        low, high = pilot_snr_db
        for part in torch.split(clean, _AT_ONCE):
            for sequence in (part, part.flip(1)):
                snr_db = low + (high - low) * torch.rand(len(part), generator=generator)
                noisy = add_pilot_noise(sequence[:, :num_history], snr_db, generator)
                history, scale = normalise_power(noisy)
                beams = EigenBeams.of(history)
                x = _series(beams.to_beams(history))
                y = _series(beams.to_beams(sequence[:, num_history:] / scale))
                index, share = grid_position(beam_snr_db(x, estimate_noise_power(history)))
                for bin_, weight in ((index, 1 - share), (index + 1, share)):
                    scaled = [series * weight.unsqueeze(-1).sqrt() for series in (x, y)]
                    for b in torch.unique(bin_).tolist():
                        rows, wanted = (
                            torch.view_as_real(series[bin_ == b]).transpose(1, 2).flatten(0, 1).double()
                            for series in scaled
                        )
                        gram[b] += rows.mT @ rows
                        cross[b] += rows.mT @ wanted
        seen = gram.diagonal(dim1=-2, dim2=-1).mean(-1)
        loading = (1e-4 * seen + 1e-12).view(-1, 1, 1) * torch.eye(num_history, dtype=torch.float64)
        filters = torch.linalg.solve(gram + loading, cross)
        filled = [int(b) for b in (seen > 0).nonzero().flatten()]
        for b in range(NUM_BINS):  # an SNR that training did not show takes the nearest that it did
            self.filters[b] = filters[min(filled, key=lambda other: abs(other - b))].float()
        return self

    def forward(
        self, beams: Complex64[Tensor, "B T Nr Nt"], noise: Float[Tensor, " B"]
    ) -> Complex64[Tensor, "B P Nr Nt"]:
        """Predict eigen-beams from those of a history of unit power and its noise power."""
        x = _series(beams)
        index, share = grid_position(beam_snr_db(x, noise))
        share = share[..., None, None]
        taps = (1 - share) * self.filters[index] + share * self.filters[index + 1]
        y = torch.einsum("bnt,bntp->bpn", x, taps.to(x.dtype))
        return y.reshape(*y.shape[:2], *beams.shape[2:])


def beam_snr_db(series: Complex64[Tensor, "B N T"], noise: Float[Tensor, " B"]) -> Float[Tensor, "B N"]:
    """Return the estimated SNR of beams [dB]: power minus noise over noise, not below 0.02."""
    power = series.abs().square().mean(-1)
    return 10 * torch.log10((power / noise.view(-1, 1) - 1).clamp(min=0.02))


def grid_position(snr_db: Float[Tensor, "*shape"]) -> tuple[Tensor, Tensor]:
    """Return the grid point below an SNR, and how far [0, 1] towards the next one it lies."""
    position = ((snr_db - LOWEST_DB) / STEP_DB).clamp(0, NUM_BINS - 1 - 1e-4)
    index = position.floor().long()
    return index, position - index


def _series(beams: Tensor) -> Tensor:
    return beams.flatten(2).transpose(1, 2)  # [B, T, Nr, Nt] -> [B, N, T]


class LmmseSettings(PredictorSettings):
    """Settings of :class:`EigenBeamLmmse`: there is nothing to choose but the predictor."""

    kind: Literal["lmmse"] = Field(default="lmmse", description="the predictor: lmmse")


@PREDICTORS.register(LmmseSettings)
class EigenBeamLmmse(FittedPredictor):
    """The Wiener bank on eigen-beams: the classical bar that a learned predictor has to pass.

    ::

        history ─► unit power ─► eigen-beams [B, T, Nr·Nt] ─► filter of the beam's SNR ─► back ─► future
    """

    name = "lmmse"

    def __init__(self, settings: LmmseSettings, shape: CsiShape, *, generator: torch.Generator | None = None) -> None:
        super().__init__(shape)
        self.settings = settings
        self.bank = WienerBank(shape.num_history, shape.num_future)

    def fit_statistics(
        self, clean: Complex64[Tensor, "N S Nr Nt"], pilot_snr_db: tuple[float, float], generator: torch.Generator
    ) -> None:
        """Fit the filters."""
        self.bank.fit(clean, pilot_snr_db, generator)

    @torch.no_grad()
    def predict_unit(self, history: Complex64[Tensor, "B T Nr Nt"]) -> Complex64[Tensor, "B P Nr Nt"]:
        """Filter each eigen-beam."""
        beams = EigenBeams.of(history)
        series = beams.to_beams(history)
        noise = estimate_beam_noise_power(series, estimate_noise_power(history))
        return beams.from_beams(self.bank(series, noise))
