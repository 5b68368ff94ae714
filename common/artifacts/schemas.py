"""Arrow schemas of every table that crosses a stage.

Each schema carries the version of the contract in its metadata; readers refuse another version. Complex tensors
are two float32 planes named ``<name>_real`` and ``<name>_imag`` in Arrow's fixed-shape tensor type.

Tables:

========== ================== ==================================================================
table      written by         one row is
========== ================== ==================================================================
items      sclmkb-gen corpus  one picture, motion or sound of an identity
captions   sclmkb-gen corpus  one text of an identity, with its role, wording and split
problems   sclmkb-gen corpus  one thing that a reader of files left out, with the reason
rows       sclmkb-gen sdg     one source caption: its state and its accepted generated captions
attempts   sclmkb-gen sdg     one generated sample: text, score, verdict, seed
csi        sclmkb-gen csi     one channel drop: noisy history, clean history, clean future
           import-csi
           csi-feedback
predicted  sclmkb-gen cdg     one channel drop: predicted future, with its NMSE
========== ================== ==================================================================
"""

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:  # loading it takes seconds, which a look at a run must not
    import torch

SCHEMA_VERSION = "4"
"""Version of the artifact contract; raised whenever a table changes its meaning."""

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
"""What the items, captions and drops of an artifact are divided into."""

ROW_STATES = ("ok", "rejected", "error")
"""What a source caption ends as: rows in = ok + rejected + error."""


def _schema(table: str, fields: list[tuple[str, pa.DataType]]) -> pa.Schema:
    metadata = {"sclmkb.table": table, "sclmkb.schema_version": SCHEMA_VERSION}
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in fields], metadata=metadata)


ITEMS = _schema(
    "items",
    [
        ("item_id", pa.string()),
        ("identity", pa.string()),  # what a caption and a picture must share to be a match
        ("group", pa.string()),  # identities of one group never fall into two splits
        ("split", pa.string()),
        ("source", pa.string()),  # who drew, recorded or captured it
        ("modality", pa.string()),  # a name of sclmkb.common.modalities, empty where nobody can tell
        ("media", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),  # as datasets.Image
    ],
)

WORDING = "caption"
"""How the captions of a real corpus are worded: all alike, in training and elsewhere."""

ROLE = "caption"
"""What a text of a corpus is to its item, unless its reader says otherwise (:mod:`sclmkb.common.artifacts.texts`)."""

CAPTIONS = _schema(
    "captions",
    [
        ("row_id", pa.string()),
        ("identity", pa.string()),
        ("group", pa.string()),
        ("split", pa.string()),
        ("caption_index", pa.int32()),
        ("wording", pa.string()),  # "label" is worded as in training; every other wording differs from it
        ("role", pa.string()),  # caption, label, question or answer
        ("text", pa.string()),
    ],
)

PROBLEMS = _schema(
    "problems",
    [
        ("split", pa.string()),  # empty where it cannot be known
        ("file", pa.string()),  # relative to the data's folder
        ("row", pa.int64()),  # the entry's number in its file, from 1; 0: the file itself
        ("item", pa.string()),  # empty where it cannot be known
        ("reason", pa.string()),
    ],
)

SDG_ROWS = _schema(
    "rows",
    [
        ("row_id", pa.string()),  # of the source caption
        ("identity", pa.string()),
        ("split", pa.string()),
        ("source_text", pa.string()),
        ("state", pa.string()),  # one of ROW_STATES
        ("num_attempts", pa.int32()),
        ("num_samples", pa.int32()),
        ("captions", pa.list_(pa.string())),  # accepted ones, best first
        ("similarities", pa.list_(pa.float32())),
        ("error", pa.string()),  # empty unless state is "error"
    ],
)

