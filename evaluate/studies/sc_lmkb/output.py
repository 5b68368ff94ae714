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

from sclmkb.common.artifacts.files import write_bytes, write_csv, write_parquet
from sclmkb.common.console import say
from sclmkb.common.studies.cells import Study
from sclmkb.evaluate.measure.fairness import conditions_table
from sclmkb.evaluate.report.page import ReportSettings, make_report
from sclmkb.evaluate.report.paper import PaperSection
from sclmkb.evaluate.studies.costs import study_costs
from sclmkb.evaluate.studies.sc_lmkb.figures import draw_all
from sclmkb.evaluate.studies.sc_lmkb.plan import CSI_EVAL, eval_name
from sclmkb.evaluate.studies.sc_lmkb.results import Results
from sclmkb.evaluate.studies.sc_lmkb.settings import MAIN, PaperSettings
from sclmkb.evaluate.studies.sc_lmkb.tables import (
    claim_rows,
    claim_tables,
    claims_columns,
    nmse_table,
    systems_table,
)
from sclmkb.evaluate.tables import Table

CLAIM_ROWS = pa.schema(
    [
        *((name, pa.string()) for name in ("claim", "paper", "corpus", "receiver", "wording", "verdict")),
        *((name, pa.float64()) for name in ("own", "own_half_width", "other", "other_half_width")),
        *((name, pa.float64()) for name in ("gain", "gain_low", "gain_high")),
    ]
)


_NOTES = (
    "Receiver literal and queries worded otherwise are nearest to the paper, and come first. Gains are relative, with"
    " 95 % intervals over queries and seeds of training. holds: the gain is clear and its interval reaches the least"
    " that the paper claims for any of its corpora; partly: clear, and smaller; does not hold: not clear, or the other"
    " way round.",
    "The paper's gains are of its own corpora and encoders. On other ones a verdict says whether the effect shows"
    " there, not whether the paper measured rightly.",
    "Each predictor of CSI was trained once; intervals hold nothing of what another training of it would give.",
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
    write_csv(study.out / "claims.csv", claims)
    nmse = nmse_table(results)
    tables = [*claim_tables(rows), *([nmse] if nmse else [])]
    conditions, costs = [systems_table(results), *_conditions(results)], study_costs(study)
    text = "\n".join(table.to_markdown() for table in (*tables, *conditions, costs))
    write_bytes(study.out / "tables.md", text.encode())
    section = PaperSection(
        claims=tables,
        figures=[drawing.figure for drawing in drawings if drawing.figure is not None],
        conditions=conditions,
        costs=costs,
        commands=[(cell.name, cell.line()) for cell in study.cells.values()],
        notes=[
            *_NOTES,
            *(f"{name} is left out: {why}." for name, why in study.missing.items()),
            *dict.fromkeys(f"{d.name} is not drawn: {d.missing}." for d in drawings if d.figure is None),
        ],
    )
    _write_report(results, section)
    study.write_listing()  # last: says what was drawn
    return text


def _conditions(results: Results) -> list[Table]:
    """Return what all systems of each corpus have in common, as far as they are measured."""
    tables = []
    for name, corpus in results.settings.corpora.items():
        cells = results.compared(corpus)
        if name not in results.study.missing and not results.unmeasured(name, results.trained, cells):
            shared = results.retrieval(name, results.trained, cells).conditions
            if shared is not None:
                tables.append(conditions_table(shared, corpus.title))
    return tables


def _write_report(results: Results, section: PaperSection) -> None:
    """Write the page; evidence on captions, CSI and single queries is that of the first corpus that has it."""
    study = results.study
    corpus = next((name for name in results.settings.corpora if name not in study.missing), "")

    nearest = min(results.settings.snrs_db, key=lambda snr_db: abs(snr_db - 15))

    def made(name: str) -> Path | None:
        return study.cells[name].out if name in results.done else None

    source = made(f"{corpus}/corpus")
    make_report(
        ReportSettings(title="SC-LMKB: the paper's figures and claims", reference_snr_db=nearest),
        evaluation=made(eval_name(corpus, results.trained, MAIN)) if source else None,
        corpus=source,
        sdg=made(f"{corpus}/sdg"),
        csi=made(f"csi/{results.trained}"),
        predicted=made(f"predicted/cdg/{results.trained}"),
        csi_evaluation=made(CSI_EVAL),
        out=study.out / "report.html",
        paper=section,
    )
