"""The tables of a measurement: what says what was measured, and the columns that the task adds."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from jaxtyping import Int
from torch import Tensor

from sclmkb.common.tasks.base import Scores, Task, chosen_scores
from sclmkb.common.tasks.retrieval_corpus import SAME_WORDING, RetrievalSplit

Rows = list[dict[str, Any]] | Mapping[str, Any]
"""Rows, or columns of equal length."""


def tables_of(task: Task) -> dict[str, pa.Schema]:
    """Return the schemas of the tables of ``sclmkb-eval run``, by name."""
    return {
        "results": pa.schema(
            [
                ("system", pa.string()),
                ("csi_source", pa.string()),
                ("sdg", pa.bool_()),
                ("fusion", pa.string()),
                ("receiver", pa.string()),
                ("seed", pa.int64()),
                ("snr_db", pa.float64()),
                ("wording", pa.string()),  # "same" as in training, "changed": all others together, or one of the others
                ("queries", pa.int64()),
                *((name, pa.float64()) for name in task.measures),
            ]
        ),
        "symbol_mse": pa.schema(
            [
                ("system", pa.string()),
                ("csi_source", pa.string()),
                ("receiver", pa.string()),
                ("seed", pa.int64()),
                ("snr_db", pa.float64()),
                ("symbol_mse", pa.float64()),  # mean over queries of ‖F - F^‖² / ‖F‖², linear
                ("spectral_efficiency", pa.float64()),  # bit per channel use, mean over queries' drops
            ]
        ),
        "queries": pa.schema(
            [
                ("system", pa.string()),
                ("seed", pa.int64()),
                ("receiver", pa.string()),
                ("snr_db", pa.float64()),
                ("row_id", pa.string()),  # of the caption
                ("identity", pa.int64()),  # number within the test split
                ("wording", pa.string()),
                *task.score_columns.items(),
            ]
        ),
        "retrievals": pa.schema(
            [
                ("query", pa.int64()),
                ("text", pa.string()),
                ("wording", pa.string()),
                ("system", pa.string()),
                ("seed", pa.int64()),
                ("receiver", pa.string()),
                ("snr_db", pa.float64()),
                *task.example_columns.items(),
            ]
        ),
    }


def as_tables(of: Mapping[str, Rows], task: Task) -> dict[str, pa.Table]:
    """Return some of the tables of :func:`tables_of`; rows may have more columns than the table."""
    schemas = tables_of(task)
    return {name: as_table(rows, schemas[name]) for name, rows in of.items()}


def as_table(rows: Rows, schema: pa.Schema) -> pa.Table:
    """Return rows, or columns, as a table."""
    if isinstance(rows, Mapping):
        return pa.table([rows[name] for name in schema.names], schema=schema)
    return pa.Table.from_pylist(rows, schema=schema)


def result_rows(
    of: Mapping[str, Any], split: RetrievalSplit, scores: Scores, task: Task, shares: Scores | None = None
) -> list[dict[str, Any]]:
    """Return a row of the table ``results`` for each wording.

    Args:
        of: columns that say what was measured.
        split: the queries.
        scores: of each of them.
        task: says what is measured.
        shares: what else is true of each query; rows have the share of those that it is true of.
    """
    rows = []
    for wording, chosen in queries_of(split).items():
        row = {**of, "wording": wording, "queries": len(chosen), **task.summarise(chosen_scores(scores, chosen))}
        rows.append(row | {name: float(true.mean()) for name, true in chosen_scores(shares or {}, chosen).items()})
    return rows


def query_rows(at: Mapping[str, Any], split: RetrievalSplit, scores: Scores) -> dict[str, Any]:
    """Return the columns of the table ``queries``; ``at`` says what was measured."""
    return {
        **{name: pa.repeat(value, len(split.row_ids)) for name, value in at.items()},
        "row_id": split.row_ids,
        "identity": split.caption_identity.numpy(),
        "wording": split.wordings,
        **scores,
    }


def queries_of(split: RetrievalSplit) -> dict[str, Int[Tensor, " Q"]]:
    """Return which captions have each wording; ``same`` and ``changed`` first."""
    others = sorted(set(split.wordings) - {SAME_WORDING})
    names = ["same", "changed", *others] if others else ["same"]
    chosen = {name: split.with_wording(name) for name in names}
    return {name: captions for name, captions in chosen.items() if len(captions)}
