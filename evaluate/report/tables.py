"""Tables as the page shows them: numbers to the right, verdicts in colour."""

import re
from collections.abc import Sequence
from typing import Any

from sclmkb.evaluate.tables import Table

_NUMBER = re.compile(r"[+\-−±]?\d[\d.,]*( ?(%|dB|s|k?B|MB|GB|ms|[±×] ?.*))?$")
_NOTHING = ("", "–", "-", "not recorded", "not measured")
_TONES = (
    ("does not hold", "bad"), ("holds", "good"), ("partly", "mixed"), ("not measured", "quiet"), ("gain", "good"),
    ("loss", "bad"), ("consistent", "good"), ("contradicted", "bad"), ("undecided", "mixed"),
)  # fmt: skip


def page_table(table: Table, *, verdicts: bool = False) -> dict[str, Any]:
    """Return a table for the template.

    With ``verdicts``, the last column is a verdict in words, whose beginning decides its colour.
    """
    last = len(table.columns) - 1
    classes = ["n" if i and is_numeric([row[i] for row in table.rows]) else "" for i in range(last + 1)]
    return {
        "title": table.title,
        "columns": [{"text": name, "tone": tone} for name, tone in zip(table.columns, classes, strict=True)],
        "rows": [
            [
                {"text": cell, "tone": tone_of(cell) if verdicts and i == last else classes[i]}
                for i, cell in enumerate(row)
            ]
            for row in table.rows
        ],
        "note": table.note,
        "verdicts": verdicts,
    }


def tone_of(verdict: str) -> str:
    """Return the class of a verdict in words; other text has none."""
    return next((tone for start, tone in _TONES if verdict.lower().startswith(start)), "")


def is_numeric(cells: Sequence[str]) -> bool:
    """Return whether a column holds numbers, apart from cells that say that there is none."""
    return all(cell in _NOTHING or _NUMBER.match(cell) for cell in cells)
