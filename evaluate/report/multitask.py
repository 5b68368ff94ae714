"""The page of a study of MTSC: claims, figures, examples to look at, tables; one file that stands alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from sclmkb.common.artifacts.files import write_bytes
from sclmkb.evaluate.report.paper import PaperFigure
from sclmkb.evaluate.report.tables import page_table
from sclmkb.evaluate.tables import Table


@dataclass(frozen=True, kw_only=True)
class ExampleCell:
    """What arrived of an example at one SNR: a text or a picture, and whether it is right."""

    text: str = ""
    picture: str = ""
    note: str = ""
    tone: str = ""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A sample that was sent, and what arrived.

    Attributes:
        picture: what was sent, as data of a page.
        alt: the same in words.
        title: what was asked; empty: nothing.
        said: the answers or captions that people gave.
        columns: SNRs in words.
        rows: name of each system, with a cell for each column.
    """

    picture: str
    alt: str
    title: str
    said: Sequence[str]
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[ExampleCell]]]


@dataclass(frozen=True, kw_only=True)
class PageSection:
    """A part of the page; what is empty is left out.

    Attributes:
        name: of the link to it.
        title: its heading.
        text: what it shows.
        figures: with their captions.
        examples: what was sent and what arrived.
        tables: with their notes.
        verdicts: whether the last column of the tables is a verdict.
        notes: a list of sentences.
        commands: names and command lines.
    """

    name: str
    title: str
    text: str = ""
    figures: Sequence[PaperFigure] = ()
    examples: Sequence[Example] = ()
    tables: Sequence[Table] = ()
    verdicts: bool = False
    notes: Sequence[str] = ()
    commands: Sequence[tuple[str, str]] = ()

    def is_empty(self) -> bool:
        """Return whether there is nothing but its heading and text."""
        tables = [table for table in self.tables if table.rows]
        return not (self.figures or self.examples or tables or self.notes or self.commands)


def write_page(
    out: Path, *, title: str, about: str, cards: Sequence[Mapping[str, str]], sections: Sequence[PageSection]
) -> None:
    """Write the page.

    Args:
        out: the HTML file.
        title: its heading.
        about: what was measured, in a few sentences.
        cards: a value and its label each.
        sections: in their order; those with nothing in them are left out.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sclmkb.evaluate"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    shown = [
        {
            **vars(section),
            "tables": [page_table(table, verdicts=section.verdicts) for table in section.tables if table.rows],
        }
        for section in sections
        if not section.is_empty()
    ]
    page = environment.get_template("mtsc.html.j2").render(title=title, about=about, cards=cards, sections=shown)
    write_bytes(out, page.encode())
