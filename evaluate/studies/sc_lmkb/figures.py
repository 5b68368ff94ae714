"""Figures 6 to 12 of the paper from what a study measured, with the numbers that are drawn beside them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from sclmkb.common.artifacts.files import write_csv, write_parquet
from sclmkb.common.tasks.retrieval import MEASURES, Measure
from sclmkb.evaluate.drawing.figures import Curve
from sclmkb.evaluate.drawing.panels import Panel, XScale, panels
from sclmkb.evaluate.drawing.styles import label_of
from sclmkb.evaluate.measure.retrieval import Measurements
from sclmkb.evaluate.predictors.figures import sector_of
from sclmkb.evaluate.predictors.sectors import Sector, sector_maps
from sclmkb.evaluate.report.paper import PaperFigure
from sclmkb.evaluate.report.retrieval import RECEIVER_WORDS, WORDING_WORDS, present
from sclmkb.evaluate.studies.sc_lmkb.plan import TRAINED, csi_name
from sclmkb.evaluate.studies.sc_lmkb.results import Results, drawn_systems
from sclmkb.evaluate.studies.sc_lmkb.settings import CorpusSettings, FigureTask

PREDICTOR_TITLES = {"cdg": "CDG", "llm4cp": "LLM4CP", "csi_llm": "Csi-LLM"}
"""How predictors are written."""

ABLATED = {"deepsc-mimo": "without-both"}
"""What a system is called in Fig. 12: with everything else equal the two are one."""

POINTS = pa.schema(
    [
        ("figure", pa.string()),
        ("corpus", pa.string()),
        ("condition", pa.string()),  # the CSI: scenario and feedback bits
        ("receiver", pa.string()),
        ("wording", pa.string()),
        ("measure", pa.string()),
        ("system", pa.string()),
        ("snr_db", pa.float64()),
        ("feedback_bits", pa.int64()),
        ("mean", pa.float64()),
        ("half_width", pa.float64()),  # of the 95 % interval over queries and seeds
    ]
)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure and what became of it: drawn, or why not."""

    name: str
    figure: PaperFigure | None
    missing: str = ""


def draw_all(results: Results, folder: Path) -> list[Drawing]:
    """Draw every figure whose cells are all done: SVG, PDF, PNG, and its numbers as Parquet and CSV.

    Raises:
        UserError: if systems of one figure were not trained and measured alike.
    """
    drawn: list[Drawing] = []
    trained, zero_shot, people = [results.trained], [results.zero_shot], results.corpora("person", ablation=True)
    swept = [csi_name(TRAINED, bits) for bits in sorted(results.settings.swept_bits)]
    tasks: tuple[FigureTask, ...] = ("person", "motion", "sound")
    for number, task in enumerate(tasks, start=6):
        for name, corpus in results.corpora(task).items():
            drawn += _curves(results, number, name, trained, results.compared(corpus), folder)
    for name, corpus in people.items():
        drawn += _curves(results, 9, name, swept, results.swept(corpus), folder)
        drawn += _curves(results, 10, name, zero_shot, results.swept(corpus), folder)
    drawn += _sectors(results, folder)
    for name, corpus in people.items():
        drawn += _curves(results, 12, name, trained, results.ablated(corpus), folder)
    return drawn


def _curves(
    results: Results, number: int, name: str, conditions: Sequence[str], cells: Sequence[str], folder: Path
) -> Iterator[Drawing]:
    """Yield one figure per receiver; one row or panel per wording.

    It shows mAP, or Rank@1, 5 and 10, over the SNR, or in Fig. 9 over the feedback bits of the conditions.
    """
    settings, corpus = results.settings, results.settings.corpora[name]
    label = f"Figure {number}, {corpus.title}"
    if missing := [cell for condition in conditions for cell in results.unmeasured(name, condition, cells)]:
        yield Drawing(name=label, figure=None, missing=_not_done(missing))
        return
    measured = [results.retrieval(name, condition, cells) for condition in conditions]
    over_bits = number == 9
    bits: Sequence[int | None] = sorted(settings.swept_bits) if over_bits else [None]
    snrs_db = [settings.swept_snr_db] if over_bits else measured[0].snrs_db
    chosen: list[Measure] = ["map"] if corpus.task == "person" else ["rank1", "rank5", "rank10"]
    for receiver in present(measured[0].results, "receiver", RECEIVER_WORDS):
        rows = [
            {**point, "figure": str(number), "corpus": name, "condition": condition, "feedback_bits": of_report}
            for wording in present(measured[0].results, "wording", WORDING_WORDS)
            for measure in chosen
            for condition, of_report, of in zip(conditions, bits, measured, strict=True)
            for snr_db in snrs_db
            for point in _points(of, snr_db, receiver, wording, measure)
        ]
        x, x_label = ("feedback_bits", "feedback bits per report") if over_bits else ("snr_db", "SNR [dB]")
        stem = folder / f"figure-{number}-{name}-{receiver}"
        svg = _draw(rows, x, x_label, "log2" if over_bits else "linear", stem, ABLATED if number == 12 else {})
        caption = _caption(results, corpus, None if over_bits else conditions[0], receiver)
        yield Drawing(name=label, figure=PaperFigure(name=f"{label} ({receiver})", caption=caption, svg=svg))


