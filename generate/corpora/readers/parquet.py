"""Single cells of Parquet files, so that what a table embeds is read one row group at a time."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def read_cell(path: Path, column: str, row: int) -> Any:
    """Return the value of a column in a row, counted from 0; the row group stays in memory for the next rows."""
    group, first = _group_of(path, row)
    return _row_group(path, column, group)[row - first].as_py()


@lru_cache(maxsize=2)
def _row_group(path: Path, column: str, group: int) -> pa.ChunkedArray:
    return pq.ParquetFile(path).read_row_group(group, columns=[column]).column(0)


@lru_cache(maxsize=64)
def _group_starts(path: Path) -> tuple[int, ...]:
    metadata = pq.read_metadata(path)
    starts = [0]
    for group in range(metadata.num_row_groups):
        starts.append(starts[-1] + metadata.row_group(group).num_rows)
    return tuple(starts)


def _group_of(path: Path, row: int) -> tuple[int, int]:
    starts = _group_starts(path)
    group = max(i for i, start in enumerate(starts[:-1]) if start <= row)
    return group, starts[group]
