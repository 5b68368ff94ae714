"""What ``sclmkb-eval paper`` writes from a study: figures, claims, and one page.

::

    DIR/figures/figure-N-….pdf, .svg, .png, .parquet, .csv    each figure with its numbers
    DIR/claims.parquet, .csv                                  each claim, receiver and wording
    DIR/tables.md                                             what is printed
    DIR/commands.sh                                           every command of the study, in an order that works
    DIR/report.html                                           all of it, self-contained
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pcsv

from sclmkb.common.artifacts import replacing, write_parquet
from sclmkb.common.cli import say
from sclmkb.evaluate.paper.cells import Study
from sclmkb.evaluate.paper.figures import draw_all
from sclmkb.evaluate.paper.results import Results
from sclmkb.evaluate.paper.runner import listing
from sclmkb.evaluate.paper.settings import PaperSettings
from sclmkb.evaluate.paper.tables import (
    claim_rows,
    claim_tables,
    claims_columns,
    costs_table,
    nmse_table,
    systems_table,
)

CLAIM_ROWS = pa.schema(
    [
        *((name, pa.string()) for name in ("claim", "paper", "corpus", "receiver", "wording", "verdict")),
        *((name, pa.float64()) for name in ("own", "own_half_width", "other", "other_half_width")),
        *((name, pa.float64()) for name in ("gain", "gain_low", "gain_high")),
    ]
)


def write_output(settings: PaperSettings, study: Study) -> str:
    """Write everything that there are measurements for, and return the tables of the claims as Markdown.

    Raises:
        UserError: if systems of one figure were not trained and measured alike.
    """
    results = Results(settings, study)
    drawings = draw_all(results, study.out / "figures")
    for drawing in drawings:
        if drawing.figure is None:
            say(f"paper: {drawing.name} is not drawn: {drawing.missing}")
    rows = claim_rows(results)
    claims = pa.Table.from_pylist(claims_columns(rows), schema=CLAIM_ROWS)
    write_parquet(study.out / "claims.parquet", claims)
    with replacing(study.out / "claims.csv") as temporary:
        pcsv.write_csv(claims, temporary)
    nmse = nmse_table(results)
    tables = [*claim_tables(rows), *([nmse] if nmse else []), systems_table(results), costs_table(results)]
    text = "\n".join(table.to_markdown() for table in tables)
    _write(study.out / "tables.md", text)
    _write(study.out / "commands.sh", f"{listing(study)}\n")
    return text


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, "utf-8")
