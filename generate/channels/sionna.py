"""3GPP TR 38.901 channels from Sionna (the one module that imports it).

Geometry: one base station and one terminal a drop, each drop on the batch axis of its own topology, since terminals
that share a topology have correlated large-scale parameters. The terminal stands uniformly in a sector of the
scenario's cell, outdoors, and moves with constant velocity in a uniform direction. Base station: a dual-polarised
cross array with 38.901 element patterns; terminal: the same array with omnidirectional elements. Downlink.

Sionna draws from one global generator. :func:`simulate_drops` seeds it, and puts torch's own global generator, which
Sionna seeds along with it, back as it was.
"""

from typing import Any

import torch
from jaxtyping import Complex64, Float
from torch import Tensor

from sclmkb.common.errors import UserError

SCENARIOS = ("umi-los", "umi-nlos", "uma-los", "uma-nlos")

_NO_CLUSTER_DELAY_S = 1e-3
"""Sionna pads drops with fewer clusters: paths of zero power and delays of seconds. Real ones stay under 100 µs."""


def simulate_drops(
    *,
    scenario: str,
    speeds_kmh: Float[Tensor, "B"],
    num_samples: int,
    sample_period_s: float,
    carrier_hz: float,
    array_rows: int,
    array_columns: int,
    seed: int,
) -> Complex64[Tensor, "B num_samples Nr Nt"]:
    """Simulate independent drops of a narrowband MIMO channel.

    The narrowband coefficient at the carrier is the sum over the paths that exist. Path loss and shadow fading are
    off: they would only scale a drop.

    Args:
        scenario: one of :data:`SCENARIOS`.
        speeds_kmh: speed of each drop's terminal [km/h]; B is the number of drops.
        num_samples: consecutive samples in time.
        sample_period_s: time between samples [s].
        carrier_hz: carrier frequency [Hz].
        array_rows: rows of cross-polarised element pairs at both ends.
        array_columns: columns of them; there are 2 · rows · columns antennas.
        seed: everything random follows from it, in [0, 2**63).

    Returns:
        ``h [B, num_samples, Nr, Nt]``, not normalised.

    Raises:
        UserError: if Sionna is not installed.
    """
    try:
        from sionna.phy import config
        from sionna.phy.channel import gen_single_sector_topology
    except ImportError:
        raise UserError("3GPP channels need Sionna: pip install sionna-no-rt") from None

    num_drops = len(speeds_kmh)
    family, _, sight = scenario.partition("-")
    with torch.random.fork_rng(devices=[]):
        config.device = "cpu"
        config.seed = seed
        model = _channel_model(family, carrier_hz, array_rows, array_columns)
        locations, stations, orientations, station_orientations, directions, indoors = gen_single_sector_topology(
            batch_size=num_drops,
            num_ut=1,
            scenario=family,
            indoor_probability=0.0,
            min_ut_velocity=1.0,
            max_ut_velocity=1.0,
        )
        velocities = directions * (speeds_kmh / 3.6).to(directions.dtype).view(-1, 1, 1)
        model.set_topology(
            locations, stations, orientations, station_orientations, velocities, indoors, los=sight == "los"
        )
        gains, delays = model(num_samples, 1.0 / sample_period_s)
    exists = (delays < _NO_CLUSTER_DELAY_S)[:, 0, 0]  # [B, paths]
    paths = gains[:, 0, :, 0] * exists[:, None, None, :, None]  # [B, Nr, Nt, paths, time]
    h: Tensor = paths.sum(3).permute(0, 3, 1, 2).to(torch.complex64)
    return h.contiguous()


def _channel_model(family: str, carrier_hz: float, rows: int, columns: int) -> Any:
    from sionna.phy.channel.tr38901 import PanelArray, UMa, UMi

    base, terminal = (
        PanelArray(
            num_rows_per_panel=rows,
            num_cols_per_panel=columns,
            polarization="dual",
            polarization_type="cross",
            antenna_pattern=pattern,
            carrier_frequency=carrier_hz,
        )
        for pattern in ("38.901", "omni")
    )
    return {"umi": UMi, "uma": UMa}[family](
        carrier_frequency=carrier_hz,
        o2i_model="low",
        ut_array=terminal,
        bs_array=base,
        direction="downlink",
        enable_pathloss=False,
        enable_shadow_fading=False,
    )
