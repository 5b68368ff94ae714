"""``sclmkb-eval report``: one self-contained HTML page of what was measured, and of what it was measured on."""

import base64
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from pydantic import TypeAdapter

from sclmkb.common.artifacts import Artifact, read_json, replacing
from sclmkb.common.config import Settings
from sclmkb.common.corpora.media_store import AudioForm, MediaForm, MediaStore, MotionForm, media_kind
from sclmkb.common.errors import UserError
from sclmkb.common.models.media_encoders import MediaEncoderSettings
from sclmkb.evaluate.draw_media import draw_picture, to_png
from sclmkb.evaluate.figures import Curve, bars, curves
from sclmkb.evaluate.items import Files, draw_stored
from sclmkb.evaluate.report_csi import csi_eval_section
from sclmkb.evaluate.report_sdg import calibration_section, sdg_section
from sclmkb.evaluate.retrieval import MeasuredRetrieval, ordered_systems, read_rows
from sclmkb.evaluate.statistics import Interval, mean_and_deviation

Row = Mapping[str, Any]
_SHOWN_SIDE = 104
"""Height of a drawn item [pixels]; it is shown at half of that."""
_PNG = b"\x89PNG\r\n\x1a\n"

RECEIVERS = {
    "literal": "literal: U and Σ of the transmitter's CSI",
    "dmrs": "dmrs: channel estimated from pilots, LMMSE",
}
WORDINGS = {"same": "captions worded as in training", "changed": "captions worded otherwise"}


class ReportSettings(Settings):
    """What the page shows.

    Attributes:
        title: heading of the page.
        main_system: the system that the others are compared with.
        reference_snr_db: SNR of the table and of the findings [dB].
        num_examples: how many generated captions are shown.
        num_queries: how many test captions are shown with what they find.
    """

    title: str = "SC-LMKB: semantic communication with a generated knowledge base"
    main_system: str = "sc-lmkb"
    reference_snr_db: float = 15.0
    num_examples: int = 16
    num_queries: int = 6


def make_report(
    settings: ReportSettings,
    *,
    evaluation: Path | None,
    corpus: Path | None,
    sdg: Path | None,
    predicted: Path | None,
    calibration: Path | None,
    csi_evaluation: Path | None,
    out: Path,
) -> None:
    """Write the page; whatever is ``None`` leaves its sections out.

    Args:
        settings: what to show.
        evaluation: folder of ``sclmkb-eval run``.
        corpus: corpus artifact, for the pictures; needed with ``evaluation``.
        sdg: generated captions.
        predicted: predicted CSI.
        calibration: folder of ``sclmkb-gen calibrate``.
        csi_evaluation: folder of ``sclmkb-eval csi``.
        out: the HTML file.

    Raises:
        UserError: if something named is missing, nothing is named, or the evaluation has no measurement at the
            reference SNR.
    """
    if not (evaluation or sdg or predicted or calibration or csi_evaluation):
        raise UserError(
            "nothing to report: name --eval, --sdg, --predicted, --calibration or --csi-eval, or a --preset that was"
            " run"
        )
    if evaluation and not corpus:
        raise UserError("the pictures of the evaluation are missing: name the corpus with --corpus")
    predicted_artifact = Artifact.open(predicted, "predicted") if predicted else None
    sdg_artifact = Artifact.open(sdg, "sdg") if sdg else None
    configurations = {
        "evaluation": evaluation and evaluation / "config.json",
        "corpus": corpus and corpus / "plan.json",
        "generated captions": sdg and sdg / "plan.json",
        "predicted CSI": predicted and predicted / "plan.json",
        "evaluation of CSI": csi_evaluation and csi_evaluation / "config.json",
    }
    measured = _evaluation(settings, evaluation, corpus) if evaluation and corpus else None
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sclmkb.evaluate"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html.j2").render(
        title=settings.title,
        cards=_cards(measured["results"] if measured else [], settings, sdg_artifact, predicted_artifact),
        measured=measured,
        sdg=sdg_section(sdg_artifact, settings.num_examples) if sdg_artifact else None,
        calibration=calibration_section(calibration) if calibration else None,
        csi=_csi_section(predicted_artifact) if predicted_artifact else None,
        csi_evaluation=csi_eval_section(csi_evaluation) if csi_evaluation else None,
        runs=[{"name": name, "text": _configuration(path)} for name, path in configurations.items() if path],
    )
    with replacing(out) as temporary:
        temporary.write_text(page, "utf-8")


