"""The sections of the report on the paper's comparison: its claims, its figures, and the conditions of both."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sclmkb.evaluate.report.tables import page_table
from sclmkb.evaluate.tables import Table


@dataclass(frozen=True, kw_only=True)
class PaperFigure:
    """A figure of the paper, drawn from our measurements; its caption names the receiver."""

    name: str
    caption: str
    svg: str


@dataclass(frozen=True, kw_only=True)
class PaperSection:
    """What ``sclmkb-eval paper`` found, for the page.

    Attributes:
        claims: the paper's claims beside ours; the last column is the verdict in words.
        figures: in the order of the paper.
        conditions: what is equal for all systems.
        costs: of all measurements.
        commands: name of each measurement, and the command line that makes it.
        notes: what a reader of the claims has to know.
    """

    claims: Sequence[Table]
    figures: Sequence[PaperFigure]
    conditions: Sequence[Table]
    costs: Table
    commands: Sequence[tuple[str, str]]
    notes: Sequence[str] = ()


def paper_sections(paper: PaperSection) -> dict[str, Any]:
    """Return the parts of the page, by name; a part with nothing in it is left out."""
    parts = {
        "claims": [page_table(table, verdicts=True) for table in paper.claims],
        "notes": list(paper.notes),
        "figures": list(paper.figures),
        "conditions": [page_table(table) for table in paper.conditions],
    }
    return {name: part for name, part in parts.items() if part}