def _sectors(results: Results, folder: Path) -> Iterator[Drawing]:
    """Yield Fig. 11: NMSE of three predictors at each terminal of a sector, both scenarios."""
    measured = results.csi()
    if measured is None:
        yield Drawing(name="Figure 11", figure=None, missing=_not_done(["csi-eval"]))
        return
    named = zip(measured.artifacts, ("UMi-LOS", "UMa-NLOS"), strict=True)
    sectors = [_renamed(sector_of(measured, artifact, name)) for artifact, name in named]
    label = "NMSE [dB]: darker is worse"
    svg = sector_maps(sectors, title="", label=label, files=folder / "figure-11")
    rows = [
        {"scenario": sector.name, "predictor": name, "x_m": x, "y_m": y, "nmse_db": value}
        for sector in sectors
        for name, values in sector.values.items()
        for x, y, value in zip(sector.x_m, sector.y_m, values, strict=True)
    ]
    _write_numbers(pa.Table.from_pylist(rows), folder / "figure-11")
    caption = (
        f"NMSE of the predicted CSI at each of {len(sectors[0].x_m)} terminals of a sector, histories after"
        f" {results.settings.feedback_bits} bits of feedback per report; trained on UMi-LOS drops alone. No receiver is"
        " involved."
    )
    yield Drawing(name="Figure 11", figure=PaperFigure(name="Figure 11", caption=caption, svg=svg))


def _renamed(sector: Sector) -> Sector:
    """Return a sector with the predictors' names as they are written."""
    return replace(sector, values={PREDICTOR_TITLES.get(name, name): values for name, values in sector.values.items()})


_INTERVALS = "Bars: 95 % intervals over queries (bootstrap, an identity's together) and seeds of training."


def _points(
    measured: Measurements, snr_db: float, receiver: str, wording: str, measure: Measure
) -> Iterator[dict[str, object]]:
    at = measured.at(snr_db)
    for system in drawn_systems(at.systems):
        level = at.level(system, receiver, wording, measure)
        yield {
            "receiver": receiver,
            "wording": wording,
            "measure": measure,
            "system": system,
            "snr_db": snr_db,
            "mean": level.mean,
            "half_width": level.half_width,
        }


def _draw(
    rows: Sequence[dict[str, object]], x: str, x_label: str, x_scale: XScale, stem: Path, names: Mapping[str, str]
) -> str:
    """Draw a panel for each wording and measure, write the numbers beside, and return the figure.

    ``x`` is the column of the horizontal axis, ``stem`` the files without suffix. ``names`` has the systems that are
    drawn as another one.
    """
    table = pa.Table.from_pylist(rows, schema=POINTS)
    _write_numbers(table, stem)
    points = table.to_pylist()
    drawn = []
    for wording, measure in dict.fromkeys((row["wording"], row["measure"]) for row in points):
        of_panel = [row for row in points if (row["wording"], row["measure"]) == (wording, measure)]
        lines = []
        for system in dict.fromkeys(row["system"] for row in of_panel):
            own = [row for row in of_panel if row["system"] == system]
            name = names.get(system, system)
            lines.append(
                Curve(
                    label=label_of(name),
                    system=name,
                    x=[row[x] for row in own],
                    y=[row["mean"] for row in own],
                    error=[row["half_width"] for row in own],
                )
            )
        drawn.append(Panel(title=WORDING_WORDS[wording], curves=lines, y_label=MEASURES[measure]))
    columns = 3 if len({panel.y_label for panel in drawn}) == 3 else 2
    return panels(drawn, x_label=x_label, x_scale=x_scale, columns=columns, files=stem)


def _write_numbers(table: pa.Table, stem: Path) -> None:
    write_parquet(stem.with_suffix(".parquet"), table)
    write_csv(stem.with_suffix(".csv"), table)


def _caption(results: Results, corpus: CorpusSettings, condition: str | None, receiver: str) -> str:
    """Return what a figure of one condition shows, or of all numbers of feedback bits."""
    settings = results.settings
    if condition is None:
        return (
            f"{corpus.title}: mAP over the feedback bits per report, UMi-LOS, {settings.swept_snr_db:g} dB. All"
            f" systems and predictors were trained at {settings.feedback_bits} bits. {RECEIVER_WORDS[receiver]}."
            f" {_INTERVALS}"
        )
    zero_shot = " Nothing was trained there." if condition == results.zero_shot else ""
    return (
        f"{corpus.title}, {condition.replace('-', ' ')}s of feedback per report, {RECEIVER_WORDS[receiver]}.{zero_shot}"
        f" Mean over {len(settings.seeds)} seeds of training. {_INTERVALS}"
    )


def _not_done(cells: Sequence[str]) -> str:
    more = f" and {len(cells) - 1} more" if len(cells) > 1 else ""
    return f"{cells[0]}{more} not measured"
