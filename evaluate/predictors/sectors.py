"""Maps of a sector: a value of each terminal at its place, one column per predictor, one row per scenario."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from sclmkb.evaluate.drawing.figures import PRINT_RC, to_svg

Array = NDArray[np.float64]
_PAGE = 7.16
"""Width of a page of a two-column paper [inches]."""


@dataclass(frozen=True, kw_only=True)
class Sector:
    """The terminals of one scenario.

    Attributes:
        name: written beside its row; may be empty where there is one row.
        x_m: places of the terminals [m], the base station at the origin.
        y_m: likewise.
        values: of the terminals, by name of the column.
    """

    name: str
    x_m: Sequence[float]
    y_m: Sequence[float]
    values: Mapping[str, Sequence[float]]


def sector_maps(sectors: Sequence[Sector], *, title: str, label: str, files: Path | None = None) -> str:
    """Draw the values of each sector's terminals, with one colour scale for all: darker is higher.

    Each point of a sector has the colour of the terminal that is nearest to it; dots mark the terminals, a triangle
    the base station at the origin.

    Args:
        sectors: one per row, all with the same columns.
        title: heading; may be empty.
        label: of the colour scale.
        files: as in :func:`sclmkb.evaluate.drawing.figures.curves`.

    Raises:
        ValueError: if there is no sector, or two have other columns.
    """
    if not sectors or len({tuple(sector.values) for sector in sectors}) > 1:
        raise ValueError("a map needs sectors that all have the same columns")
    columns = list(sectors[0].values)
    every = [value for sector in sectors for values in sector.values.values() for value in values]
    surfaces = [_surface(np.stack([sector.x_m, sector.y_m], 1).astype(float)) for sector in sectors]
    shapes = [float(extent[1] / extent[0]) for extent in (_extent(corners) for corners, _ in surfaces)]
    width = _PAGE / max(3, len(columns)) - 0.75
    height = sum(width * shape for shape in shapes) + 0.3 * len(sectors) + (0.5 if title else 0.3)
    with mpl.rc_context({**PRINT_RC, "axes.grid": False}):
        figure, grid = plt.subplots(
            len(sectors), len(columns), figsize=((width + 0.75) * len(columns), height), layout="constrained",
            squeeze=False, gridspec_kw={"height_ratios": shapes},
        )  # fmt: skip
        for row, (sector, (corners, nearest)) in enumerate(zip(sectors, surfaces, strict=True)):
            for axes, (name, values) in zip(grid[row], sector.values.items(), strict=True):
                colours = np.asarray(values, float)[nearest]
                drawn = axes.pcolormesh(
                    corners[..., 0], corners[..., 1], colours, cmap="cividis_r", vmin=min(every), vmax=max(every),
                    rasterized=True,
                )  # fmt: skip
                axes.plot(
                    sector.x_m, sector.y_m, ".", color="white", markersize=2.8, markeredgecolor="black",
                    markeredgewidth=0.35,
                )  # fmt: skip
                axes.plot(0, 0, "^", color="black", markersize=5)
                axes.set_aspect("equal")
                axes.xaxis.set_major_locator(MaxNLocator(4))
                axes.yaxis.set_major_locator(MaxNLocator(5))
                if row == 0:
                    axes.set_title(name)
                if row == len(sectors) - 1:
                    axes.set_xlabel("x [m]")
            grid[row][0].set_ylabel(f"{sector.name}\ny [m]" if sector.name else "y [m]")
        figure.colorbar(drawn, ax=grid, label=label, shrink=0.85, aspect=24 * len(sectors))
        if title:
            figure.suptitle(title, fontsize=8.5)
        return to_svg(figure, files, dpi=300)


def _surface(places: Array) -> tuple[Array, NDArray[np.int_]]:
    """Return the corners of the cells of the sector around the terminals, and which terminal is nearest to each."""
    centre = math.atan2(places[:, 1].sum(), places[:, 0].sum())
    turned = places @ np.array([[math.cos(centre), -math.sin(centre)], [math.sin(centre), math.cos(centre)]])
    angles = np.arctan2(turned[:, 1], turned[:, 0])
    half = min(math.pi, 1.02 * float(np.abs(angles).max()))
    radii = np.hypot(*places.T)
    near, far = 0.9 * float(radii.min()), 1.03 * float(radii.max())
    theta, radius = np.meshgrid(np.linspace(centre - half, centre + half, 361), np.linspace(near, far, 241))
    corners = np.stack([radius * np.cos(theta), radius * np.sin(theta)], -1)
    middles = (corners[1:, 1:] + corners[:-1, :-1]) / 2
    return corners, np.asarray(cKDTree(places).query(middles)[1])


def _extent(corners: Array) -> Array:
    """Return width and height of a sector with its station, which is at the origin."""
    return np.asarray(np.maximum(corners.max((0, 1)), 0) - np.minimum(corners.min((0, 1)), 0))