def _evaluation(settings: ReportSettings, evaluation: Path, corpus: Path) -> dict[str, Any]:
    """Return what the page shows of retrieval."""
    results = read_rows(evaluation / "results.parquet")
    snr_db = settings.reference_snr_db
    if not any(row["snr_db"] == snr_db for row in results):
        measured = sorted({row["snr_db"] for row in results})
        raise UserError(f"nothing was measured at {snr_db} dB, only at {measured}: set reference_snr_db to one of them")
    systems = ordered_systems(results, settings.main_system)
    num_seeds = len({row["seed"] for row in results})
    corpus_artifact = Artifact.open(corpus, "corpus")
    return {
        "results": results,
        "findings": _findings(MeasuredRetrieval(evaluation, snr_db, settings.main_system)),
        "findings_note": (
            f"mAP of {settings.main_system} at {snr_db:g} dB minus that of the system without it, mean over {num_seeds}"
            " training seeds, with a 95 % interval over queries (paired bootstrap) and seeds (deviation pooled over"
            " systems whose CSI is old, and over the others). Where the interval holds 0 nothing is claimed. Test"
            " captions and channels are the same for all."
        ),
        "curves": [
            _curve_figure(results, systems, receiver, wording)
            for receiver in _present(results, "receiver", RECEIVERS)
            for wording in _present(results, "wording", WORDINGS)
        ],
        "curves_note": (
            f"Error bars: ± one standard deviation over {num_seeds} seeds of training. A system trained with receiver"
            " 'both' (see the configurations) sends half of its samples through either receiver, so what it learns"
            " less well through one shows under the other too; the error of the detected symbols below does not depend"
            " on that."
        ),
        "symbol_errors": _symbol_figures(read_rows(evaluation / "symbol_mse.parquet"), settings.main_system),
        "reference_snr": f"{snr_db:g}",
        "tables": [_table(results, systems, receiver, snr_db) for receiver in _present(results, "receiver", RECEIVERS)],
        "attribution": corpus_artifact.plan["notes"].get("attribution", ""),
        **_query_section(
            read_rows(evaluation / "retrievals.parquet"),
            corpus_artifact,
            _media_form(evaluation),
            (settings.main_system, "without-both", "perfect-csi"),
            settings.num_queries,
        ),
    }


def _present(results: Iterable[Row], column: str, known: Iterable[str]) -> list[str]:
    found = {row[column] for row in results}
    return [name for name in known if name in found]


def _select(results: Iterable[Row], **wanted: Any) -> list[Row]:
    return [row for row in results if all(row[key] == value for key, value in wanted.items())]


def _curve_figure(results: Sequence[Row], systems: Sequence[str], receiver: str, wording: str) -> str:
    lines = []
    for system in systems:
        at: dict[float, list[float]] = defaultdict(list)
        for row in _select(results, system=system, receiver=receiver, wording=wording):
            at[row["snr_db"]].append(row["map"])
        points = [(snr, *mean_and_deviation(values)) for snr, values in sorted(at.items())]
        if points:
            x, y, error = zip(*points, strict=True)
            lines.append(Curve(label=system, x=x, y=y, error=error))
    return curves(lines, title=f"{WORDINGS[wording]} ({receiver} receiver)", x_label="SNR [dB]", y_label="mAP")


