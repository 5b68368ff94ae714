"""3GPP TR 38.901 channels from Sionna (the one module that imports it).

System-level scenarios (UMi, UMa): one base station and one terminal per drop. Each drop has a topology of its own on
the batch axis, since terminals that share a topology have correlated large-scale parameters. The terminal stands
uniformly in a sector of the scenario's cell, outdoors, and moves with constant velocity in a uniform direction in the
plane. Its array is turned at random. :func:`simulate_sector` puts all terminals into one topology instead.

Clustered delay lines (CDL-A to E): the table of clusters is the same for every drop. Phases, the coupling of rays and
the direction of movement (uniform azimuth, uniform zenith) are drawn.

Base station: 38.901 element patterns; terminal: omnidirectional ones. Downlink, so that base station antennas are
columns; by reciprocity the same matrix, transposed, is an uplink.

Sionna draws from one global generator. Each function here seeds it, and puts torch's own global generator, which
Sionna seeds along with it, back as it was.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Complex, Complex64, Float
from torch import Tensor

from sclmkb.common.errors import UserError

SYSTEM_LEVEL = ("umi-los", "umi-nlos", "uma-los", "uma-nlos")
CDL = ("cdl-a", "cdl-b", "cdl-c", "cdl-d", "cdl-e")
SCENARIOS = (*SYSTEM_LEVEL, *CDL)

_NO_CLUSTER_DELAY_S = 1e-3
"""Sionna pads drops with fewer clusters: paths of zero power and delays of seconds. Real ones stay under 100 µs."""


@dataclass(frozen=True, kw_only=True)
class AntennaPanel:
    """A rectangular array.

    Attributes:
        rows: rows of elements, or of element pairs.
        columns: columns of them.
        polarised: cross-polarised pairs (±45°) instead of single vertical elements.
    """

    rows: int
    columns: int
    polarised: bool

    @property
    def num_antennas(self) -> int:
        """Antennas: rows times columns, times two if polarised."""
        return self.rows * self.columns * (2 if self.polarised else 1)


@dataclass(frozen=True, kw_only=True)
class Link:
    """What the drops of a run share.

    Attributes:
        base: array of the base station, which transmits.
        terminal: array of the terminal.
        carrier_hz: carrier frequency [Hz].
        num_samples: consecutive samples in time.
        sample_period_s: time between samples [s].
        num_subcarriers: subcarriers around the carrier; 1: the carrier alone.
        subcarrier_spacing_hz: spacing between them [Hz].
    """

    base: AntennaPanel
    terminal: AntennaPanel
    carrier_hz: float
    num_samples: int
    sample_period_s: float
    num_subcarriers: int = 1
    subcarrier_spacing_hz: float = 30e3


class Simulated(NamedTuple):
    """Channels and where their terminals stand.

    Attributes:
        h: channels ``[B, num_samples, num_subcarriers · Nr, Nt]``, subcarriers outermost, not normalised.
        places: x and y of each terminal [m], the base station at the origin; NaN for CDL, which has no places.
    """

    h: Tensor
    places: Tensor


def simulate_drops(
    link: Link,
    scenario: str,
    speeds_kmh: Float[Tensor, "B"],
    delay_spreads_s: Float[Tensor, "B"],
    seed: int,
) -> Simulated:
    """Simulate independent drops.

    The coefficient at a frequency is the sum over the paths that exist. Path loss and shadow fading are off: they
    would only scale a drop. Delay spreads are root mean squares, for CDL alone: the other :data:`SCENARIOS` draw their
    own. The seed is in [0, 2**63).

    Raises:
        UserError: if Sionna is not installed.
    """
    with _seeded(seed):
        if scenario in CDL:
            return _simulate_cdl(link, scenario, speeds_kmh, delay_spreads_s, seed)
        locations, gains, delays = _simulate_system(link, scenario, speeds_kmh.view(-1, 1))
        return Simulated(_response(link, gains[:, 0, :, 0], delays[:, 0, 0]), locations[:, 0, :2])


def simulate_sector(link: Link, scenario: str, speeds_kmh: Float[Tensor, "B"], seed: int) -> Simulated:
    """Simulate terminals that stand in one sector together: a single topology.

    Terminals near each other have correlated large-scale parameters (delay and angular spreads, Ricean factor, cross
    polarisation), as TR 38.901 prescribes. Clusters, rays and phases are independent even for neighbours. The scenario
    is one of :data:`SYSTEM_LEVEL`.
    """
    with _seeded(seed):
        locations, gains, delays = _simulate_system(link, scenario, speeds_kmh.view(1, -1))
        return Simulated(_response(link, gains[0, :, :, 0], delays[0, :, 0]), locations[0, :, :2])


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    try:
        from sionna.phy import config
    except ImportError:
        raise UserError("3GPP channels need Sionna: pip install sionna-no-rt") from None
    with torch.random.fork_rng(devices=[]):
        config.device = "cpu"
        config.seed = seed
        yield


def _simulate_system(link: Link, scenario: str, speeds_kmh: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return places, gains and delays of ``[topologies, terminals]``."""
    from sionna.phy.channel import gen_single_sector_topology
    from sionna.phy.channel.tr38901 import UMa, UMi

    family, _, sight = scenario.partition("-")
    base, terminal = _arrays(link)
    model = {"umi": UMi, "uma": UMa}[family](
        carrier_frequency=link.carrier_hz,
        o2i_model="low",
        ut_array=terminal,
        bs_array=base,
        direction="downlink",
        enable_pathloss=False,
        enable_shadow_fading=False,
    )
    num_topologies, num_terminals = speeds_kmh.shape
    locations, stations, orientations, station_orientations, directions, indoors = gen_single_sector_topology(
        batch_size=num_topologies,
        num_ut=num_terminals,
        scenario=family,
        indoor_probability=0.0,
        min_ut_velocity=1.0,
        max_ut_velocity=1.0,
    )
    velocities = directions * (speeds_kmh / 3.6).to(directions.dtype).unsqueeze(-1)
    model.set_topology(locations, stations, orientations, station_orientations, velocities, indoors, los=sight == "los")
    gains, delays = model(link.num_samples, 1.0 / link.sample_period_s)
    return locations, gains, delays


