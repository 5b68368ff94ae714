"""Figures as SVG text, ready to stand in a page: no script, no font of their own."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.spatial import cKDTree

# Okabe and Ito's colours, which readers with any colour vision can tell apart; markers and dashes repeat them.
_STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#0072B2", "marker": "o", "linewidth": 2.4},
    {"color": "#E69F00", "marker": "s", "linestyle": "--"},
    {"color": "#D55E00", "marker": "^"},
    {"color": "#CC79A7", "marker": "v", "linestyle": "--"},
    {"color": "#555555", "marker": "D", "linestyle": ":"},
    {"color": "#009E73", "marker": "P"},
    {"color": "#56B4E9", "marker": "X"},
    {"color": "#000000", "marker": "*", "linestyle": "--"},
    {"color": "#882255", "marker": "<", "linestyle": ":"},
    {"color": "#7A6A00", "marker": ">", "linestyle": "-."},
)
_RC = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "svg.fonttype": "none",
    "svg.hashsalt": "sclmkb",
}


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of :func:`curves`: a value with its error bar at every point.

    Attributes:
        label: name in the legend.
        x: positions, e.g. SNR in dB.
        y: values.
        error: half lengths of the error bars.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    error: Sequence[float]


def curves(
    lines: Sequence[Curve],
    *,
    title: str,
    x_label: str,
    y_label: str,
    from_zero: bool = True,
    files: Path | None = None,
) -> str:
    """Draw lines with error bars; the order of ``lines`` decides colour and marker.

    ``files`` names a file without its suffix: then the figure is also saved as SVG, PDF and PNG.
    """
    with mpl.rc_context(_RC):
        figure, axes = _new(title, x_label, y_label)
        for line, style in zip(lines, _cycle(len(lines)), strict=True):
            axes.errorbar(line.x, line.y, yerr=line.error, label=line.label, markersize=5, capsize=2, **style)
        if from_zero:
            axes.set_ylim(bottom=0)
        positions = sorted({x for line in lines for x in line.x})
        if len(positions) <= _MOST_TICKS:
            axes.set_xticks(positions)
        if len(lines) > _MOST_INSIDE:
            figure.set_figwidth(7.2)
            axes.legend(frameon=False, fontsize=8.5, loc="center left", bbox_to_anchor=(1.01, 0.5))
        else:
            axes.legend(frameon=False, fontsize=8.5)
        return _svg(figure, files)


_MOST_INSIDE = 5
"""Lines whose legend still has room inside the axes."""
_MOST_TICKS = 10
"""Positions that are all named on the axis."""


def sector_maps(
    panels: Mapping[str, Sequence[float]],
    x_m: Sequence[float],
    y_m: Sequence[float],
    *,
    title: str,
    label: str,
    files: Path | None = None,
) -> str:
    """Draw a value of each terminal of a sector, one panel a predictor, with one colour scale: darker is higher.

    Each point of the sector has the colour of the terminal that is nearest to it; dots mark the terminals, a triangle
    the base station at the origin.

    Args:
        panels: values of the terminals by name of the panel.
        x_m: places of the terminals [m], the base station at the origin.
        y_m: likewise.
        title: heading.
        label: of the colour scale.
        files: as in :func:`curves`.
    """
    places = np.stack([np.asarray(x_m, float), np.asarray(y_m, float)], 1)
    centre = math.atan2(places[:, 1].sum(), places[:, 0].sum())
    turned = places @ np.array([[math.cos(centre), -math.sin(centre)], [math.sin(centre), math.cos(centre)]])
    angles = np.arctan2(turned[:, 1], turned[:, 0])
    half = min(math.pi, 1.02 * float(np.abs(angles).max()))
    radii = np.hypot(*places.T)
    near, far = 0.9 * float(radii.min()), 1.03 * float(radii.max())
    theta, radius = np.meshgrid(np.linspace(centre - half, centre + half, 361), np.linspace(near, far, 241))
    corners = np.stack([radius * np.cos(theta), radius * np.sin(theta)], -1)
    middles = (corners[1:, 1:] + corners[:-1, :-1]) / 2
    nearest = cKDTree(places).query(middles)[1]
    low = min(min(values) for values in panels.values())
    high = max(max(values) for values in panels.values())
    with mpl.rc_context({**_RC, "axes.grid": False}):
        extent = np.maximum(corners.max((0, 1)), 0) - np.minimum(corners.min((0, 1)), 0)  # the station is at 0
        height = 1.1 + 2.7 * float(extent[1] / extent[0])
        figure, all_axes = plt.subplots(
            1, len(panels), figsize=(3.1 * len(panels) + 0.9, height), layout="constrained", squeeze=False
        )
        for axes, (name, values) in zip(all_axes[0], panels.items(), strict=True):
            colours = np.asarray(values, float)[nearest]
            drawn = axes.pcolormesh(
                corners[..., 0], corners[..., 1], colours, cmap="cividis_r", vmin=low, vmax=high, rasterized=True
            )
            axes.plot(*places.T, ".", color="white", markersize=3.5, markeredgecolor="black", markeredgewidth=0.4)
            axes.plot(0, 0, "^", color="black", markersize=7)
            axes.set_title(name, fontsize=10.5)
            axes.set_aspect("equal")
            axes.set_xlabel("x [m]")
        all_axes[0][0].set_ylabel("y [m]")
        figure.colorbar(drawn, ax=list(all_axes[0]), label=label, shrink=0.85)
        figure.suptitle(title, fontsize=11)
        return _svg(figure, files)


def histogram(
    groups: Mapping[str, Sequence[float]], *, threshold: float, title: str, x_label: str, y_label: str
) -> str:
    """Draw stacked histograms of scores in [-1, 1] with the threshold as a line."""
    with mpl.rc_context(_RC):
        figure, axes = _new(title, x_label, y_label)
        low = min((min(values) for values in groups.values() if len(values)), default=0.0)
        start = max(-1.0, int(low * 20 - 1) / 20)
        bins = [start + 0.025 * i for i in range(int((1.0 - start) / 0.025) + 2)]
        colours = ["#0072B2", "#D55E00", "#999999"][: len(groups)]
        axes.hist(list(groups.values()), bins=bins, stacked=True, label=list(groups), color=colours)
        axes.axvline(threshold, color="black", linestyle="--", label=f"threshold {threshold:g}")
        axes.legend(frameon=False, fontsize=8.5, loc="upper left")
        return _svg(figure)


def bars(
    groups: Sequence[str], values: Mapping[str, Sequence[float]], *, title: str, x_label: str, y_label: str
) -> str:
    """Draw grouped bars: one group a position, one bar a series, its value written at its end."""
    with mpl.rc_context(_RC):
        figure, axes = _new(title, x_label, y_label)
        width = 0.8 / max(len(values), 1)
        for index, ((name, heights), style) in enumerate(zip(values.items(), _cycle(len(values)), strict=True)):
            places = [i + (index - (len(values) - 1) / 2) * width for i in range(len(groups))]
            drawn = axes.bar(places, heights, width * 0.92, label=name, color=str(style["color"]))
            axes.bar_label(drawn, fmt="%.1f", fontsize=7.5, padding=1)
        axes.set_xticks(range(len(groups)), groups)
        axes.margins(y=0.12)
        axes.legend(frameon=False, fontsize=8.5)
        return _svg(figure)


def _cycle(count: int) -> list[dict[str, Any]]:
    return [_STYLES[i % len(_STYLES)] for i in range(count)]


def _new(title: str, x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=(5.4, 3.7), layout="constrained")
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return figure, axes


def _svg(figure: Figure, files: Path | None = None) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    if files is not None:
        files.parent.mkdir(parents=True, exist_ok=True)
        files.with_suffix(".svg").write_text(text, "utf-8")
        figure.savefig(files.with_suffix(".pdf"), metadata={"CreationDate": None})
        figure.savefig(files.with_suffix(".png"), dpi=160)
    plt.close(figure)
    return text[text.index("<svg") :]