def _symbol_figures(rows: Sequence[Row], main: str) -> list[str]:
    """Draw the error of the detected symbols, one line a CSI source, one figure a receiver."""
    figures = []
    for receiver in _present(rows, "receiver", RECEIVERS):
        lines = []
        for system in (main, "without-cdg", "perfect-csi"):
            at: dict[float, list[float]] = defaultdict(list)
            for row in _select(rows, receiver=receiver, system=system):
                at[row["snr_db"]].append(row["symbol_mse"])
            if at:
                source = _select(rows, system=system)[0]["csi_source"]
                x = sorted(at)
                lines.append(Curve(label=f"{source} CSI", x=x, y=[_db(at[snr]) for snr in x], error=[0.0] * len(x)))
        title = f"error of the detected symbols ({receiver} receiver)"
        figures.append(curves(lines, title=title, x_label="SNR [dB]", y_label="symbol MSE [dB]", from_zero=False))
    return figures


def _table(results: Sequence[Row], systems: Sequence[str], receiver: str, snr_db: float) -> dict[str, Any]:
    measures = {"map": "mAP", "rank1": "R@1", "rank5": "R@5", "rank10": "R@10"}
    wordings = _present(results, "wording", WORDINGS)
    rows = []
    for system in systems:
        found = _select(results, system=system, receiver=receiver, snr_db=snr_db)
        if not found:
            continue
        cells = []
        for wording in wordings:
            for measure in measures:
                mean, deviation = mean_and_deviation([row[measure] for row in _select(found, wording=wording)])
                cells.append(f"{mean:.3f} ± {deviation:.3f}" if measure == "map" else f"{mean:.3f}")
        sdg = f"yes ({found[0]['fusion']})" if found[0]["sdg"] else "no"
        rows.append({"system": system, "csi_source": found[0]["csi_source"], "sdg": sdg, "cells": cells})
    columns = [f"{name}, {wording}" for wording in wordings for name in measures.values()]
    return {"receiver": RECEIVERS[receiver], "columns": columns, "rows": rows}


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
        for receiver in _present(measured.results, "receiver", RECEIVERS)
        for wording in _present(measured.results, "wording", WORDINGS)
    ]
    rows = []
    for reference, what in comparisons.items():
        if {reference, measured.main} <= set(measured.systems):
            found = [measured.difference(reference, *condition) for condition in conditions]
            rows.append({"what": what, "cells": [_finding(interval) for interval in found]})
    columns = [f"{receiver} receiver, {WORDINGS[wording]}" for receiver, wording in conditions]
    return {"columns": columns, "rows": rows}


def _finding(interval: Interval) -> dict[str, str]:
    tone = {"gain": "good", "loss": "bad"}.get(interval.verdict, "")
    return {"text": interval.text(3, signed=True), "verdict": interval.verdict, "tone": tone}


def _cards(
    results: Sequence[Row], settings: ReportSettings, sdg: Artifact | None, predicted: Artifact | None
) -> list[dict[str, str]]:
    cards = []
    for wording in _present(results, "wording", WORDINGS):
        found = _select(
            results, system=settings.main_system, receiver="literal", wording=wording, snr_db=settings.reference_snr_db
        )
        if found:
            mean, _ = mean_and_deviation([row["map"] for row in found])
            label = f"mAP of {settings.main_system} at {settings.reference_snr_db:g} dB, {WORDINGS[wording]}"
            cards.append({"value": f"{mean:.3f}", "label": label})
    if sdg is not None:
        counts = sdg.counts()
        total = sum(counts.values())
        value = f"{counts.get('ok', 0)} of {total}"
        cards.append({"value": value, "label": "training captions with an accepted generated one"})
    if predicted is not None:
        rows = predicted.table("predicted", "test", columns=["nmse", "nmse_ar", "nmse_persistence"]).to_pydict()
        value = f"{_db(rows['nmse']):.1f} dB"
        label = f"test NMSE of CDG; AR(8) {_db(rows['nmse_ar']):.1f}, stale {_db(rows['nmse_persistence']):.1f}"
        cards.append({"value": value, "label": label})
    return cards


def _db(ratios: Sequence[float]) -> float:
    """Return 10 log10 of the mean of per-sample ratios: never a mean of dB."""
    return 10 * math.log10(sum(ratios) / len(ratios))


