"""CSI tensors: reading the artifacts, pilot noise, power normalisation, complex ↔ real, eigen-beams.

Layout everywhere: batch first, ``h [B, T, Nr, Nt]`` complex64, E|h_ij|² = 1, SNR = 1/σ².
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from jaxtyping import Bool, Complex, Complex64, Float, Float32
from torch import Tensor

from sclmkb.common.artifacts import Artifact
from sclmkb.common.errors import UserError
from sclmkb.common.schemas import unpack_complex


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
        history: what a predictor sees, with pilot noise.
        clean_history: the same without noise, for augmentation and bounds, never a predictor's input.
        future: the label, without noise.
        speed_kmh: terminal speed [km/h].
        pilot_snr_db: pilot SNR of the history [dB].
    """

    drop_ids: list[str]
    history: Complex64[Tensor, "N T Nr Nt"]
    clean_history: Complex64[Tensor, "N T Nr Nt"]
    future: Complex64[Tensor, "N P Nr Nt"]
    speed_kmh: Float32[Tensor, " N"]
    pilot_snr_db: Float32[Tensor, " N"]

    def __len__(self) -> int:
        return len(self.drop_ids)

    @property
    def shape(self) -> CsiShape:
        """Sizes of the set."""
        _, num_history, num_rx, num_tx = self.history.shape
        return CsiShape(num_history=num_history, num_future=self.future.shape[1], num_rx=num_rx, num_tx=num_tx)


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


def load_csi(root: Path, split: str) -> CsiSet:
    """Read a split of a CSI artifact and check it.

    Raises:
        UserError: if the artifact is missing, unfinished, corrupt or of another schema version, the split does not
            exist, shapes disagree, or a value is not finite (the message names the shard and the drop).
    """
    parts = [csi_from_table(table, f"shard {shard} of {root}") for shard, table in read_csi_shards(root, split)]
    return CsiSet(
        drop_ids=[drop for part in parts for drop in part.drop_ids],
        history=torch.cat([part.history for part in parts]),
        clean_history=torch.cat([part.clean_history for part in parts]),
        future=torch.cat([part.future for part in parts]),
        speed_kmh=torch.cat([part.speed_kmh for part in parts]),
        pilot_snr_db=torch.cat([part.pilot_snr_db for part in parts]),
    )


def read_csi_shards(root: Path, split: str) -> Iterator[tuple[str, pa.Table]]:
    """Yield (name, table) of each shard of a split, one at a time; see :func:`load_csi` for the errors."""
    artifact = Artifact.open(root, "csi")
    if split not in artifact.splits:
        raise UserError(f"{root} has no split '{split}', it has {', '.join(artifact.splits)}")
    for shard in artifact.plan["shards"]:
        if shard["split"] == split:
            yield shard["name"], artifact.shard_table("csi", shard["name"])


def csi_from_table(table: pa.Table, where: str) -> CsiSet:
    """Unpack and check a CSI table.

    Args:
        table: rows of :func:`sclmkb.common.schemas.csi_schema`.
        where: what the table is, for messages.

    Raises:
        UserError: if a column is missing, shapes disagree or a value is not finite.
    """
    drop_ids = _column(table, "drop_id", where)
    tensors = {name: _complex(table, name, where) for name in ("history", "clean_history", "future")}
    scalars = {
        name: torch.tensor(_column(table, name, where), dtype=torch.float32) for name in ("speed_kmh", "pilot_snr_db")
    }
    history, clean, future = tensors["history"], tensors["clean_history"], tensors["future"]
    if clean.shape != history.shape or future.shape[2:] != history.shape[2:]:
        raise UserError(
            f"{where}: history {list(history.shape[1:])}, clean history {list(clean.shape[1:])} and future"
            f" {list(future.shape[1:])} do not fit together; make it again (sclmkb-gen csi)"
        )
    for name, tensor in (tensors | scalars).items():
        _check_finite(tensor, name, drop_ids, where, "sclmkb-gen csi")
    return CsiSet(drop_ids=drop_ids, **tensors, **scalars)


def load_predicted(root: Path, split: str) -> PredictedSet:
    """Read a split of a predicted CSI artifact and check it.

    Raises:
        UserError: as :func:`load_csi`.
    """
    artifact = Artifact.open(root, "predicted")
    table = artifact.table("predicted", split)
    where = f"split {split} of {root}"
    drop_ids = _column(table, "drop_id", where)
    names = ("nmse", "nmse_persistence", "nmse_ar", "speed_kmh", "pilot_snr_db")
    scalars = {name: torch.tensor(_column(table, name, where), dtype=torch.float32) for name in names}
    predicted = _complex(table, "predicted", where)
    for name, tensor in ({"predicted": predicted} | scalars).items():
        _check_finite(tensor, name, drop_ids, where, "sclmkb-gen cdg")
    return PredictedSet(
        drop_ids=drop_ids, predictor=str(table.column("predictor")[0].as_py()), predicted=predicted, **scalars
    )


