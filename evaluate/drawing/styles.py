"""How each system is drawn: its style and its written name follow its name in files, the same in every figure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Dashes = str | tuple[float, tuple[float, ...]]


@dataclass(frozen=True)
class Style:
    """Of one line: colour, dashes and marker each tell it apart, so that grey print and colour blindness do no harm.

    Attributes:
        label: the system's name as it is written in legends.
        color: of line and marker.
        dashes: as in matplotlib's ``linestyle``.
        marker: of the points; none for a bound.
        hollow: whether the marker is filled with white.
        role: ``main`` is drawn thickest and on top, a ``bound`` thinnest and below the others.
    """

    label: str
    color: str
    dashes: Dashes
    marker: str
    hollow: bool = False
    role: str = "other"

    def line(self, scale: float = 1.0) -> dict[str, Any]:
        """Return matplotlib's options of the line; ``scale`` multiplies widths and sizes."""
        width, size, order = {"main": (2.0, 3.8, 4), "other": (1.1, 3.6, 3), "bound": (0.8, 3.2, 2)}[self.role]
        return {
            "color": self.color,
            "linestyle": self.dashes,
            "linewidth": width * scale,
            "marker": self.marker,
            "markersize": size * scale * (1.15 if self.marker in "PXv^<>*" else 1.0),
            "markerfacecolor": "white" if self.hollow else self.color,
            "markeredgewidth": 0.8 * scale,
            "zorder": order,
        }


_DASHED, _DOTTED, _DASH_DOT = (0, (4.5, 1.6)), (0, (1.1, 1.3)), (0, (6, 1.5, 1.1, 1.5))
_LONG, _TWO_DOTS, _THREE_DOTS = (0, (9, 2)), (0, (5, 1.3, 1, 1.3, 1, 1.3)), (0, (5, 1.2, 1, 1.2, 1, 1.2, 1, 1.2))
_SHORT, _TWO_DASHES = (0, (2.4, 1.2)), (0, (6, 1.4, 2.4, 1.4))

# Okabe and Ito's colours, and four of Paul Tol's.
_BLUE, _ORANGE, _GREEN, _RED, _PINK, _SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
_WINE, _OLIVE, _INDIGO, _TEAL = "#882255", "#7A6A00", "#332288", "#44AA99"

STYLES: dict[str, Style] = {
    "sc-lmkb": Style("SC-LMKB", _BLUE, "-", "o", role="main"),
    "deepsc-mimo": Style("DeepSC-MIMO", _ORANGE, _DASHED, "s"),
    "llm4cp": Style("LLM4CP + SDG", _GREEN, _DASH_DOT, "^", hollow=True),
    "csi-llm": Style("Csi-LLM + SDG", _RED, _DOTTED, "v"),
    "sscc-best": Style("SSCC", _PINK, _TWO_DOTS, "D"),
    "sscc-modern-best": Style("SSCC, modern", _SKY, _LONG, "X"),
    "without-cdg": Style("without CDG", _RED, _DASHED, "^"),
    "without-sdg": Style("without SDG", _GREEN, _SHORT, "s", hollow=True),
    "without-both": Style("without both", _ORANGE, _DASH_DOT, "D", hollow=True),
    "unfiltered": Style("without filter", _PINK, _LONG, "v", hollow=True),
    "average": Style("without fusion", _SKY, _TWO_DASHES, "P"),
    "random-backbone": Style("random backbone", _WINE, _THREE_DOTS, "<"),
    "template": Style("template captions", _OLIVE, _TWO_DOTS, ">", hollow=True),
    "mtsc": Style("MTSC", _BLUE, "-", "h", role="main"),
    "digital": Style("digital link", _ORANGE, _DASHED, "o"),
    "digital-packed": Style("digital, packed", _ORANGE, _DOTTED, "D", hollow=True),
    "digital-text": Style("digital, text sent", _RED, _LONG, "^"),
    "u-deepsc": Style("U-DeepSC", _GREEN, _DASH_DOT, "v", hollow=True),
    "deepjscc": Style("DeepJSCC", _PINK, _TWO_DOTS, "P"),
    "adjscc": Style("ADJSCC", _WINE, _SHORT, "X"),
    "random-lam": Style("random LAM", "#777777", _DASHED, "<"),
    "no-lam": Style("no LAM", "#777777", _DOTTED, ">", hollow=True),
    "question-only": Style("question alone", "#999999", _TWO_DASHES, "*"),
    "no-lam-longer": Style("no LAM, longer", "#777777", _LONG, "d", hollow=True),
    "perfect-csi": Style("perfect CSI", "#000000", (0, (3, 1.5)), "+", role="bound"),
    "no-link": Style("no link", "#777777", (0, (1, 1.6)), "x", role="bound"),
}
"""Known systems in the order of every legend."""

_OTHERS: tuple[tuple[str, Dashes, str, bool], ...] = (
    (_INDIGO, _TWO_DASHES, "p", False),
    (_TEAL, _DASHED, "h", True),
    (_WINE, _DOTTED, "*", False),
    (_OLIVE, _LONG, "d", False),
    ("#555555", _THREE_DOTS, "8", True),
)


def styles_of(systems: Iterable[str]) -> dict[str, Style]:
    """Return the styles of the systems of one figure, in the order of its legend.

    Known ones come in the order of :data:`STYLES`, bounds last; those that are not known follow the known in the order
    given, drawn in a cycle of their own.
    """
    names = list(dict.fromkeys(systems))
    known = {name: style for name, style in STYLES.items() if name in names}
    unknown = [name for name in names if name not in STYLES]
    cycle = {name: Style(name, *_OTHERS[i % len(_OTHERS)]) for i, name in enumerate(unknown)}
    bounds = {name: style for name, style in known.items() if style.role == "bound"}
    return {name: style for name, style in known.items() if name not in bounds} | cycle | bounds


def label_of(system: str) -> str:
    """Return a system's name as it is written in legends and tables."""
    return STYLES[system].label if system in STYLES else system
