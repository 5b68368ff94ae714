"""Features of CSI that neither phase nor scale changes, for the tokens of CDG and for the targets of (30)."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Complex64, Float
from torch import Tensor

from sclmkb.common.models.csi.cdg.spectral import turning


@dataclass(frozen=True, kw_only=True)
class BeamStatistics:
    """Statistics of each beam, receive row, transmit column and of all, at unit power of the history.

    Attributes:
        beam: autocorrelation at lags 1 … L over the power without noise, of absolute value 1 at most.
        row: the same of the row's mean autocorrelation.
        column: of the column's.
        whole: of that of all beams.
        beam_snr: log10 of power without noise over noise.
        row_snr: of the row's mean.
        column_snr: of the column's.
        whole_snr: of all.
        power: power of each beam without noise, at least a fiftieth of the noise.
        centre: central Doppler frequency of each row [cycles per sample]: the angle of its autocorrelation at lag 1. A
            terminal's Doppler frequency is that of a direction of arrival, which is what a row stands for.
    """

    beam: Complex64[Tensor, "B Nr Nt L"]
    row: Complex64[Tensor, "B Nr L"]
    column: Complex64[Tensor, "B Nt L"]
    whole: Complex64[Tensor, "B L"]
    beam_snr: Float[Tensor, "B Nr Nt"]
    row_snr: Float[Tensor, "B Nr"]
    column_snr: Float[Tensor, "B Nt"]
    whole_snr: Float[Tensor, " B"]
    power: Float[Tensor, "B Nr Nt"]
    centre: Float[Tensor, "B Nr"]

    @classmethod
    @torch.no_grad()
    def of(cls, beams: Complex64[Tensor, "B T Nr Nt"], noise: Float[Tensor, " B"], num_lags: int) -> "BeamStatistics":
        """Measure beams of histories of unit power, and of a noise power on each beam, at L lags."""
        correlation = _autocorrelation(beams, num_lags)
        parts = {
            "beam": correlation,
            "row": correlation.mean(2),
            "column": correlation.mean(1),
            "whole": correlation.mean((1, 2)),
        }
        found: dict[str, Tensor] = {}
        for name, values in parts.items():
            floor = noise.view(-1, *[1] * (values.ndim - 2))
            power = torch.maximum(values[..., 0].real - floor, 0.02 * floor)
            safe = torch.maximum(power, 0.3 * floor) if name == "beam" else power
            ratio = values[..., 1:] / safe.unsqueeze(-1)
            found[name] = ratio / ratio.abs().clamp(min=1)
            found[f"{name}_snr"] = torch.log10(power / floor)
            if name == "beam":
                found["power"] = power
        return cls(**found, centre=torch.angle(found["row"][..., 0]) / (2 * math.pi))

    @property
    def _lags(self) -> Tensor:
        return torch.arange(1, self.whole.shape[-1] + 1, device=self.whole.device)

    def around_the_centre(self) -> Float[Tensor, "B Nr Nt features"]:
        """Return real features of each beam around its row's central frequency, which shifting all would not change.

        8 L + 4 of them: the autocorrelations of beam, row, column and all, turned, and the four SNRs.
        """
        turn = turning(-self.centre, self._lags).unsqueeze(2)
        parts = [self.beam, self.row[:, :, None], self.column[:, None], self.whole[:, None, None]]
        turned = torch.view_as_real(torch.stack([(part * turn).expand_as(self.beam) for part in parts], -2)).flatten(-3)
        snrs = [self.beam_snr, self.row_snr[:, :, None], self.column_snr[:, None], self.whole_snr[:, None, None]]
        return torch.cat([turned, torch.stack([snr.expand_as(self.beam_snr) for snr in snrs], -1)], -1)

    def of_directions(self) -> tuple[Float[Tensor, "B Nr features"], Float[Tensor, "B Nt features"]]:
        """Return real features of rows and of columns as seen from the central frequency of all: 4 L + 2 of them."""
        turn = turning(-torch.angle(self.whole[:, 0]) / (2 * math.pi), self._lags)
        whole = torch.view_as_real(self.whole * turn).flatten(-2)

        def features(own: Tensor, snr: Tensor) -> Tensor:
            count = own.shape[1]
            turned = torch.view_as_real(own * turn[:, None]).flatten(-2)
            everything = torch.cat([whole, self.whole_snr[:, None]], -1)[:, None].expand(-1, count, -1)
            return torch.cat([turned, snr[..., None], everything], -1)

        return features(self.row, self.row_snr), features(self.column, self.column_snr)


def _autocorrelation(beams: Tensor, num_lags: int) -> Complex64[Tensor, "B Nr Nt lags"]:
    """Return the autocorrelation of each beam at lags 0 … L."""
    size = beams.shape[1]
    lags = [(beams[:, lag:] * beams[:, : size - lag].conj()).mean(1) for lag in range(num_lags + 1)]
    return torch.stack(lags, -1)


def future_features(beams: Complex64[Tensor, "B P Nr Nt"], num_directions: int) -> Float[Tensor, "B N F"]:
    """Return features of the *clean future window* for each token, whose k-means code is the target of (30).

    The paper names no words for CSI. The nearest word to the aligned embedding of the true next patch is no good
    target: the aligner maps all patches to one word, and the loss goes to zero. A code of fixed features cannot
    collapse like this. The features are the normalised autocorrelation of the window at lags 1 … P-1 and the log
    share of power of the token's direction. Tokens are the ``num_directions`` strongest at either end; beams are those
    of the history.
    """
    correlation = _autocorrelation(beams, beams.shape[1] - 1)
    rows = torch.cat([correlation.mean(2)[:, :num_directions], correlation.mean(1)[:, :num_directions]], 1)
    power = rows[..., 0].real.clamp(min=1e-9)
    ratio = rows[..., 1:] / power.unsqueeze(-1)
    share = 0.25 * torch.log10(power / correlation[..., 0].real.mean((1, 2)).clamp(min=1e-9).unsqueeze(-1))
    return torch.cat([ratio.real, ratio.imag, share.unsqueeze(-1)], -1)
