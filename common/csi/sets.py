"""CSI artifacts in memory: read whole, or shard by shard in constant memory, and turned into tables.

Layout everywhere: batch first, ``h [B, T, Nr, Nt]`` complex64. Rows Nr are receive antennas times subcarriers,
subcarriers outermost.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from jaxtyping import Complex64, Float32, Float64
from torch import Tensor

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.schemas import csi_schema, pack_complex, unpack_complex
from sclmkb.common.errors import UserError

_TENSORS = ("history", "clean_history", "future")
_SCALARS = {
    "speed_kmh": torch.float32,
    "pilot_snr_db": torch.float32,
    "carrier_hz": torch.float64,
    "sample_period_s": torch.float64,
    "x_m": torch.float32,
    "y_m": torch.float32,
}
_PLACES = ("x_m", "y_m")


@dataclass(frozen=True, kw_only=True)
class CsiShape:
    """Sizes of a CSI set.

    Attributes:
        num_history: samples T of a history.
        num_future: samples P to predict.
        num_rx: rows Nr: receive antennas times subcarriers.
        num_tx: transmit antennas Nt.
        num_subcarriers: subcarriers among the rows; 1: narrowband.
    """

    num_history: int
    num_future: int
    num_rx: int
    num_tx: int
    num_subcarriers: int = 1

    def to_dict(self) -> dict[str, int]:
        """Return the sizes by name."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class CsiSet:
    """Channel drops in memory; N drops, T history and P future samples.

    Attributes:
        drop_ids: identity of each drop.
        scenarios: channel model of each drop.
        users: whose window a drop is; empty for a drop of its own.
        num_subcarriers: subcarriers among the rows, outermost; 1: narrowband.
        history: what a predictor sees, with pilot noise.
        clean_history: the same without noise, for augmentation and bounds, never a predictor's input.
        future: the label, without noise.
        speed_kmh: terminal speed [km/h].
        pilot_snr_db: pilot SNR of the history [dB].
        carrier_hz: carrier frequency [Hz].
        sample_period_s: time between samples [s].
        x_m: place of the terminal [m], the base station at the origin; NaN: nowhere.
        y_m: likewise.
    """

    drop_ids: list[str]
    scenarios: list[str]
    users: list[str]
    num_subcarriers: int
    history: Complex64[Tensor, "N T Nr Nt"]
    clean_history: Complex64[Tensor, "N T Nr Nt"]
    future: Complex64[Tensor, "N P Nr Nt"]
    speed_kmh: Float32[Tensor, " N"]
    pilot_snr_db: Float32[Tensor, " N"]
    carrier_hz: Float64[Tensor, " N"]
    sample_period_s: Float64[Tensor, " N"]
    x_m: Float32[Tensor, " N"]
    y_m: Float32[Tensor, " N"]

    def __len__(self) -> int:
        return len(self.drop_ids)

    @property
    def shape(self) -> CsiShape:
        """Sizes of the set."""
        _, num_history, num_rx, num_tx = self.history.shape
        return CsiShape(
            num_history=num_history,
            num_future=self.future.shape[1],
            num_rx=num_rx,
            num_tx=num_tx,
            num_subcarriers=self.num_subcarriers,
        )

    def part(self, rows: slice) -> "CsiSet":
        """Return some of the drops, in memory of their own."""
        columns: dict[str, Any] = {}
        for name, value in vars(self).items():
            if name != "num_subcarriers":
                columns[name] = value[rows].clone().contiguous() if isinstance(value, Tensor) else value[rows]
        return replace(self, **columns)

    @classmethod
    def join(cls, parts: Sequence["CsiSet"]) -> "CsiSet":
        """Return the drops of all parts, in order; their shapes must be the same."""
        columns: dict[str, Any] = {}
        for name, first in vars(parts[0]).items():
            values = [getattr(part, name) for part in parts]
            if isinstance(first, Tensor):
                columns[name] = torch.cat(values)
            elif isinstance(first, list):
                columns[name] = [one for value in values for one in value]
            else:
                columns[name] = first
        return cls(**columns)


def load_csi(root: Path, split: str) -> CsiSet:
    """Read a split of a CSI artifact and check it.

    Raises:
        UserError: if the artifact is missing, unfinished, corrupt or of another schema version, the split does not
            exist, shapes disagree, or a value is not finite (the message names the shard and the drop).
    """
    return CsiSet.join([drops for _, drops in iter_csi(root, split)])


def iter_csi(root: Path, split: str | None = None) -> Iterator[tuple[str, CsiSet]]:
    """Yield (shard name, drops) of a split, or of all, one shard in memory at a time; errors as :func:`load_csi`."""
    artifact = Artifact.open(root, "csi")
    if split is not None and split not in artifact.splits:
        raise UserError(f"{root} has no split '{split}', it has {', '.join(artifact.splits)}")
    for shard in artifact.plan.shards:
        if split in (None, shard.split) and shard.row_ids:
            yield shard.name, csi_shard(artifact, shard.name)


