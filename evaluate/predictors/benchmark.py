"""The published table of CSI-4CAST beside our predictors, and how much of its protocol was run.

Source: Cheng, Zandehshahvar, Zhao et al., "CSI-4CAST: A Hybrid Deep Learning Model for CSI Prediction with
Comprehensive Robustness and Generalization Testing", arXiv 2510.12996. The figures are those that its authors publish
with their program: github.com/AI4OPT/CSI-4CAST, commit 3a8b07d, file
``z_artifacts/outputs/testing/vis/20260326_144808/table/nmse_cm/nmse_cm_performance_tables.txt``. They are for white
noise, the mean over delay spreads 30, 100, 300 ns, terminal speeds 1, 10, 30 m/s and SNRs of 0 to 25 dB. Their NMSE is
that of each antenna and step over its subcarriers, averaged: :func:`~sclmkb.evaluate.predictors.measures.link_nmse`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc

from sclmkb.common.errors import UserError
from sclmkb.evaluate.predictors.samples import Measured
from sclmkb.evaluate.tables import Table

MODELS = ("A", "C", "D")
DELAY_SPREADS_NS = (30, 100, 300)
SPEEDS_MS = (1, 10, 30)
SNRS_DB = (0, 5, 10, 15, 20, 25)
SAMPLES = 100
SUBCARRIERS = 300
ANTENNAS = 32

PUBLISHED_TDD: Mapping[str, tuple[float, float, float, float]] = {
    "no prediction": (2.167, 1.949, 1.372, 1.829),
    "Wiener": (0.879, 0.849, 0.734, 0.821),
    "AR": (0.825, 0.804, 0.718, 0.783),
    "PAD": (0.321, 0.338, 0.065, 0.241),
    "STEMGNN": (0.283, 0.364, 0.049, 0.232),
    "CNN": (0.246, 0.334, 0.065, 0.215),
    "RNN": (0.207, 0.264, 0.044, 0.172),
    "LLM4CP": (0.167, 0.245, 0.031, 0.148),
    "CSI-4CAST": (0.156, 0.207, 0.022, 0.128),
}
"""Linear NMSE of CDL-A, CDL-C, CDL-D and of all three, TDD."""


def csi_4cast_table(measured: Measured) -> Table:
    """Return our predictors beside the published ones, on as much of the protocol as was measured.

    Raises:
        UserError: if no artifact holds wideband CDL drops.
    """
    samples = measured.samples
    drops = (samples.column(name).to_pylist() for name in ("scenario", "speed_kmh"))
    cells = [_cell(scenario, speed_kmh) for scenario, speed_kmh in zip(*drops, strict=True)]
    known = {cell for cell in cells if cell is not None}
    if not known:
        raise UserError(
            "no drop is of the CSI-4CAST protocol (CDL-A, C or D with 30, 100 or 300 ns at 1, 10 or 30 m/s): make them"
            " with sclmkb-gen csi --preset csi-4cast"
        )
    keep = np.asarray([cell in known for cell in cells])
    models = np.asarray([cell[0] if cell else "" for cell in cells])
    snrs = np.asarray([-1.0 if v is None else v for v in samples.column("pilot_snr_db").to_pylist()])
    keep &= np.isin(snrs, SNRS_DB)
    systems = np.asarray(samples.column("system").to_pylist())
    nmse = samples.column("nmse_link").to_numpy()
    if not keep.any() or not np.isfinite(nmse[keep]).all():
        raise UserError(f"the CSI-4CAST table needs wideband CSI and pilot SNRs out of {list(SNRS_DB)} dB")
    rows = []
    for system in measured.systems:
        own = keep & (systems == system)
        means = {m: float(nmse[own & (models == m)].mean()) for m in MODELS if (own & (models == m)).any()}
        rows.append([system, "ours", *_cells(means)])
    for name, values in PUBLISHED_TDD.items():
        rows.append([name, "published", *(f"{value:.3f}" for value in values)])
    return Table(
        title="CSI-4CAST (arXiv 2510.12996), TDD, linear NMSE of each antenna and step over its subcarriers",
        columns=["system", "", *(f"CDL-{m}" for m in MODELS), "mean"],
        rows=rows,
        note=_coverage(measured, known, snrs[keep], keep & (systems == measured.systems[0])),
    )


def _coverage(measured: Measured, known: set[tuple[str, int, int]], snrs: Any, own: Any) -> str:
    """Return how much of the protocol was run."""
    used_snrs = len(np.unique(snrs))
    used = measured.samples.filter(own)
    drops = len(pc.unique(used.column("drop_id"))) / len(known)
    shapes = [measured.shapes[name] for name in pc.unique(used.column("artifact")).to_pylist()]
    subcarriers = sorted({shape.num_subcarriers for shape in shapes})
    antennas = sorted({shape.num_tx * (shape.num_rx // shape.num_subcarriers) for shape in shapes})
    total = len(MODELS) * len(DELAY_SPREADS_NS) * len(SPEEDS_MS)
    return (
        f"Run here: {len(known)} of {total} cells (CDL model × delay spread × speed), {drops:.0f} of {SAMPLES} test"
        f" samples a cell, {used_snrs} of {len(SNRS_DB)} SNRs, {_list(subcarriers)} of {SUBCARRIERS} subcarriers,"
        f" {_list(antennas)} of {ANTENNAS} antenna pairs; TDD alone: neither FDD, nor other noise, nor generalisation."
        " Our channels are drawn by the same protocol and are not the published drops; our predictors were trained on"
        " what their configurations say. Published: the table of the authors' repository, commit 3a8b07d."
    )


def _cell(scenario: str, speed_kmh: float) -> tuple[str, int, int] | None:
    """Return CDL model, delay spread [ns] and speed [m/s] of a drop, or nothing if it is not of the protocol.

    Example:
        >>> _cell("cdl-a-100ns", 36.0), _cell("umi-los", 30.0)
        (('A', 100, 10), None)
    """
    found = re.fullmatch(r"cdl-(\w)-(\d+)ns", scenario)
    speed = round(speed_kmh / 3.6, 2)
    if not found or speed not in SPEEDS_MS:
        return None
    model, nanoseconds = found[1].upper(), int(found[2])
    return (model, nanoseconds, int(speed)) if model in MODELS and nanoseconds in DELAY_SPREADS_NS else None


def _cells(means: Mapping[str, float]) -> Sequence[str]:
    shown = [f"{means[m]:.3f}" if m in means else "not run" for m in MODELS]
    return [*shown, f"{np.mean(list(means.values())):.3f}" if len(means) == len(MODELS) else "not run"]


def _list(values: Sequence[int]) -> str:
    return " and ".join(str(value) for value in values)