def _simulate_cdl(link: Link, scenario: str, speeds_kmh: Tensor, delay_spreads_s: Tensor, seed: int) -> Simulated:
    from sionna.phy.channel import tr38901

    num_drops = len(speeds_kmh)
    draws = torch.rand(2, num_drops, generator=torch.Generator().manual_seed(seed))
    azimuth, zenith = 2 * torch.pi * draws[0], torch.pi * draws[1]
    direction = torch.stack([azimuth.cos() * zenith.sin(), azimuth.sin() * zenith.sin(), zenith.cos()], -1)
    base, terminal = _arrays(link)
    model = tr38901.CDL(
        model=scenario[-1].upper(),
        delay_spread=1.0,  # the gains do not depend on it: delays are scaled drop by drop below
        carrier_frequency=link.carrier_hz,
        ut_array=terminal,
        bs_array=base,
        direction="downlink",
        ut_velocity=direction * (speeds_kmh / 3.6).unsqueeze(-1),
    )
    gains, delays = model(num_drops, link.num_samples, 1.0 / link.sample_period_s)
    scaled = delays[:, 0, 0] * delay_spreads_s.to(delays.dtype).unsqueeze(-1)
    return Simulated(_response(link, gains[:, 0, :, 0], scaled), torch.full((num_drops, 2), torch.nan))


def _response(
    link: Link, gains: Complex[Tensor, "B Nr Nt L S"], delays_s: Float[Tensor, "B L"]
) -> Complex64[Tensor, "B S rows Nt"]:
    """Return Σ_l a_l exp(-j2πfτ_l) over the paths that exist, at each subcarrier."""
    exists = delays_s < _NO_CLUSTER_DELAY_S
    paths = gains * exists[:, None, None, :, None]
    if link.num_subcarriers == 1:
        return paths.sum(3).permute(0, 3, 1, 2).to(torch.complex64).contiguous()
    centred = torch.arange(link.num_subcarriers, dtype=torch.float64) - link.num_subcarriers // 2
    phase = 2 * torch.pi * centred * link.subcarrier_spacing_hz * (delays_s * exists).double().unsqueeze(-1)
    turn = torch.polar(torch.ones_like(phase), -phase).to(paths.dtype)  # [B, L, K]
    num_drops, num_rx, num_tx, num_paths, num_samples = paths.shape
    flat = paths.transpose(3, 4).reshape(num_drops, -1, num_paths) @ turn  # [B, Nr · Nt · S, K]
    h = flat.view(num_drops, num_rx, num_tx, num_samples, -1).permute(0, 3, 4, 1, 2)  # [B, S, K, Nr, Nt]
    return h.flatten(2, 3).to(torch.complex64).contiguous()


def _arrays(link: Link) -> tuple[Any, Any]:
    """Return the arrays of base station and terminal."""
    from sionna.phy.channel.tr38901 import PanelArray

    base, terminal = (
        PanelArray(
            num_rows_per_panel=panel.rows,
            num_cols_per_panel=panel.columns,
            polarization="dual" if panel.polarised else "single",
            polarization_type="cross" if panel.polarised else "V",
            antenna_pattern=pattern,
            carrier_frequency=link.carrier_hz,
        )
        for panel, pattern in ((link.base, "38.901"), (link.terminal, "omni"))
    )
    return base, terminal