SDG_ATTEMPTS = _schema(
    "attempts",
    [
        ("row_id", pa.string()),
        ("split", pa.string()),
        ("attempt", pa.int32()),
        ("sample", pa.int32()),
        ("retry", pa.int32()),  # 0; from 1, the number of the retry after a failure
        ("text", pa.string()),
        ("similarity", pa.float32()),  # cosine to the source caption, eq. (24)
        ("margin", pa.float32()),  # similarity minus that to the nearest other identity's caption
        ("accepted", pa.bool_()),
        ("reason", pa.string()),  # why it was rejected, empty if accepted
        ("finish_reason", pa.string()),
        ("num_tokens", pa.int32()),
        ("seed", pa.int64()),
    ],
)

TABLES = {"items": ITEMS, "captions": CAPTIONS, "problems": PROBLEMS, "rows": SDG_ROWS, "attempts": SDG_ATTEMPTS}
"""The tables whose schema is the same in every artifact, by name."""


def csi_schema(num_history: int, num_future: int, num_rx: int, num_tx: int) -> pa.Schema:
    """Schema of a CSI table: ``[T, Nr, Nt]`` history and ``[P, Nr, Nt]`` future.

    Rows Nr are receive antennas times subcarriers, subcarriers outermost. The clean history of a drop has unit power.
    """
    history = pa.fixed_shape_tensor(pa.float32(), [num_history, num_rx, num_tx])
    future = pa.fixed_shape_tensor(pa.float32(), [num_future, num_rx, num_tx])
    return _schema(
        "csi",
        [
            ("drop_id", pa.string()),
            ("split", pa.string()),
            ("scenario", pa.string()),
            ("speed_kmh", pa.float32()),
            ("pilot_snr_db", pa.float32()),
            ("carrier_hz", pa.float64()),
            ("sample_period_s", pa.float64()),
            ("num_subcarriers", pa.int32()),  # among the rows; 1: narrowband
            ("user", pa.string()),  # windows of one user are in one split; empty: a drop of its own
            ("x_m", pa.float32()),  # where the terminal stands, the base station at the origin; NaN: nowhere
            ("y_m", pa.float32()),
            ("history_real", history),  # with pilot noise
            ("history_imag", history),
            ("clean_history_real", history),
            ("clean_history_imag", history),
            ("future_real", future),  # without noise
            ("future_imag", future),
        ],
    )


def predicted_schema(num_future: int, num_rx: int, num_tx: int) -> pa.Schema:
    """Schema of a predicted CSI table; NMSE values are linear ratios per sample, never dB."""
    future = pa.fixed_shape_tensor(pa.float32(), [num_future, num_rx, num_tx])
    return _schema(
        "predicted",
        [
            ("drop_id", pa.string()),
            ("split", pa.string()),
            ("predictor", pa.string()),
            ("speed_kmh", pa.float32()),
            ("pilot_snr_db", pa.float32()),
            ("predicted_real", future),
            ("predicted_imag", future),
            ("nmse", pa.float32()),
            ("nmse_persistence", pa.float32()),
            ("nmse_ar", pa.float32()),
        ],
    )


def pack_complex(name: str, values: "torch.Tensor") -> dict[str, pa.Array]:
    """Return ``{name_real, name_imag}`` columns of a complex tensor ``[N, ...]``."""
    import torch

    planes = {"real": values.real, "imag": values.imag}
    return {
        f"{name}_{part}": pa.FixedShapeTensorArray.from_numpy_ndarray(
            np.ascontiguousarray(plane.to(torch.float32).cpu().numpy())
        )
        for part, plane in planes.items()
    }


def unpack_complex(table: pa.Table, name: str) -> "torch.Tensor":
    """Return the complex64 tensor ``[N, ...]`` that :func:`pack_complex` stored under ``name``."""
    import torch

    def plane(part: str) -> torch.Tensor:
        column = table.column(f"{name}_{part}").combine_chunks()
        array: Any = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
        return torch.from_numpy(array.to_numpy_ndarray().copy())

    return torch.complex(plane("real"), plane("imag"))