def _csi_section(predicted: Artifact) -> dict[str, Any]:
    rows = predicted.table(
        "predicted",
        "test",
        columns=["predictor", "pilot_snr_db", "speed_kmh", "nmse", "nmse_ar", "nmse_persistence"],
    ).to_pylist()
    bins: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        bins[5 * round(row["pilot_snr_db"] / 5)].append(row)
    series = {"stale (persistence)": "nmse_persistence", "AR(8)": "nmse_ar", rows[0]["predictor"].upper(): "nmse"}
    speeds = sorted(row["speed_kmh"] for row in rows)
    return {
        "summary": (
            f"{len(rows)} test drops that no part was trained on, {speeds[0]:.0f} to {speeds[-1]:.0f} km/h. NMSE is"
            " 10 log10 of the mean of the per-sample ratios against the clean future; lower is better."
        ),
        "bars": bars(
            [f"{center} dB" for center in sorted(bins)],
            {
                name: [_db([row[column] for row in bins[center]]) for center in sorted(bins)]
                for name, column in series.items()
            },
            title="prediction error of the next 4 samples",
            x_label="pilot SNR (nearest 5 dB)",
            y_label="NMSE [dB]",
        ),
    }


def _query_section(
    retrievals: Sequence[Row],
    corpus: Artifact,
    media: MediaForm | None,
    systems: Sequence[str],
    num_queries: int,
) -> dict[str, Any]:
    first = retrievals[0]
    by_query: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for system in systems:
        for row in _select(retrievals, system=system, seed=first["seed"]):
            by_query[row["text"], row["wording"]].append(row)
    chosen = list(by_query.items())[:num_queries]
    needed = {item for _, rows in chosen for row in rows for item in row["item_ids"]}
    pictures = _drawn(corpus, media, needed) if needed else {}
    queries = [
        {
            "text": text,
            "wording": wording,
            "rankings": [
                {
                    "system": row["system"],
                    "pictures": [
                        {**pictures[item], "hit": hit} for item, hit in zip(row["item_ids"], row["hits"], strict=True)
                    ],
                }
                for row in rows
            ],
        }
        for (text, wording), rows in chosen
    ]
    note = f"{first['receiver']} receiver, {first['snr_db']:g} dB, seed {first['seed']}"
    return {"queries": queries, "queries_note": note}


def _drawn(corpus: Artifact, form: MediaForm | None, wanted: set[str]) -> dict[str, dict[str, str]]:
    """Draw items of the test split by their ids, as data of a page; what cannot be read is a grey field."""
    files = Files(corpus, "test")
    kind = media_kind(corpus)
    store = None
    if kind != "pictures":
        store = MediaStore.open(corpus, "test", form or (MotionForm() if kind == "motion" else AudioForm()))
    place = {item: i for i, item in enumerate(store.item_ids)} if store is not None else {}
    grey = np.full((3, 8, 8), 190, np.uint8)
    drawn: dict[str, dict[str, str]] = {}
    for item in wanted & set(files.identity):
        original = files.read(item) if store is None else None
        if store is not None and item in place:
            image = draw_stored(store, place[item], corpus.plan["notes"])
        else:
            image = draw_picture(grey, original)
        image.thumbnail((4 * _SHOWN_SIDE, _SHOWN_SIDE))
        png = to_png(image)
        if original is not None and original.startswith(_PNG) and len(original) < len(png):
            png = original  # small enough as it is
        data = base64.b64encode(png).decode()
        alt = f"{files.identity[item]}, {files.source[item]}"
        drawn[item] = {"uri": f"data:image/png;base64,{data}", "alt": alt}
    return drawn


def _media_form(evaluation: Path) -> MediaForm | None:
    """Return how the first checkpoint that was measured takes items, so that they need not be decoded again."""
    config = read_json(evaluation / "config.json") if (evaluation / "config.json").exists() else {}
    for checkpoint in config.get("checkpoints", ()):
        if media := checkpoint["settings"]["model"].get("media"):
            settings: MediaEncoderSettings = TypeAdapter(MediaEncoderSettings).validate_python(media)
            return settings.form()
    return None


def _configuration(path: Path) -> str:
    config = read_json(path)
    for shard in config.get("shards", ()):
        shard["row_ids"] = f"{len(shard['row_ids'])} rows"
    return json.dumps(config, indent=1, ensure_ascii=False)
