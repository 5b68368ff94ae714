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

_KEY = ("snr_db", "receiver", "system", "seed")
_NAMES = ["receiver", "system", "row_id", "wording"]


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
    columns = [*_KEY, "row_id", "identity", "wording", *task.score_columns]
    parts = []
    for root in roots:
        if not (root / "queries.parquet").exists():
            raise UserError(f"no queries.parquet in {root}: run sclmkb-eval run with --out {root} again")
        parts.append(pq.read_table(root / "queries.parquet", columns=columns, read_dictionary=_NAMES))
    table = pa.concat_tables(parts).unify_dictionaries()
    of = {name: table.column(name).combine_chunks() for name in columns}
    captions, wordings = (np.asarray(of[name].dictionary.to_pylist(), dtype=object) for name in ("row_id", "wording"))
    caption, wording = (of[name].indices.to_numpy() for name in ("row_id", "wording"))
    keys = [of[name].dictionary_encode() for name in _KEY]
    codes = np.stack([key.indices.to_numpy() for key in keys])
    order = np.lexsort([captions.argsort().argsort()[caption], *codes])
    codes = codes[:, order]
    rows = Queries(
        caption=captions[caption[order]],
        identity=of["identity"].to_numpy()[order],
        wording=wordings[wording[order]],
        scores={name: of[name].to_numpy()[order] for name in task.score_columns},
    )
    found: dict[Key, Queries] = {}
    starts = np.flatnonzero((np.diff(codes, prepend=-1) != 0).any(0)).tolist()
    for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
        pairs = zip(keys, codes[:, start].tolist(), strict=True)
        snr_db, receiver, system, seed = (key.dictionary[code].as_py() for key, code in pairs)
        found[snr_db, receiver, system, seed] = rows.take(slice(start, stop))
    return found
