"""The sections of the report on retrieval over the link: what was found, curves, and systems side by side."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from sclmkb.evaluate.drawing.figures import Curve, curves
from sclmkb.evaluate.drawing.panels import Panel, panels
from sclmkb.evaluate.drawing.styles import label_of
from sclmkb.evaluate.intervals import Interval, mean_and_deviation, to_db
from sclmkb.evaluate.measure.retrieval import MeasuredRetrieval, Measurements, ordered_systems, read_rows, select

Row = Mapping[str, Any]

RECEIVER_WORDS = {
    "literal": "receiver literal: it detects with U and Σ of the transmitter's CSI",
    "dmrs": "receiver dmrs: it estimates the channel from pilots and detects with LMMSE",
}
WORDING_WORDS = {"same": "captions worded as in training", "changed": "captions worded otherwise"}


def retrieval_sections(measured: Measurements, snr_db: float, main: str) -> dict[str, Any]:
    """Return the sections of the page on a measurement; findings and tables are at one SNR [dB].

    Raises:
        UserError: if something is missing, or was not measured at that SNR.
    """
    at = measured.at(snr_db, main)
    results, systems, task = measured.results, ordered_systems(measured.results, main), measured.task
    num_seeds = len({row["seed"] for row in results})
    receivers = present(results, "receiver", RECEIVER_WORDS)
    return {
        "found": {
            "table": _findings(at),
            "note": (
                f"{task.measures[task.main]} of {label_of(main)} at {snr_db:g} dB minus that of the system without it,"
                f" mean over {num_seeds} training seeds, with a 95 % interval over queries (paired bootstrap) and seeds"
                " (deviation pooled over systems whose CSI is old, and over the others). Where the interval holds 0"
                " nothing is claimed. Test captions and channels are the same for all."
            ),
        },
        "curves": {
            "figures": [
                curves(
                    _lines(measured, systems, receiver, wording),
                    title=f"{WORDING_WORDS[wording]} ({receiver} receiver)",
                    x_label="SNR [dB]",
                    y_label=task.measures[task.main],
                )
                for receiver in receivers
                for wording in present(results, "wording", WORDING_WORDS)
            ],
            "note": (
                f"Error bars: ± one standard deviation over {num_seeds} seeds of training. A system trained with"
                " receiver 'both' (see the configurations) sends half of its samples through either receiver, so what"
                " it learns less well through one shows under the other too; the error of the detected symbols below"
                " does not depend on that."
            ),
            "symbol_errors": _symbol_figures(read_rows(measured.records[0].folder / "symbol_mse.parquet"), main),
        },
        "systems": {"tables": [_table(at, receiver) for receiver in receivers], "snr": f"{snr_db:g}"},
    }


def level_cards(at: MeasuredRetrieval) -> list[dict[str, str]]:
    """Return the mean of the main measure of the main system over its seeds, literal receiver, for each wording."""
    measure, cards = at.task.main, []
    for wording in present(select(at.results, system=at.main, receiver="literal"), "wording", WORDING_WORDS):
        label = f"{at.task.measures[measure]} of {label_of(at.main)} at {at.snr_db:g} dB, {WORDING_WORDS[wording]}"
        cards.append({"value": f"{fmean(at.values(at.main, 'literal', wording)):.3f}", "label": label})
    return cards


def present(results: Iterable[Row], column: str, known: Iterable[str]) -> list[str]:
    """Return those of the known values that a column has, in their order."""
    found = {row[column] for row in results}
    return [name for name in known if name in found]


def result_figure(measured: Measurements, main: str) -> str:
    """Return an SVG file with the main measure of all systems over SNR, one panel per wording, of one receiver.

    The system ``main`` comes first in the legend.
    """
    results, task = measured.results, measured.task
    label = task.measures[task.main]
    systems, receiver = ordered_systems(results, main), present(results, "receiver", RECEIVER_WORDS)[0]
    drawn = [
        Panel(title=WORDING_WORDS[wording], curves=_lines(measured, systems, receiver, wording), y_label=label)
        for wording in present(results, "wording", WORDING_WORDS)
    ]
    return panels(drawn, x_label="SNR [dB]", columns=2)


def _lines(measured: Measurements, systems: Sequence[str], receiver: str, wording: str) -> list[Curve]:
    lines = []
    for system in systems:
        at: dict[float, list[float]] = defaultdict(list)
        for row in select(measured.results, system=system, receiver=receiver, wording=wording):
            at[row["snr_db"]].append(row[measured.task.main])
        points = [(snr, *mean_and_deviation(values)) for snr, values in sorted(at.items())]
        if points:
            x, y, error = zip(*points, strict=True)
            lines.append(Curve(label=label_of(system), system=system, x=x, y=y, error=error))
    return lines


def _symbol_figures(rows: Sequence[Row], main: str) -> list[str]:
    """Draw the error of the detected symbols, one line per CSI source, one figure per receiver."""
    figures = []
    for receiver in present(rows, "receiver", RECEIVER_WORDS):
        lines = []
        for system in (main, "without-cdg", "perfect-csi"):
            at: dict[float, list[float]] = defaultdict(list)
            for row in select(rows, receiver=receiver, system=system):
                at[row["snr_db"]].append(row["symbol_mse"])
            if at:
                source = select(rows, system=system)[0]["csi_source"]
                x = sorted(at)
                y = to_db([fmean(at[snr]) for snr in x]).tolist()
                lines.append(Curve(label=f"{source} CSI", x=x, y=y, error=[0.0] * len(x)))
        title = f"error of the detected symbols ({receiver} receiver)"
        figures.append(curves(lines, title=title, x_label="SNR [dB]", y_label="symbol MSE [dB]", from_zero=False))
    return figures


def _table(at: MeasuredRetrieval, receiver: str) -> dict[str, Any]:
    task, measures = at.task, {name: at.task.short(name) for name in at.task.measures}
    wordings = present(at.results, "wording", WORDING_WORDS)
    rows = []
    for system in at.systems:
        found = select(at.results, system=system, receiver=receiver)
        if not found:
            continue
        cells = []
        for wording in wordings:
            for measure in measures:
                mean, deviation = mean_and_deviation(at.values(system, receiver, wording, measure))
                cells.append(f"{mean:.3f} ± {deviation:.3f}" if measure == task.main else f"{mean:.3f}")
        sdg = f"yes ({found[0]['fusion']})" if found[0]["sdg"] else "no"
        rows.append({"system": label_of(system), "csi_source": found[0]["csi_source"], "sdg": sdg, "cells": cells})
    columns = [f"{name}, {wording}" for wording in wordings for name in measures.values()]
    return {"receiver": RECEIVER_WORDS[receiver], "columns": columns, "rows": rows}


def _findings(measured: MeasuredRetrieval) -> dict[str, Any]:
    """Return the comparisons as a table: what in the rows, receiver and wording in the columns."""
    comparisons = {
        "without-cdg": "predicted instead of stale CSI (CDG)",
        "without-sdg": "generated captions (SDG)",
        "without-both": "both together",
        "perfect-csi": "predicted instead of perfect CSI",
    }
    conditions = [
        (receiver, wording)
        for receiver in present(measured.results, "receiver", RECEIVER_WORDS)
        for wording in present(measured.results, "wording", WORDING_WORDS)
    ]
    rows = []
    for reference, what in comparisons.items():
        if {reference, measured.main} <= set(measured.systems):
            found = [measured.difference(reference, *condition) for condition in conditions]
            rows.append({"what": what, "cells": [_finding(interval) for interval in found]})
    columns = [f"{receiver} receiver, {WORDING_WORDS[wording]}" for receiver, wording in conditions]
    return {"columns": columns, "rows": rows}


def _finding(interval: Interval) -> dict[str, str]:
    tone = {"gain": "good", "loss": "bad"}.get(interval.verdict, "")
    return {"text": interval.text(3, signed=True), "verdict": interval.verdict, "tone": tone}
