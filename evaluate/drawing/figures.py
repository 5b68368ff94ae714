"""Figures as SVG text, ready to stand in a page: no script, no font of their own."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sclmkb.evaluate.drawing.styles import styles_of

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
RC = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "svg.fonttype": "none",
    "svg.hashsalt": "sclmkb",
    "pdf.fonttype": 42,
}
PRINT_RC = {
    **RC,
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "axes.titlepad": 4,
    "axes.labelpad": 2,
}
"""For figures that are drawn at the size at which they are printed."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of :func:`curves`: a value with its error bar at every point.

    Attributes:
        label: name in the legend.
        x: positions, e.g. SNR in dB.
        y: values.
        error: half lengths of the error bars.
        system: name of the system that it is of; its style follows from that.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    error: Sequence[float]
    system: str = ""


def curves(
    lines: Sequence[Curve], *, title: str, x_label: str, y_label: str, from_zero: bool = True, files: Path | None = None
) -> str:
    """Draw lines with error bars.

    The order of ``lines`` decides colour and marker, unless each says of which system it is.

    ``files`` names a file without its suffix: then the figure is also saved as SVG, PDF and PNG.
    """
    with mpl.rc_context(RC):
        figure, axes = _new(title, x_label, y_label)
        for line, style in zip(lines, _line_styles(lines), strict=True):
            axes.errorbar(line.x, line.y, yerr=line.error, label=line.label, capsize=2, **style)
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
        return to_svg(figure, files)


_MOST_INSIDE = 5
"""Lines whose legend still has room inside the axes."""
_MOST_TICKS = 10
"""Positions that are all named on the axis."""


def histogram(
    groups: Mapping[str, Sequence[float]], *, threshold: float, title: str, x_label: str, y_label: str
) -> str:
    """Draw stacked histograms of scores in [-1, 1] with the threshold as a line."""
    with mpl.rc_context(RC):
        figure, axes = _new(title, x_label, y_label)
        low = min((min(values) for values in groups.values() if len(values)), default=0.0)
        start = max(-1.0, int(low * 20 - 1) / 20)
        bins = [start + 0.025 * i for i in range(int((1.0 - start) / 0.025) + 2)]
        colours = ["#0072B2", "#D55E00", "#999999"][: len(groups)]
        axes.hist(list(groups.values()), bins=bins, stacked=True, label=list(groups), color=colours)
        axes.axvline(threshold, color="black", linestyle="--", label=f"threshold {threshold:g}")
        axes.legend(frameon=False, fontsize=8.5, loc="upper left")
        return to_svg(figure)


def bars(
    groups: Sequence[str], values: Mapping[str, Sequence[float]], *, title: str, x_label: str, y_label: str
) -> str:
    """Draw grouped bars: one group per position, one bar per series, its value written at its end."""
    with mpl.rc_context(RC):
        figure, axes = _new(title, x_label, y_label)
        width = 0.8 / max(len(values), 1)
        for index, ((name, heights), style) in enumerate(zip(values.items(), _cycle(len(values)), strict=True)):
            places = [i + (index - (len(values) - 1) / 2) * width for i in range(len(groups))]
            drawn = axes.bar(places, heights, width * 0.92, label=name, color=str(style["color"]))
            axes.bar_label(drawn, fmt="%.1f", fontsize=7.5, padding=1)
        axes.set_xticks(range(len(groups)), groups)
        axes.margins(y=0.12)
        axes.legend(frameon=False, fontsize=8.5)
        return to_svg(figure)


def _line_styles(lines: Sequence[Curve]) -> list[dict[str, Any]]:
    if all(line.system for line in lines):
        styles = styles_of(line.system for line in lines)
        return [styles[line.system].line(1.35) for line in lines]
    return [{"markersize": 5, **style} for style in _cycle(len(lines))]


def _cycle(count: int) -> list[dict[str, Any]]:
    return [_STYLES[i % len(_STYLES)] for i in range(count)]


def _new(title: str, x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=(5.4, 3.7), layout="constrained")
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return figure, axes


def to_svg(figure: Figure, files: Path | None = None, *, dpi: int = 160) -> str:
    """Close a figure and return its SVG text; ``files`` as in :func:`curves`."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, dpi=dpi)
    text = buffer.getvalue()
    if files is not None:
        files.parent.mkdir(parents=True, exist_ok=True)
        beside = {suffix: files.with_name(f"{files.name}.{suffix}") for suffix in ("svg", "pdf", "png")}
        beside["svg"].write_text(text, "utf-8")
        figure.savefig(beside["pdf"], metadata={"CreationDate": None}, dpi=dpi)
        figure.savefig(beside["png"], dpi=dpi)
    plt.close(figure)
    return text[text.index("<svg") :]


def shape_of(svg: str) -> str:
    """Return how much room a figure needs in a page: ``narrow``, ``wide`` or, if it is also high, ``tall``."""
    found = re.search(r'<svg[^>]* width="([\d.]+)pt" height="([\d.]+)pt"', svg)
    if found is None or float(found[1]) <= _NARROW_PT:
        return "narrow"
    return "tall" if float(found[2]) > 0.6 * float(found[1]) else "wide"


_NARROW_PT = 300.0
"""Width of a figure for one column of a paper, and a little more [points]."""
