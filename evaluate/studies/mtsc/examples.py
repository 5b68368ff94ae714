"""Examples of a study to look at: what was sent, and what arrives at some SNRs, by the main system and the others."""

import base64
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.tasks.media.base import TextTask
from sclmkb.common.tasks.media.data import corpus_for
from sclmkb.common.tasks.media.samples import load_text_samples
from sclmkb.common.tasks.media.trained import MEDIA_TASKS
from sclmkb.evaluate.drawing.styles import label_of
from sclmkb.evaluate.report.examples import drawn_items
from sclmkb.evaluate.report.multitask import Example, ExampleCell
from sclmkb.evaluate.studies.mtsc.settings import MAIN

SHOWN_SNRS_DB = (-6.0, 0.0, 6.0, 12.0)
_SYSTEMS = (MAIN, "u-deepsc", "digital", "digital-text", "digital-packed")
_COUNT = 6
"""Samples that are shown of a task."""
_MOST_REFERENCES = 3


def examples_of(task: str, roots: Sequence[Path], corpora: Sequence[Artifact], split: str) -> list[Example]:
    """Return some samples of a task with what arrives of them, of the first channel and seed.

    Args:
        task: by name.
        roots: folders of ``sclmkb-eval mtsc``.
        corpora: of the tasks.
        split: that was measured.
    """
    rows = _rows(task, roots)
    by_sample: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_sample[row["row_id"]].append(row)
    if not by_sample:
        return []
    corpus, of = corpus_for(task, corpora), MEDIA_TASKS[task]
    if isinstance(of, TextTask):
        return _texts(of, corpus, split, by_sample)
    names = [name for name in by_sample if all(row["picture"] for row in by_sample[name] if row["system"] == MAIN)]
    chosen = _spread(names, {name: name for name in names})
    shown = drawn_items(corpus, split, set(chosen))
    return [
        Example(picture=shown[name]["uri"], alt=shown[name]["alt"], title="", said=(), **_grid(by_sample[name]))
        for name in chosen
    ]


def _rows(task: str, roots: Sequence[Path]) -> list[dict[str, Any]]:
    """Return the rows of the main measure that are shown."""
    kept = []
    for root in roots:
        items = pq.read_table(root / "items.parquet", filters=_filters(task))
        if items.num_rows:
            first = items.filter(pc.equal(items["channel"], min(items["channel"].unique().to_pylist())))
            kept += first.filter(pc.equal(first["seed"], pc.min(first["seed"]))).to_pylist()
    return kept


def _filters(task: str) -> Any:
    field = pc.field
    return (
        (field("task") == task)
        & (field("measure") == MEDIA_TASKS[task].main)
        & (field("inputs") == "own")
        & field("system").isin(_SYSTEMS)
        & field("snr_db").isin(SHOWN_SNRS_DB)
    )


def _texts(
    task: TextTask, corpus: Artifact, split: str, by_sample: Mapping[str, list[dict[str, Any]]]
) -> list[Example]:
    items = corpus.table("items", split, ["item_id"])["item_id"].to_pylist()
    samples = load_text_samples(corpus, split, task, items)
    place = {row_id: i for i, row_id in enumerate(samples.row_ids)}
    names = [name for name in by_sample if name in place]
    chosen = _spread(names, {name: samples.groups[place[name]] for name in names})
    item_of = {name: items[int(samples.item[place[name]])] for name in chosen}
    shown = drawn_items(corpus, split, set(item_of.values()))
    found = []
    for name in chosen:
        asked, said = samples.prompts[place[name]], list(dict.fromkeys(samples.references[place[name]]))
        title = asked if asked != task.prompt else ""
        drawn = shown[item_of[name]]
        found.append(
            Example(
                picture=drawn["uri"],
                alt=drawn["alt"],
                title=title,
                said=tuple(said[:_MOST_REFERENCES]),
                **_grid(by_sample[name], is_right=not task.prompt),
            )
        )
    return found


def _spread(names: Sequence[str], group_of: Mapping[str, str]) -> list[str]:
    """Return names spread evenly over those of different groups, in order."""
    first = list({group_of[name]: name for name in reversed(names)}.values())[::-1]
    count = min(_COUNT, len(first))
    return [first[i * len(first) // count] for i in range(count)]


def _grid(rows: Sequence[Mapping[str, Any]], *, is_right: bool | None = None) -> dict[str, Any]:
    """Return the cells of an example: a row for each system, a column for each SNR."""
    snrs_db = sorted({row["snr_db"] for row in rows})
    at = {(row["system"], row["snr_db"]): row for row in rows}
    systems = [name for name in _SYSTEMS if any(row["system"] == name for row in rows)]
    lines = [
        (label_of(name), [_cell(at.get((name, snr_db)), bool(is_right)) for snr_db in snrs_db]) for name in systems
    ]
    return {"columns": [f"{snr_db:g} dB" for snr_db in snrs_db], "rows": lines}


def _cell(row: Mapping[str, Any] | None, is_judged: bool) -> ExampleCell:
    if row is None:
        return ExampleCell()
    if row.get("picture"):
        data = base64.b64encode(row["picture"]).decode()
        return ExampleCell(picture=f"data:image/png;base64,{data}", note=f"{row['value']:.1f} dB")
    tone = ("good" if row["value"] == 1 else "bad") if is_judged else ""
    return ExampleCell(text=row["output"] or "–", tone=tone)
