"""What a shard of CSI is like: power, delay and Doppler spectra, singular values, capacity, as numbers.

All numbers are of the clean channels, averaged over the drops of the shard. Wideband CSI is analysed one subcarrier at
a time, except for the delay spectrum.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Complex64, Float
from torch import Tensor

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.csi.sets import CsiSet, csi_shard
from sclmkb.common.csi.tensors import EigenBeams
from sclmkb.common.errors import UserError
from sclmkb.common.link.mimo import water_filling

SPEED_OF_LIGHT = 299_792_458.0
SNRS_DB = tuple(range(-10, 31, 2))
_MAX_SUBCARRIERS = 8
_MAX_DROPS = 200


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """Averages over the drops of a shard; K subcarriers, r = min(Nr, Nt).

    Attributes:
        shard: its name.
        facts: what the table prints, by name.
        antenna_power: mean power of each antenna pair, 1 on average.
        beam_power: mean power of each pair of receive and transmit eigen-beams, shares of the whole.
        delay_s: delays [s], or bins if the spacing of the subcarriers is unknown; empty if narrowband.
        delay_power: mean power at each delay, shares of the whole.
        doppler_hz: Doppler frequencies [Hz], ascending.
        doppler_power: mean power at each, shares of the whole.
        greatest_doppler_hz: speed over wavelength, of the fastest drop.
        mode_power: mean squared singular values, shares of the whole, strongest first.
        capacity: bits per channel use at :data:`SNRS_DB`, for water-filling, equal power on all antennas, and the
            strongest mode alone.
    """

    shard: str
    facts: dict[str, str]
    antenna_power: Float[Tensor, "Nr Nt"]
    beam_power: Float[Tensor, "Nr Nt"]
    delay_s: Float[Tensor, " K"]
    delay_power: Float[Tensor, " K"]
    doppler_hz: Float[Tensor, " F"]
    doppler_power: Float[Tensor, " F"]
    greatest_doppler_hz: float
    mode_power: Float[Tensor, " r"]
    capacity: dict[str, Float[Tensor, " S"]]


def inspect_shard(root: Path, shard: str | None = None) -> Inspection:
    """Compute everything for one shard of a CSI artifact, by default its first.

    Raises:
        UserError: if there is no such artifact or shard.
    """
    artifact = Artifact.open(root, "csi", verify=False)
    names = [s.name for s in artifact.plan.shards if s.row_ids]
    name = shard or names[0]
    if name not in names:
        raise UserError(f"{root} has no shard '{name}', it has {', '.join(names[:6])}{' …' if len(names) > 6 else ''}")
    drops = csi_shard(artifact, name)
    return inspect_drops(drops.part(slice(_MAX_DROPS)), name, _spacing_hz(artifact.plan.settings))


def inspect_drops(drops: CsiSet, name: str, spacing_hz: float | None = None) -> Inspection:
    """Compute everything for some drops of the shard ``name``; the spacing of subcarriers may be unknown."""
    h = torch.cat([drops.clean_history, drops.future], 1)
    num_subcarriers = drops.num_subcarriers
    split = h.reshape(*h.shape[:2], num_subcarriers, -1, h.shape[3])  # [N, S, K, Nr, Nt]
    step = max(1, num_subcarriers // _MAX_SUBCARRIERS)
    chosen = split[:, :, step // 2 :: step]
    flat = chosen.transpose(1, 2).flatten(0, 1)  # [N · K', S, Nr, Nt]
    beams = EigenBeams.of(flat).to_beams(flat).abs().square().mean((0, 1))
    power = split.abs().square().mean((0, 1, 2))
    modes = torch.linalg.svdvals(flat[:, -1]).square()
    frequencies, doppler = doppler_spectrum(h, drops.sample_period_s)
    greatest = float((drops.speed_kmh.double() / 3.6 * drops.carrier_hz).max()) / SPEED_OF_LIGHT
    shares = modes.mean(0) / modes.mean(0).sum()
    capacity = capacity_curves(modes, h.shape[3])
    delays, delay_power = delay_spectrum(split, spacing_hz)
    return Inspection(
        shard=name,
        facts=_facts(drops, h, shares, capacity, greatest),
        antenna_power=power / power.mean(),
        beam_power=beams / beams.sum(),
        delay_s=delays,
        delay_power=delay_power,
        doppler_hz=frequencies,
        doppler_power=doppler,
        greatest_doppler_hz=greatest,
        mode_power=shares,
        capacity=capacity,
    )


def delay_spectrum(
    h: Complex64[Tensor, "N S K Nr Nt"], spacing_hz: float | None
) -> tuple[Float[Tensor, " K"], Float[Tensor, " K"]]:
    """Return delays and the share of power at each: squared inverse Fourier transforms over the subcarriers.

    K subcarriers tell delays apart up to 1 / spacing; longer ones wrap around; the last eighth counts as negative.
    The resolution is 1 / (K · spacing), twice that through the Hann window.
    """
    count = h.shape[2]
    if count == 1:
        return torch.zeros(0), torch.zeros(0)
    window = torch.hann_window(count + 2, periodic=False)[1:-1].view(-1, 1, 1)
    power = torch.fft.ifft(h * window, dim=2).abs().square().mean((0, 1, 3, 4))
    bins, negative = torch.arange(count, dtype=torch.float32), count // 8
    power = power.roll(negative) / power.sum()
    return (bins - negative) / (count * spacing_hz if spacing_hz else 1), power


def doppler_spectrum(
    h: Complex64[Tensor, "N S Nr Nt"], sample_period_s: Float[Tensor, " N"], padding: int = 4
) -> tuple[Float[Tensor, " F"], Float[Tensor, " F"]]:
    """Return Doppler frequencies [Hz] and the share of power at each: Hann-windowed Fourier transforms over time."""
    samples = h.shape[1]
    window = torch.hann_window(samples + 2, periodic=False)[1:-1].view(-1, 1, 1)
    spectrum = torch.fft.fft(h * window, n=padding * samples, dim=1).abs().square().mean((0, 2, 3))
    frequencies = torch.fft.fftfreq(padding * samples, d=float(sample_period_s[0]))
    return torch.fft.fftshift(frequencies), torch.fft.fftshift(spectrum / spectrum.sum())


def capacity_curves(modes: Float[Tensor, "N r"], num_tx: int) -> dict[str, Float[Tensor, " S"]]:
    """Return mean bits per channel use over :data:`SNRS_DB`, for squared singular values, strongest first.

    Total transmit power 1, noise power 1/SNR at each receive antenna. Equal power is spread over all antennas.
    """
    snr = torch.pow(10.0, torch.tensor(SNRS_DB, dtype=torch.float32) / 10).view(-1, 1, 1)  # [S, 1, 1]
    shares = water_filling(modes.expand(len(SNRS_DB), -1, -1), 1 / snr[..., 0].expand(-1, len(modes)))
    equal, first = torch.full(modes.shape[1:], 1 / num_tx), torch.eye(modes.shape[1])[0]
    powers = {"water-filling": shares, "equal power": equal, "strongest mode": first}
    return {name: torch.log2(1 + snr * modes * power).sum(-1).mean(-1) for name, power in powers.items()}


def _facts(
    drops: CsiSet, h: Tensor, shares: Tensor, capacity: dict[str, Tensor], greatest_doppler_hz: float
) -> dict[str, str]:
    noise = (drops.history - drops.clean_history).abs().square().mean((1, 2, 3))
    measured = -10 * torch.log10(noise / drops.clean_history.abs().square().mean((1, 2, 3)))
    shape, last = drops.shape, h[:, -1]
    correlations = []
    for lag in (1, shape.num_future):
        product = (last * h[:, -1 - lag].conj()).sum((1, 2)).abs()
        norms = last.abs().square().sum((1, 2)) * h[:, -1 - lag].abs().square().sum((1, 2))
        correlations.append(float((product / norms.sqrt()).mean()))
    at_20_db = SNRS_DB.index(20)
    names = Counter(drops.scenarios)
    users = len(set(drops.users) - {""})
    return {
        "drops": f"{len(drops)}{f', of {users} users' if users else ''}",
        "scenario": ", ".join(f"{name} ({count})" for name, count in names.items()),
        "samples": f"{shape.num_history} of history, {shape.num_future} of future,"
        f" every {_range(drops.sample_period_s * 1e3)} ms",
        "antennas": f"{shape.num_rx // shape.num_subcarriers} receive, {shape.num_tx} transmit",
        "subcarriers": f"{shape.num_subcarriers}",
        "carrier": f"{_range(drops.carrier_hz / 1e9)} GHz",
        "speed": f"{_range(drops.speed_kmh)} km/h, Doppler up to {greatest_doppler_hz:.0f} Hz",
        "pilot SNR": f"{_range(drops.pilot_snr_db)} dB; measured {_range(measured)} dB",
        "correlation": f"{correlations[0]:.3f} after one sample, {correlations[1]:.3f} after {shape.num_future}",
        "modes for 95 % of power": f"{int((shares.cumsum(0) < 0.95).sum()) + 1} of {len(shares)}",
        "capacity at 20 dB": ", ".join(f"{name} {float(curve[at_20_db]):.1f}" for name, curve in capacity.items())
        + " bit/use",
    }


def _range(values: Tensor) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:.4g}" if high - low < 1e-6 * max(abs(high), 1e-12) else f"{low:.4g} to {high:.4g}"


def _spacing_hz(settings: dict[str, Any]) -> float | None:
    while "source" in settings:  # of what came through feedback
        settings = settings["source"]
    return settings.get("subcarrier_spacing_hz")
