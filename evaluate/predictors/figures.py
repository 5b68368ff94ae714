"""Figures of ``sclmkb-eval csi``: NMSE over pilot SNR, NMSE of each step, and the map of a sector."""

from pathlib import Path

import numpy as np

from sclmkb.common.errors import UserError
from sclmkb.evaluate.drawing.figures import Curve, curves
from sclmkb.evaluate.intervals import to_db
from sclmkb.evaluate.predictors.samples import Measured
from sclmkb.evaluate.predictors.sectors import Sector, sector_maps
from sclmkb.evaluate.predictors.tables import snr_name

MAP_KINDS = ("csi_llm", "llm4cp", "cdg")
"""The predictors that the paper's Fig. 11 compares."""


def draw(measured: Measured, folder: Path) -> dict[str, str]:
    """Write all figures as SVG, PDF and PNG, and return their SVG texts by name."""
    drawn = {}
    for artifact in measured.artifacts:
        if len(measured.snrs(artifact)) > 1:
            drawn[f"snr-{artifact}"] = _over_snr(measured, artifact, folder / f"snr-{artifact}")
        drawn[f"steps-{artifact}"] = _over_steps(measured, artifact, folder / f"steps-{artifact}")
        if has_places(measured, artifact):
            drawn[f"map-{artifact}"] = _map(measured, artifact, folder / f"map-{artifact}")
    return drawn


def has_places(measured: Measured, artifact: str) -> bool:
    """Return whether an artifact is of named users with places, three or more: drops alone make no sector."""
    table = measured.select(artifact, measured.shown_snr(artifact), measured.systems[0])
    places = np.asarray([table.column(name).to_pylist() for name in ("x_m", "y_m")], float)
    named = all(table.column("user").to_pylist())
    return named and bool(np.isfinite(places).all()) and len(np.unique(places, axis=1).T) >= 3


def map_systems(measured: Measured) -> list[str]:
    """Return the three systems of the map.

    Raises:
        UserError: if one that is set is not there.
    """
    if wanted := list(measured.settings.map_systems):
        if missing := [name for name in wanted if name not in measured.systems]:
            raise UserError(f"setting 'csi.map_systems': no '{missing[0]}', there are {', '.join(measured.systems)}")
        return wanted
    compared = measured.compared()
    chosen = [next((n for n in compared if measured.kinds[n] == kind), None) for kind in MAP_KINDS]
    found = [name for name in chosen if name is not None]
    others = [name for name in reversed(compared) if name not in found]
    return [*reversed(others[: 3 - len(found)]), *found] if len(found) < 3 else found


def _over_snr(measured: Measured, artifact: str, path: Path) -> str:
    snrs = [snr_db for snr_db in measured.snrs(artifact) if snr_db is not None]
    lines = []
    for system in _systems(measured):
        points = [measured.condition(artifact, snr_db).mean(system) for snr_db in snrs]
        lines.append(Curve(label=system, x=snrs, y=[p.mean for p in points], error=[p.half_width for p in points]))
    return curves(
        lines, title=measured.title(artifact), x_label="pilot SNR [dB]", y_label="NMSE [dB]", from_zero=False,
        files=path,
    )  # fmt: skip


def _over_steps(measured: Measured, artifact: str, path: Path) -> str:
    snr_db = measured.shown_snr(artifact)
    lines = []
    for system in _systems(measured):
        steps = to_db(measured.values(artifact, snr_db, system, "nmse_steps").mean((0, 1))).tolist()
        lines.append(Curve(label=system, x=range(1, len(steps) + 1), y=steps, error=[0.0] * len(steps)))
    return curves(
        lines, title=f"{measured.title(artifact)}, pilot SNR {snr_name(snr_db)}", x_label="predicted step",
        y_label="NMSE [dB]", from_zero=False, files=path,
    )  # fmt: skip


def sector_of(measured: Measured, artifact: str, name: str = "") -> Sector:
    """Return the NMSE [dB] of the three predictors of the map at each terminal, under a name written beside it.

    A terminal has the mean ratio over its windows and the system's seeds.
    """
    snr_db = measured.shown_snr(artifact)
    windows = [measured.values(artifact, snr_db, measured.systems[0], name)[0] for name in ("x_m", "y_m")]
    places, terminal = np.unique(np.stack(windows, 1), axis=0, return_inverse=True)
    values = {}
    for system in map_systems(measured):
        ratios = np.bincount(terminal.ravel(), measured.values(artifact, snr_db, system, "nmse").mean(0))
        values[system] = to_db(ratios / np.bincount(terminal.ravel())).tolist()
    return Sector(name=name, x_m=places[:, 0].tolist(), y_m=places[:, 1].tolist(), values=values)


def _map(measured: Measured, artifact: str, path: Path) -> str:
    sector, snr_db = sector_of(measured, artifact), measured.shown_snr(artifact)
    return sector_maps(
        [sector],
        title=f"{measured.title(artifact)}, {len(sector.x_m)} terminals, pilot SNR {snr_name(snr_db)}",
        label="NMSE [dB]: darker is worse",
        files=path,
    )


def _systems(measured: Measured) -> list[str]:
    """Return the systems of a figure, CDG first: it has the strongest line."""
    return sorted(measured.compared(), key=lambda name: measured.kinds[name] != "cdg")
