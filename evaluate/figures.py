"""Figures as SVG text, ready to stand in a page: no file, no script, no font of their own."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours, which readers with any colour vision can tell apart; markers and dashes repeat them.
_STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#0072B2", "marker": "o", "linewidth": 2.4},
    {"color": "#E69F00", "marker": "s", "linestyle": "--"},
    {"color": "#D55E00", "marker": "^"},
    {"color": "#CC79A7", "marker": "v", "linestyle": "--"},
    {"color": "#555555", "marker": "D", "linestyle": ":"},
    {"color": "#009E73", "marker": "P"},
    {"color": "#56B4E9", "marker": "X"},
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


def curves(lines: Sequence[Curve], *, title: str, x_label: str, y_label: str, from_zero: bool = True) -> str:
    """Draw lines with error bars; the order of ``lines`` decides colour and marker."""
    with mpl.rc_context(_RC):
        figure, axes = _new(title, x_label, y_label)
        for line, style in zip(lines, _cycle(len(lines)), strict=True):
            axes.errorbar(line.x, line.y, yerr=line.error, label=line.label, markersize=5, capsize=2, **style)
        if from_zero:
            axes.set_ylim(bottom=0)
        axes.legend(frameon=False, fontsize=8.5)
        return _svg(figure)


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


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
