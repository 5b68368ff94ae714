"""The sections of the report on generated captions: what the filter kept, and how well it was calibrated."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.files import read_json
from sclmkb.common.errors import UserError
from sclmkb.evaluate.drawing.figures import histogram


def sdg_section(sdg: Artifact, num_examples: int) -> dict[str, Any]:
    """Return acceptance, the histogram of similarities, the reasons, and examples drawn at random."""
    attempts = sdg.table("attempts").to_pylist()
    sources = {row["row_id"]: row["source_text"] for row in sdg.table("rows").to_pylist()}
    counts = sdg.counts()
    threshold = float(sdg.plan.settings["filter"]["min_similarity"])
    verdicts = Counter("kept" if row["accepted"] else row["reason"].partition(":")[0] for row in attempts)
    draw = random.Random(0)
    kept = [row for row in attempts if row["accepted"]]
    rejected = [row for row in attempts if not row["accepted"] and row["text"]]
    shown = [row for part in (kept, rejected) for row in draw.sample(part, min(num_examples // 2, len(part)))]
    return {
        "summary": (
            f"{len(attempts)} samples for {sum(counts.values())} training captions; {len(kept)} were kept"
            f" ({share(len(kept), len(attempts))}). {counts.get('ok', 0)} captions have at least one,"
            f" {counts.get('rejected', 0)} keep their source alone, {counts.get('error', 0)} ended in an error."
        ),
        "histogram": histogram(
            {
                "kept": [row["similarity"] for row in kept],
                "rejected": [row["similarity"] for row in attempts if not row["accepted"]],
            },
            threshold=threshold,
            title="cosine similarity to the source caption, eq. (24)",
            x_label="cosine similarity",
            y_label="samples",
        ),
        "reasons": [
            {"name": name, "count": count, "share": share(count, len(attempts))}
            for name, count in verdicts.most_common()
        ],
        "examples": [
            {
                "source": sources[row["row_id"]],
                "text": row["text"],
                "similarity": f"{row['similarity']:.2f}",
                "margin": f"{row['margin']:+.2f}",
                "accepted": row["accepted"],
                "verdict": "kept" if row["accepted"] else row["reason"],
            }
            for row in shown
        ],
    }


def calibration_section(folder: Path) -> dict[str, Any]:
    """Return what ``sclmkb-gen calibrate`` measured: areas under the ROC, the chosen thresholds and their errors.

    Raises:
        UserError: if the folder holds no calibration.
    """
    path = folder / "calibration.json"
    if not path.exists():
        raise UserError(f"no calibration.json in {folder}: run sclmkb-gen calibrate with --out {folder} first")
    found = read_json(path)
    held_out, chosen = found["held_out"], found["filter"]
    figures = [folder / name for name in ("roc.svg", "precision-recall.svg")]
    return {
        "summary": (
            "Faithful and corrupted texts were made by rule of training captions and scored with encoder"
            f" {chosen['encoder']}. A similarity of at least {chosen['min_similarity']:.3f} and a margin of at least"
            f" {chosen['min_margin']:.3f} were chosen on one half of the identities; on the other half the whole filter"
            f" has precision {held_out['precision']:.3f} and recall {held_out['recall']:.3f}."
        ),
        "auc": [{"name": name, "value": f"{value:.3f}"} for name, value in found["auc"].items()],
        "kinds": [
            {
                "name": kind,
                "pairs": found["num_pairs"].get(kind, 0),
                "cells": [f"{values[score]:.3f}" for score in found["auc"]],
                "accepted": share(held_out["accepted_by_kind"].get(kind, 0.0), 1),
            }
            for kind, values in found["auc_by_kind"].items()
        ],
        "figures": [inline_svg(path) for path in figures if path.exists()],
    }


def inline_svg(path: Path) -> str:
    """Return an SVG file without its XML head, to stand in a page."""
    text = path.read_text("utf-8")
    return text[text.index("<svg") :]


def share(part: float, whole: int) -> str:
    """Return a share in percent."""
    return f"{100 * part / max(whole, 1):.0f} %"
