"""Features of CSI that neither phase nor scale changes, for the tokens of CDG and for the targets of (30)."""

import torch
from jaxtyping import Complex64, Float
from torch import Tensor


def direction_features(
    beams: Complex64[Tensor, "B T Nr Nt"], noise: Float[Tensor, " B"], num_lags: int
) -> tuple[Float[Tensor, "B Nr Nt F"], Float[Tensor, "B Nr F"], Float[Tensor, "B Nt F"], Float[Tensor, "B F"]]:
    """Return features of each beam, receive row, transmit column and of all that no phase or scale changes.

    F = 2 · lags + 1: the autocorrelation at lags 1, 2, … over the power without noise, real and imaginary parts, and
    the log SNR.

    Args:
        beams: eigen-beams of a history of unit power.
        noise: noise power of each beam.
        num_lags: lags.
    """
    num_history = beams.shape[1]
    lags = [(beams * beams.conj()).mean(1)]
    lags += [(beams[:, lag:] * beams[:, :-lag].conj()).sum(1) / (num_history - lag) for lag in range(1, num_lags + 1)]
    correlation = torch.stack(lags, -1)  # [B, Nr, Nt, lags + 1]
    noise = noise.view(-1, 1, 1)
    return (
        _normalised(correlation, noise),
        _normalised(correlation.mean(2), noise[..., 0]),
        _normalised(correlation.mean(1), noise[..., 0]),
        _normalised(correlation.mean((1, 2)), noise[:, 0, 0]),
    )


def _normalised(correlation: Tensor, noise: Tensor, floor: float = 0.1) -> Tensor:
    """Return real features of mean autocorrelations ``[..., lags + 1]`` of a group of beams."""
    power = torch.maximum(correlation[..., 0].real - noise, floor * noise)
    ratio = correlation[..., 1:] / power.unsqueeze(-1)
    ratio = ratio / ratio.abs().clamp(min=1.0)
    snr = torch.log10(power / noise).unsqueeze(-1)
    return torch.cat([ratio.real, ratio.imag, snr], -1)


def future_features(beams: Complex64[Tensor, "B P Nr Nt"], num_directions: int) -> Float[Tensor, "B N F"]:
    """Return features of the *clean future window* for each token, whose k-means code is the target of (30).

    The paper names no words for CSI. The nearest word to the aligned embedding of the true next patch collapses: the
    aligner makes all patches one word and the loss goes to zero. A code of fixed features cannot. They are the
    normalised autocorrelation of the window at lags 1 … P-1 and the log share of power of the token's direction.

    Args:
        beams: the clean future in the eigen-beams of the history.
        num_directions: strongest receive, and transmit, directions that are tokens.
    """
    num_future = beams.shape[1]
    products = [(beams[:, lag:] * beams[:, : num_future - lag].conj()).mean(1) for lag in range(num_future)]
    correlation = torch.stack(products, -1)  # [B, Nr, Nt, P]
    rows = torch.cat([correlation.mean(2)[:, :num_directions], correlation.mean(1)[:, :num_directions]], 1)
    power = rows[..., 0].real.clamp(min=1e-9)
    ratio = rows[..., 1:] / power.unsqueeze(-1)
    share = 0.25 * torch.log10(power / correlation[..., 0].real.mean((1, 2)).clamp(min=1e-9).unsqueeze(-1))
    return torch.cat([ratio.real, ratio.imag, share.unsqueeze(-1)], -1)
