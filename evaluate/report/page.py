"""``sclmkb-eval report``: one self-contained HTML page of what was measured, and of what it was measured on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from pydantic import Field

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.files import read_json, write_bytes
from sclmkb.common.config import Settings
from sclmkb.common.errors import UserError
from sclmkb.evaluate.drawing.figures import shape_of
from sclmkb.evaluate.measure.record import Measurement
from sclmkb.evaluate.measure.retrieval import Measurements, read_rows
from sclmkb.evaluate.report.costs import NAMES, artifacts_table, checkpoints_table, costs_table
from sclmkb.evaluate.report.csi import csi_eval_section, predicted_card, predicted_section
from sclmkb.evaluate.report.examples import examples_section
from sclmkb.evaluate.report.paper import PaperSection, paper_sections
from sclmkb.evaluate.report.recipes import artifact_recipes, evaluation_recipe, system_recipes
from sclmkb.evaluate.report.retrieval import level_cards, result_figure, retrieval_sections
from sclmkb.evaluate.report.sdg import calibration_section, sdg_section
from sclmkb.evaluate.report.tables import page_table

_TITLES = {
    "claims": "The paper's claims",
    "figures": "The paper's figures",
    "conditions": "What is equal for all systems",
    "found": "What was found",
    "curves": "Retrieval over SNR",
    "systems": "Systems side by side",
    "captions": "Generated captions and the filter",
    "calibration": "How well the filter tells faithful from corrupted",
    "channel": "Predicted channel",
    "csi": "How well future CSI is predicted",
    "examples": "What a caption finds",
    "costs": "What it took",
    "hashes": "What exactly was used",
    "configurations": "Every run's configuration",
    "recipes": "How to make each row again",
}
"""Sections of the page in their order."""


class ReportSettings(Settings):
    """What the page shows."""

    title: str = Field(
        default="SC-LMKB: semantic communication with a generated knowledge base", description="heading of the page"
    )
    main_system: str = Field(default="sc-lmkb", description="system that the others are compared with")
    reference_snr_db: float = Field(default=15.0, description="SNR of the table and of the findings [dB]")
    num_examples: int = Field(default=16, description="generated captions that are shown")
    num_queries: int = Field(default=6, description="test captions that are shown with what they find")


def make_report(
    settings: ReportSettings,
    *,
    out: Path,
    evaluation: Path | None = None,
    corpus: Path | None = None,
    sdg: Path | None = None,
    predicted: Path | None = None,
    csi: Path | None = None,
    calibration: Path | None = None,
    csi_evaluation: Path | None = None,
    paper: PaperSection | None = None,
) -> None:
    """Write the page; whatever is ``None`` leaves its sections out.

    With an evaluation, its curves of mAP are also written beside the page, as an SVG file of the same name.

    Args:
        settings: what to show.
        out: the HTML file.
        evaluation: folder of ``sclmkb-eval run``.
        corpus: corpus artifact, for the pictures; needed with ``evaluation``.
        sdg: generated captions.
        predicted: predicted CSI.
        csi: CSI artifact, for its cost and its hash; it is not read.
        calibration: folder of ``sclmkb-gen calibrate``.
        csi_evaluation: folder of ``sclmkb-eval csi``.
        paper: what ``sclmkb-eval paper`` found.

    Raises:
        UserError: if something named is missing, nothing is named, or the evaluation has no measurement at the
            reference SNR.
    """
    if not (evaluation or sdg or predicted or calibration or csi_evaluation or paper):
        raise UserError(
            "nothing to report: name --eval, --sdg, --predicted, --calibration or --csi-eval, or a --preset that was"
            " run"
        )
    if evaluation and not corpus:
        raise UserError("the pictures of the evaluation are missing: name the corpus with --corpus")
    named = {"corpus": corpus, "sdg": sdg, "csi": csi, "predicted": predicted}
    artifacts = {kind: Artifact.open(path, kind, verify=kind != "csi") for kind, path in named.items() if path}
    sections: dict[str, Any] = paper_sections(paper) if paper else {}
    cards: list[dict[str, str]] = []
    measured = Measurements(evaluation) if evaluation else None
    if measured:
        sections |= _of_evaluation(settings, measured, artifacts["corpus"])
        cards += level_cards(measured.at(settings.reference_snr_db, settings.main_system))
    if sdg:
        captions = artifacts["sdg"]
        sections["captions"] = sdg_section(captions, settings.num_examples)
        counts = captions.counts()
        value = f"{counts.get('ok', 0)} of {sum(counts.values())}"
        cards.append({"value": value, "label": "training captions with an accepted generated one"})
    if calibration:
        sections["calibration"] = calibration_section(calibration)
    if predicted:
        sections["channel"] = predicted_section(artifacts["predicted"])
        cards.append(predicted_card(artifacts["predicted"]))
    if csi_evaluation:
        sections["csi"] = csi_eval_section(csi_evaluation)
    sections |= _of_runs(artifacts, measured.records[0] if measured else None, csi_evaluation, paper)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sclmkb.evaluate"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["shape"] = shape_of
    page = environment.get_template("report.html.j2").render(
        title=settings.title,
        cards=cards,
        titles={name: title for name, title in _TITLES.items() if sections.get(name)},
        has_link=bool(evaluation or paper),
        notes=sections.get("notes", []),
        **{name: sections.get(name) for name in _TITLES},
    )
    write_bytes(out, page.encode())
    if measured:
        write_bytes(out.with_suffix(".svg"), result_figure(measured, settings.main_system).encode())


def _of_evaluation(settings: ReportSettings, measured: Measurements, corpus: Artifact) -> dict[str, Any]:
    """Return the sections on retrieval."""
    record = measured.records[0]
    examples = examples_section(
        read_rows(record.folder / "retrievals.parquet"),
        corpus,
        record.systems[0].settings.model.media.form(),
        (settings.main_system, "without-both", "perfect-csi"),
        settings.num_queries,
    )
    sections = retrieval_sections(measured, settings.reference_snr_db, settings.main_system)
    return {**sections, "examples": examples if examples["queries"] else None}


def _of_runs(
    artifacts: Mapping[str, Artifact],
    measured: Measurement | None,
    csi_evaluation: Path | None,
    paper: PaperSection | None,
) -> dict[str, Any]:
    """Return the sections on costs, hashes, configurations, and how everything is made again."""
    trainings = measured.systems if measured else []
    costs, hashes, recipes = [], [], []
    if artifacts or trainings:
        costs.append(page_table(costs_table(artifacts, trainings)))
    if artifacts:
        hashes.append(page_table(artifacts_table(artifacts, measured)))
        recipes += artifact_recipes(artifacts)
    if measured:
        hashes.append(page_table(checkpoints_table(measured)))
        recipes += [*system_recipes(trainings), evaluation_recipe(measured)]
    if paper:
        costs.append(page_table(paper.costs))
    configurations = {NAMES[kind]: artifact.root / "plan.json" for kind, artifact in artifacts.items()}
    if measured:
        configurations["evaluation"] = measured.folder / "config.json"
    if csi_evaluation:
        configurations["evaluation of CSI"] = csi_evaluation / "config.json"
    return {
        "costs": costs,
        "hashes": hashes,
        "configurations": [
            {"name": name, "text": json.dumps(read_json(path), indent=1, ensure_ascii=False)}
            for name, path in configurations.items()
        ],
        "recipes": {"cells": list(paper.commands) if paper else [], "rows": recipes}
        if recipes or (paper and paper.commands)
        else None,
    }
