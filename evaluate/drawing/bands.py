"""Curves with their intervals as bands, each named at its right end; levels that no SNR changes are thin lines."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from sclmkb.evaluate.drawing.figures import RC, Curve, to_svg
from sclmkb.evaluate.drawing.styles import styles_of

_LEVEL = "#8a8a8a"
_SIZE = (6.6, 4.0)
_MOST_TICKS = 12
"""Positions are named on the axis themselves where so many would have room."""


def bands(
    lines: Sequence[Curve],
    *,
    x_label: str,
    y_label: str,
    levels: Mapping[str, float] | None = None,
    from_zero: bool = False,
    files: Path | None = None,
) -> str:
    """Draw curves with a band of plus and minus the error around each.

    Args:
        lines: the curves; ``system`` decides how each is drawn, ``label`` is written at its end.
        x_label: of the horizontal axis.
        y_label: of the vertical axis.
        levels: values of the vertical axis by what they are, e.g. that of a constant answer.
        from_zero: whether the vertical axis starts at zero.
        files: as in :func:`sclmkb.evaluate.drawing.figures.curves`.

    Raises:
        ValueError: if there is no curve.
    """
    if not lines:
        raise ValueError("a figure needs at least one curve")
    levels, styles = dict(levels or {}), styles_of(line.system for line in lines)
    with mpl.rc_context(RC):
        figure, axes = plt.subplots(figsize=_SIZE, layout="constrained")
        ends: list[tuple[float, str, str]] = []
        right = max(float(x) for line in lines for x in line.x)
        for line in lines:
            style, values, error = styles[line.system], np.asarray(line.y), np.asarray(line.error)
            axes.fill_between(line.x, values - error, values + error, color=style.color, alpha=0.16, linewidth=0)
            axes.plot(line.x, values, **style.line(1.25))
            ends.append((float(values[-1]), line.label, style.color))
        for label, y_value in levels.items():
            axes.axhline(y_value, color=_LEVEL, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
            ends.append((y_value, label, _LEVEL))
        if from_zero:
            axes.set_ylim(bottom=0)
        positions = sorted({float(x) for line in lines for x in line.x})
        if min(np.diff(positions), default=0.0) * _MOST_TICKS >= positions[-1] - positions[0]:
            axes.set_xticks(positions)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        low, high = axes.get_ylim()
        places = spread([y for y, *_ in ends], 0.058 * (high - low))
        for place, (y, label, color) in zip(places, ends, strict=True):
            axes.annotate(
                label, xy=(right, y), xytext=(1.03, (place - low) / (high - low)), textcoords="axes fraction",
                color=color, fontsize=9, va="center", annotation_clip=False,
                arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.5, "alpha": 0.6, "shrinkA": 1},
            )  # fmt: skip
        return to_svg(figure, files)


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Return positions that are at least ``gap`` apart, in the same order and near the given ones.

    Example:
        >>> spread([0.0, 1.0, 1.0], 0.5)
        [0.0, 0.75, 1.25]
    """
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    groups: list[tuple[float, list[int]]] = []  # centre, and who stands around it
    for i in order:
        centre, members = positions[i], [i]
        while groups and centre - groups[-1][0] < gap * (len(members) + len(groups[-1][1])) / 2:
            _, before = groups.pop()
            members = before + members
            centre = float(np.mean([positions[j] for j in members]))
        groups.append((centre, members))
    places = [0.0] * len(positions)
    for centre, members in groups:
        for rank, i in enumerate(members):
            places[i] = centre + (rank - (len(members) - 1) / 2) * gap
    return places
