"""Figures for print: several panels of curves with one legend, at the width of a two-column page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator, ScalarFormatter

from sclmkb.evaluate.drawing.figures import PRINT_RC, Curve, to_svg
from sclmkb.evaluate.drawing.styles import Style, styles_of

XScale = Literal["linear", "log2"]
_PAGE, _COLUMN = 7.16, 3.5
"""Widths of a page and of a column of a two-column paper [inches]."""
_JITTER = 0.34
"""Width over which the systems are spread at each position, as a part of the least distance between positions. With
few positions, as a part of an eighth of the axis."""
_MOST_TICKS = 8
"""Positions that are all named on a panel's axis."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One of the panels of a figure.

    Attributes:
        title: written after the panel's letter.
        curves: lines; ``system`` of each decides how it is drawn, ``label`` is written in the legend.
        y_label: of the vertical axis; written once where the panels of a row share it.
        from_zero: whether the vertical axis starts at zero.
    """

    title: str
    curves: Sequence[Curve]
    y_label: str
    from_zero: bool = True


def panels(
    drawn: Sequence[Panel],
    *,
    x_label: str,
    title: str = "",
    x_scale: XScale = "linear",
    columns: int = 3,
    share_y: bool = False,
    files: Path | None = None,
) -> str:
    """Draw panels of curves with an interval at every point, one letter per panel, and one legend below.

    The style of a line follows the name of its system, so that it is the same in every figure. At each position the
    systems stand a little beside each other, in the order of the legend: their intervals would hide each other.

    Args:
        drawn: the panels, row by row.
        x_label: of the horizontal axes, written below the last panel of each column.
        title: heading of the figure; a figure in a paper has none.
        x_scale: ``log2`` for powers of two, e.g. feedback bits.
        columns: most panels per row, up to three; rows are filled as evenly as they can be.
        share_y: whether all panels have the same vertical axis.
        files: as in :func:`sclmkb.evaluate.drawing.figures.curves`.

    Raises:
        ValueError: if there is no curve.
    """
    lines = [(_name(curve), curve) for panel in drawn for curve in panel.curves]
    if not lines:
        raise ValueError("a figure needs at least one curve")
    styles = styles_of(name for name, _ in lines)
    labels = {name: curve.label for name, curve in lines}
    rows = -(-len(drawn) // min(columns, 3))
    columns = -(-len(drawn) // rows)
    width = _COLUMN if columns == 1 else _PAGE
    with mpl.rc_context(PRINT_RC):
        legend_rows = -(-len(styles) // _legend_columns(columns, labels))
        height = rows * (2.35 if columns == 1 else 2.5 if columns == 2 else 1.95)
        height += 0.22 + 0.14 * legend_rows + (0.2 if title else 0.0)
        figure, grid = plt.subplots(
            rows, columns, figsize=(width, height), layout="constrained", squeeze=False, sharey=share_y
        )
        figure.get_layout_engine().set(w_pad=0.05, h_pad=0.04, wspace=0.03, hspace=0.03)
        for index, (axes, panel) in enumerate(zip(grid.flat, drawn, strict=False)):
            letter = f"({chr(ord('a') + index)}) " if len(drawn) > 1 else ""
            axes.set_title(letter + panel.title)
            _draw(axes, panel, styles, x_scale)
            if index % columns == 0 or drawn[index - 1].y_label != panel.y_label:
                axes.set_ylabel(panel.y_label)
            if index + columns >= len(drawn):
                axes.set_xlabel(x_label)
        for axes in list(grid.flat)[len(drawn) :]:
            axes.set_axis_off()
        if title:
            figure.suptitle(title, fontsize=8.5)
        _legend(figure, styles, labels, _legend_columns(columns, labels))
        return to_svg(figure, files, dpi=300)


def _name(curve: Curve) -> str:
    return curve.system or curve.label


def _draw(axes: Axes, panel: Panel, styles: dict[str, Style], x_scale: XScale) -> None:
    positions = sorted({float(x) for curve in panel.curves for x in curve.x})
    if x_scale == "log2":
        axes.set_xscale("log", base=2)
    for curve, offset in _beside_each_other(panel.curves, styles):
        style = styles[_name(curve)]
        axes.errorbar(
            _moved(curve.x, offset, positions, x_scale),
            curve.y,
            yerr=curve.error if any(curve.error) else None,
            ecolor=(style.color, 0.7),
            elinewidth=0.6,
            capsize=1.3,
            capthick=0.6,
            **style.line(),
        )
    _ticks(axes, positions, x_scale)
    if panel.from_zero:
        axes.set_ylim(bottom=0)


def _beside_each_other(lines: Sequence[Curve], styles: dict[str, Style]) -> Iterator[tuple[Curve, float]]:
    """Yield each curve and its place from -1/2 to 1/2 beside the others, the same in all panels; bounds stand at 0."""
    moved = [name for name, style in styles.items() if style.role == "other"]
    for curve in lines:
        place = moved.index(_name(curve)) if _name(curve) in moved and len(moved) > 1 else None
        yield curve, 0.0 if place is None else place / (len(moved) - 1) - 0.5


def _moved(x: Sequence[float], offset: float, positions: Sequence[float], x_scale: XScale) -> list[float]:
    if x_scale == "log2":
        return [2.0**place for place in _moved(np.log2(x).tolist(), offset, np.log2(positions).tolist(), "linear")]
    least = min([*np.diff(positions), (positions[-1] - positions[0]) / _MOST_TICKS])  # few positions lie far apart
    return [float(place + _JITTER * offset * least) for place in x]


def _ticks(axes: Axes, positions: Sequence[float], x_scale: XScale) -> None:
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    if x_scale == "log2" or len(positions) <= _MOST_TICKS:
        axes.set_xticks(positions)
    elif len(positions) <= 2 * _MOST_TICKS:
        start = next((i for i in (0, 1) if 0.0 in positions[i::2]), 0)
        axes.set_xticks(positions[start::2])
        axes.xaxis.set_minor_locator(FixedLocator(list(positions)))
    if x_scale == "log2":
        axes.xaxis.set_major_formatter(ScalarFormatter())


def _legend_columns(columns: int, labels: dict[str, str]) -> int:
    """Return how many entries stand side by side in the legend; rows are filled as evenly as they can be."""
    longest = max(len(label) for label in labels.values())
    room = (_COLUMN if columns == 1 else _PAGE) / (0.5 + 0.058 * longest)
    most = max(1, min(len(labels), int(room)))
    return -(-len(labels) // -(-len(labels) // most))


def _legend(figure: Figure, styles: dict[str, Style], labels: dict[str, str], columns: int) -> None:
    entries = list(styles)
    rows = -(-len(entries) // columns)
    # The legend is filled column by column; this order reads row by row.
    ordered = [entries[r * columns + c] for c in range(columns) for r in range(rows) if r * columns + c < len(entries)]
    handles = [Line2D([], [], label=labels[name], **styles[name].line()) for name in ordered]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, frameon=False, handlelength=3.2, columnspacing=1.3,
        labelspacing=0.35, borderaxespad=0.2,
    )  # fmt: skip
