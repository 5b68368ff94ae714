"""Figures of a calibration."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sclmkb.common.artifacts.files import replacing
from sclmkb.generate.filter.curves import ThresholdCurve

_SIDE_INCHES = 5.2
_FIGURES = {
    "roc": ("fallout", "corrupted captions accepted", "recall", "faithful captions accepted", "lower right"),
    "precision-recall": (
        "recall",
        "recall: faithful captions accepted",
        "precision",
        "precision: faithful among accepted",
        "lower left",
    ),
}
"""What each figure has on its axes, and where its legend is."""


def draw_curves(curves: Mapping[str, ThresholdCurve], chosen: Mapping[str, Any], out: Path) -> None:
    """Draw ``roc`` and ``precision-recall``, each as PNG and SVG, with the chosen thresholds marked.

    Args:
        curves: by name of the score.
        chosen: ``precision``, ``recall`` and ``fallout`` of the chosen thresholds; may be empty.
        out: folder for the files.
    """
    import matplotlib
    from matplotlib.figure import Figure

    for stem, (x, x_label, y, y_label, place) in _FIGURES.items():
        with matplotlib.rc_context({"svg.hashsalt": "sclmkb", "svg.fonttype": "none"}):
            figure = Figure(figsize=(_SIDE_INCHES, _SIDE_INCHES), layout="constrained")
            axes = figure.add_subplot()
            for (name, found), style in zip(curves.items(), ("-", ":", "-"), strict=False):
                label = f"{name} (AUC {found.area:.3f})" if stem == "roc" else name
                # The whole filter never accepts what breaks a rule: its curve ends there.
                shown = found.threshold > -float("inf")
                axes.plot(getattr(found, x)[shown], getattr(found, y)[shown], style, label=label, linewidth=1.6)
            if chosen:
                axes.plot([chosen[x]], [chosen[y]], "ko", markersize=7, label="chosen thresholds")
            axes.set(xlabel=x_label, ylabel=y_label, xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
            axes.grid(alpha=0.3)
            axes.legend(loc=place, fontsize=8)
            for suffix in ("png", "svg"):
                with replacing(out / f"{stem}.{suffix}") as temporary:
                    metadata = {"Date": None} if suffix == "svg" else {"Software": None}
                    figure.savefig(temporary, format=suffix, dpi=150, metadata=metadata)
