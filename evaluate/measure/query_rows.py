"""What every query found, read from folders of ``sclmkb-eval run`` and ``sclmkb-eval sscc`` at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sclmkb.common.errors import UserError
from sclmkb.common.tasks.base import Scores, Task
from sclmkb.common.tasks.retrieval_corpus import SAME_WORDING

Key = tuple[float, str, str, int]
"""SNR in dB, receiver, system and seed."""

_NAMES = ["system", "receiver", "row_id", "wording"]


@dataclass(frozen=True, kw_only=True)
class Queries:
    """Q queries of one system and seed, at one SNR with one receiver, in the order of their captions.

    Attributes:
        caption: row ids of the captions, in order ``[Q]``.
        identity: what each is about ``[Q]``.
        wording: name of each wording ``[Q]``.
        scores: what the task keeps of each ``[Q]``.
    """

    caption: NDArray[np.object_]
    identity: NDArray[np.int64]
    wording: NDArray[np.object_]
    scores: Scores

    def worded(self, wording: str) -> "Queries":
        """Return the queries of a wording; ``same`` is that of training, ``changed`` are all others."""
        named = self.wording == (SAME_WORDING if wording in ("same", "changed") else wording)
        return self.take(~named if wording == "changed" else named)

    def take(self, chosen: NDArray[Any] | slice) -> "Queries":
        """Return some of the queries."""
        return Queries(
            caption=self.caption[chosen],
            identity=self.identity[chosen],
            wording=self.wording[chosen],
            scores={name: values[chosen] for name, values in self.scores.items()},
        )


def read_queries(roots: Sequence[Path], task: Task) -> dict[Key, Queries]:
    """Return the queries in the folders, each file read once, with what the task keeps of them.

    Raises:
        UserError: if a folder has none.
    """
    columns = [*_NAMES, "snr_db", "seed", "identity", *task.score_columns]
    parts = []
    for root in roots:
        if not (root / "queries.parquet").exists():
            raise UserError(f"no queries.parquet in {root}: run sclmkb-eval run with --out {root} again")
        parts.append(pq.read_table(root / "queries.parquet", columns=columns, read_dictionary=_NAMES))
    table = pa.concat_tables(parts).unify_dictionaries().combine_chunks()
    of: dict[str, NDArray[Any]] = {}
    names: dict[str, list[str]] = {}
    for name in columns:
        column = table.column(name).combine_chunks()
        if name in _NAMES:
            of[name], names[name] = column.indices.to_numpy(), column.dictionary.to_pylist()
        else:
            of[name] = column.to_numpy()
    snrs_db, snr = np.unique(of["snr_db"], return_inverse=True)
    seeds, seed = np.unique(of["seed"], return_inverse=True)
    group = snr.astype(np.int64)
    for number, count in ((of["receiver"], "receiver"), (of["system"], "system")):
        group = group * len(names[count]) + number
    group = group * len(seeds) + seed
    row_ids = np.asarray(names["row_id"], dtype=object)
    place = np.empty(len(row_ids), dtype=np.int64)
    place[np.argsort(row_ids)] = np.arange(len(row_ids))
    order = np.argsort(group * len(row_ids) + place[of["row_id"]], kind="stable")
    wordings = np.asarray(names["wording"], dtype=object)
    rows = Queries(
        caption=row_ids[of["row_id"][order]],
        identity=of["identity"][order],
        wording=wordings[of["wording"][order]],
        scores={name: of[name][order] for name in task.score_columns},
    )
    _, starts = np.unique(group[order], return_index=True)
    found = {}
    for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
        i = order[start]
        key = (
            float(snrs_db[snr[i]]),
            names["receiver"][of["receiver"][i]],
            names["system"][of["system"][i]],
            int(seeds[seed[i]]),
        )
        found[key] = rows.take(slice(start, stop))
    return found
