"""Predicted CSI in memory."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Complex64, Float32
from torch import Tensor

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.csi.sets import check_finite, read_column, read_complex


@dataclass(frozen=True, kw_only=True)
class PredictedSet:
    """Predicted CSI in memory, in the order of the CSI artifact it was made from; NMSE values are linear ratios.

    Attributes:
        drop_ids: identity of each drop.
        predictor: name of the predictor.
        predicted: predicted future.
        nmse: per-drop NMSE of the prediction.
        nmse_persistence: that of the last noisy sample, repeated.
        nmse_ar: that of the per-drop AR filter.
        speed_kmh: terminal speed [km/h].
        pilot_snr_db: pilot SNR of the history [dB].
    """

    drop_ids: list[str]
    predictor: str
    predicted: Complex64[Tensor, "N P Nr Nt"]
    nmse: Float32[Tensor, " N"]
    nmse_persistence: Float32[Tensor, " N"]
    nmse_ar: Float32[Tensor, " N"]
    speed_kmh: Float32[Tensor, " N"]
    pilot_snr_db: Float32[Tensor, " N"]


def load_predicted(root: Path, split: str) -> PredictedSet:
    """Read a split of a predicted CSI artifact and check it.

    Raises:
        UserError: as :func:`load_csi`.
    """
    artifact = Artifact.open(root, "predicted")
    table = artifact.table("predicted", split)
    where = f"split {split} of {root}"
    drop_ids = read_column(table, "drop_id", where)
    names = ("nmse", "nmse_persistence", "nmse_ar", "speed_kmh", "pilot_snr_db")
    scalars = {name: torch.tensor(read_column(table, name, where), dtype=torch.float32) for name in names}
    predicted = read_complex(table, "predicted", where)
    for name, tensor in ({"predicted": predicted} | scalars).items():
        check_finite(tensor, name, drop_ids, where, "sclmkb-gen cdg")
    return PredictedSet(
        drop_ids=drop_ids, predictor=str(table.column("predictor")[0].as_py()), predicted=predicted, **scalars
    )
