"""CSI for training predictors: clean sequences in memory, augmented batches with fresh pilot noise.

::

    clean T+P samples ─► reverse? ─► conjugate? ─► unit power by the history ─► noise at a new SNR on the history
                                                                       └─► clean future

Memory: the clean sequences of the training split and all of the validation split are held in memory. At 8 bytes per
complex value, a drop of 20 samples of 16 × 16 antennas takes 41 kB. Shards are read one at a time. More than
``max_data_gb`` is refused before anything is read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Complex64, Float
from torch import Tensor

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.csi.sets import CsiSet, CsiShape, iter_csi, load_csi
from sclmkb.common.csi.tensors import add_pilot_noise, normalise_power
from sclmkb.common.errors import UserError


@dataclass(frozen=True, kw_only=True)
class CsiTrainingData:
    """The training and validation splits of one or more CSI artifacts.

    Attributes:
        clean: training sequences of S = T + P samples without noise, their histories of unit power.
        stored: noisy histories as stored, at the same scale, and their pilot SNRs [dB]; None where noise is redrawn.
        val: validation drops, each set with the noise it was stored with.
        shape: sizes.
    """

    clean: Complex64[Tensor, "N S Nr Nt"]
    stored: tuple[Complex64[Tensor, "N T Nr Nt"], Float[Tensor, " N"]] | None
    val: Sequence[CsiSet]
    shape: CsiShape


def load_training_data(roots: Sequence[Path], max_data_gb: float, *, stored: bool = False) -> CsiTrainingData:
    """Read the splits of CSI artifacts and join them; ``stored`` keeps the noisy histories as well.

    Raises:
        UserError: if an artifact is missing, corrupt or holds a value that is not finite, shapes differ, a drop is in
            the training split and in another one, or there is more data than fits.
    """
    _check_drops_apart(roots)
    val = [load_csi(root, "val") for root in roots]
    shape = val[0].shape
    for root, drops in zip(roots, val, strict=True):
        for name, wanted in shape.to_dict().items():
            if (given := drops.shape.to_dict()[name]) != wanted:
                raise UserError(f"{root} has {name} = {given}, {roots[0]} has {wanted}: train on CSI of one shape")
    plans = [Artifact.open(root, "csi", verify=False).plan for root in roots]
    rows = sum(len(shard.row_ids) for plan in plans for shard in plan.shards if shard.split == "train")
    samples = shape.num_history + shape.num_future
    gigabytes = 8e-9 * rows * (samples + stored * shape.num_history) * shape.num_rx * shape.num_tx
    if gigabytes > max_data_gb:
        raise UserError(
            f"{rows} training drops take {gigabytes:.1f} GB, max_data_gb is {max_data_gb:g}: name less CSI, or raise"
            " max_data_gb if the memory is there"
        )
    clean = torch.empty(rows, samples, shape.num_rx, shape.num_tx, dtype=torch.complex64)
    noisy = torch.empty(rows if stored else 0, shape.num_history, *clean.shape[2:], dtype=torch.complex64)
    snr_db = torch.empty(rows)
    filled = 0
    for root in roots:
        for name, drops in iter_csi(root, "train"):
            sequences = torch.cat([drops.clean_history, drops.future], 1)
            if sequences.shape[1:] != clean.shape[1:]:
                raise UserError(f"shard {name} of {root} has another shape than its validation split: make it again")
            own = slice(filled, filled + len(drops))
            clean[own], scale = normalise_power(sequences, shape.num_history)
            snr_db[own] = drops.pilot_snr_db
            if stored:
                noisy[own] = drops.history / scale
            filled += len(drops)
    return CsiTrainingData(clean=clean, stored=(noisy, snr_db) if stored else None, val=val, shape=shape)


def _check_drops_apart(roots: Sequence[Path]) -> None:
    """Refuse drops that are in the training split and in another one, also of another artifact."""
    where: dict[str, dict[str, Path]] = {"train": {}, "val": {}, "test": {}}
    for root in roots:
        artifact = Artifact.open(root, "csi")
        for split in where:
            if split in artifact.splits:
                ids = artifact.table("csi", split, ["drop_id"]).column("drop_id").to_pylist()
                where[split] |= dict.fromkeys(ids, root)
    train = where.pop("train")
    for split, others in where.items():
        if shared := sorted(set(train) & set(others)):
            raise UserError(
                f"drop {shared[0]} is in the train split of {train[shared[0]]} and in the {split} split of"
                f" {others[shared[0]]} ({len(shared)} drops are): give the artifacts different seeds"
            )


def draw_batch(
    data: CsiTrainingData,
    size: int,
    pilot_snr_db: tuple[float, float],
    generator: torch.Generator,
    *,
    reverse: bool = True,
    conjugate: bool = True,
) -> tuple[Complex64[Tensor, "B T Nr Nt"], Complex64[Tensor, "B P Nr Nt"], Float[Tensor, " B"]]:
    """Draw sequences, turn some around in time, conjugate some, and add noise to their histories.

    What a sequence is scaled by is the power of its clean history alone. Where the data hold noisy histories, those
    are taken as they are, and nothing is reversed.

    Returns:
        Noisy histories, clean futures, and the pilot SNRs [dB].
    """
    num_history = data.shape.num_history
    index = torch.randint(len(data.clean), (size,), generator=generator)
    h = data.clean[index]
    backwards, mirrored = (torch.rand(2, size, generator=generator) < 0.5).view(2, size, 1, 1, 1)
    if data.stored is not None:
        noisy, snr_db = (column[index] for column in data.stored)
        if conjugate:
            noisy, h = (torch.where(mirrored, x.conj(), x) for x in (noisy, h))
        return noisy, h[:, num_history:], snr_db
    if reverse:
        h = normalise_power(torch.where(backwards, h.flip(1), h), num_history)[0]
    if conjugate:
        h = torch.where(mirrored, h.conj(), h)
    low, high = pilot_snr_db
    snr_db = low + (high - low) * torch.rand(size, generator=generator)
    return add_pilot_noise(h[:, :num_history], snr_db, generator), h[:, num_history:], snr_db