def finite_rows(values: Tensor) -> Bool[Tensor, " N"]:
    """Return which rows of a real or complex tensor ``[N, ...]`` are finite everywhere."""
    real = torch.view_as_real(values) if values.is_complex() else values
    return torch.isfinite(real).reshape(len(values), -1).all(1)


def _check_finite(values: Tensor, name: str, drop_ids: list[str], where: str, maker: str) -> None:
    finite = finite_rows(values)
    if not finite.all():
        first = int((~finite).nonzero()[0])
        raise UserError(
            f"{where}: '{name}' of drop {drop_ids[first]} is NaN or infinite"
            f" ({int((~finite).sum())} of {len(values)} drops); delete the shard's manifest and make it again ({maker})"
        )


def _column(table: pa.Table, name: str, where: str) -> list[Any]:
    if name not in table.column_names:
        raise UserError(f"{where} has no column '{name}': it was made by another program")
    values: list[Any] = table.column(name).to_pylist()
    return values


def _complex(table: pa.Table, name: str, where: str) -> Tensor:
    for part in ("real", "imag"):
        if f"{name}_{part}" not in table.column_names:
            raise UserError(f"{where} has no column '{name}_{part}': it was made by another program")
    return unpack_complex(table, name)


def normalise_power(
    h: Complex[Tensor, "B T Nr Nt"], num_samples: int | None = None
) -> tuple[Complex[Tensor, "B T Nr Nt"], Float[Tensor, "B 1 1 1"]]:
    """Divide each drop by its root mean square over time and antennas.

    Args:
        h: channels.
        num_samples: take the power of the first so many samples only (a history); default all.

    Returns:
        The scaled channels, and the scale that undoes it (scaled · scale = h). A drop of zeros stays as it is.
    """
    power = h[:, :num_samples].abs().square().mean((1, 2, 3), keepdim=True)
    scale = power.sqrt()
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return h / scale, scale


def add_pilot_noise(
    h: Complex[Tensor, "B T Nr Nt"], pilot_snr_db: Float[Tensor, " B"], generator: torch.Generator
) -> Complex[Tensor, "B T Nr Nt"]:
    """Add circular complex Gaussian noise of variance 10^(-SNR/10) to channels of unit power."""
    sigma = noise_power(pilot_snr_db).sqrt().to(h.real.dtype).view(-1, 1, 1, 1)
    parts = torch.randn(*h.shape, 2, generator=generator, dtype=h.real.dtype, device=h.device)
    return h + sigma * torch.view_as_complex(parts) / 2**0.5


def noise_power(snr_db: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Return σ² = 10^(-SNR/10) of SNRs in dB, for unit signal power."""
    return torch.pow(10.0, -snr_db / 10)


def complex_to_real(h: Complex[Tensor, "*shape Nr Nt"]) -> Float[Tensor, "*shape features"]:
    """Flatten the antenna pairs to 2·Nr·Nt real features: real parts, then imaginary parts."""
    return torch.cat([h.real.flatten(-2), h.imag.flatten(-2)], -1)


def real_to_complex(
    x: Float[Tensor, "*shape features"], num_rx: int, num_tx: int
) -> Complex[Tensor, "*shape {num_rx} {num_tx}"]:
    """Undo :func:`complex_to_real`."""
    real, imag = x.chunk(2, -1)
    return torch.complex(real, imag).reshape(*x.shape[:-1], num_rx, num_tx)


@dataclass(frozen=True)
class EigenBeams:
    """The unitary transform into the receive and transmit eigenvectors of a drop's own history.

    b = U^H h V, with U the eigenvectors of Σ_t h h^H and V those of Σ_t h^H h, strongest first. All Nr·Nt beams are
    kept, so that nothing is lost, and a loss is the same in beams as in antennas. The phase of an eigenvector is
    arbitrary, so what works on beams must be equivariant to a phase for each of them, as linear filters are.

    Attributes:
        u: receive eigenvectors, in columns.
        v: transmit eigenvectors, in columns.
    """

    u: Complex[Tensor, "B Nr Nr"]
    v: Complex[Tensor, "B Nt Nt"]

    @classmethod
    def of(cls, history: Complex[Tensor, "B T Nr Nt"]) -> "EigenBeams":
        """Return the eigen-beams of histories."""
        with torch.no_grad():
            receive = torch.einsum("btij,btkj->bik", history, history.conj())
            transmit = torch.einsum("btji,btjk->bik", history.conj(), history)
            u, v = (torch.linalg.eigh(m).eigenvectors.flip(-1) for m in (receive, transmit))
        return cls(u, v)

    def to_beams(self, h: Complex[Tensor, "B T Nr Nt"]) -> Complex[Tensor, "B T Nr Nt"]:
        """Return b = U^H h V."""
        return torch.einsum("bri,btrs,bsj->btij", self.u.conj(), h, self.v)

    def from_beams(self, beams: Complex[Tensor, "B T Nr Nt"]) -> Complex[Tensor, "B T Nr Nt"]:
        """Return h = U b V^H."""
        return torch.einsum("bri,btij,bsj->btrs", self.u, beams, self.v.conj())