def load_predicted(root: Path, split: str) -> tuple[list[str], Complex64[Tensor, "N P Nr Nt"]]:
    """Return the drop ids of a split of predicted CSI, and the predicted future; errors as :func:`load_csi`."""
    names, where = ["drop_id", "predicted_real", "predicted_imag"], f"split {split} of {root}"
    table = Artifact.open(root, "predicted").table("predicted", split, names)
    _require(table, names, where)
    drop_ids, predicted = table["drop_id"].to_pylist(), unpack_complex(table, "predicted")
    _check_finite(predicted, "predicted", drop_ids, where, "sclmkb-gen cdg")
    return drop_ids, predicted


def csi_shard(artifact: Artifact, name: str | None = None) -> CsiSet:
    """Return the drops of one shard of a CSI artifact, by default the first; errors as :func:`load_csi`."""
    name = name or next(shard.name for shard in artifact.plan.shards if shard.row_ids)
    return csi_from_table(artifact.shard_table("csi", name), f"shard {name} of {artifact.root}")


def csi_from_table(table: pa.Table, where: str) -> CsiSet:
    """Unpack and check a CSI table; ``where`` says in messages what it is.

    Raises:
        UserError: if a column is missing, shapes disagree, a value is not finite or a drop is zero.
    """
    _require(table, csi_schema(1, 1, 1, 1).names, where)
    drop_ids = table["drop_id"].to_pylist()
    tensors = {name: unpack_complex(table, name) for name in _TENSORS}
    scalars = {name: torch.tensor(table[name].to_pylist(), dtype=kind) for name, kind in _SCALARS.items()}
    history, clean, future = (tensors[name] for name in _TENSORS)
    if clean.shape != history.shape or future.shape[2:] != history.shape[2:]:
        raise UserError(
            f"{where}: history {list(history.shape[1:])}, clean history {list(clean.shape[1:])} and future"
            f" {list(future.shape[1:])} do not fit together; make it again (sclmkb-gen csi)"
        )
    for name, tensor in (tensors | scalars).items():
        if name not in _PLACES:
            _check_finite(tensor, name, drop_ids, where, "sclmkb-gen csi")
    for name, tensor in tensors.items():
        if silent := (tensor == 0).flatten(1).all(1).nonzero().flatten().tolist():
            raise UserError(
                f"{where}: '{name}' of drop {drop_ids[silent[0]]} is zero everywhere ({len(silent)} of"
                f" {len(drop_ids)} drops): there is no channel to predict; leave such drops out where the CSI is made"
            )
    subcarriers = set(table["num_subcarriers"].to_pylist())
    count = min(subcarriers, default=1)
    if len(subcarriers) > 1 or count < 1 or history.shape[2] % count:
        raise UserError(
            f"{where}: {history.shape[2]} rows cannot be {sorted(subcarriers)} subcarriers times receive antennas;"
            " make it again (sclmkb-gen csi)"
        )
    return CsiSet(
        drop_ids=drop_ids,
        scenarios=table["scenario"].to_pylist(),
        users=table["user"].to_pylist(),
        num_subcarriers=count,
        **tensors,
        **scalars,
    )


def csi_to_table(drops: CsiSet, split: str) -> pa.Table:
    """Return the table that :func:`csi_from_table` reads."""
    size, shape = len(drops), drops.shape
    schema = csi_schema(shape.num_history, shape.num_future, shape.num_rx, shape.num_tx)
    columns: dict[str, Any] = {
        "drop_id": drops.drop_ids,
        "split": [split] * size,
        "scenario": drops.scenarios,
        "user": drops.users,
        "num_subcarriers": [drops.num_subcarriers] * size,
    }
    columns |= {name: getattr(drops, name).numpy() for name in _SCALARS}
    for name in _TENSORS:
        columns |= pack_complex(name, getattr(drops, name))
    return pa.table(columns, schema=schema)


def rows_not_finite(values: Tensor) -> list[int]:
    """Return the rows of a real or complex tensor ``[N, ...]`` that are not finite everywhere."""
    real = torch.view_as_real(values) if values.is_complex() else values
    rows: list[int] = (~torch.isfinite(real)).reshape(len(values), -1).any(1).nonzero().flatten().tolist()
    return rows


def _check_finite(values: Tensor, name: str, drop_ids: list[str], where: str, maker: str) -> None:
    """Refuse values that are not finite, and say which drop has them and which command makes it again."""
    if bad := rows_not_finite(values):
        raise UserError(
            f"{where}: '{name}' of drop {drop_ids[bad[0]]} is NaN or infinite"
            f" ({len(bad)} of {len(values)} drops); delete the shard's manifest and make it again ({maker})"
        )


def _require(table: pa.Table, names: Sequence[str], where: str) -> None:
    if missing := [name for name in names if name not in table.column_names]:
        raise UserError(f"{where} has no column '{missing[0]}': it was made by another program")
