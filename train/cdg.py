"""Training of CDG around a frozen language model, eqs. (30)-(32).

::

    clean T+P samples ─► conjugate? ─► reverse? ─► noise at a new SNR ─► Cdg ─┬─► weighted NMSE over the classical one
                                            └─► clean future ─► k-means code ─┴─► + λ cross-entropy / ln V'

Readings of (32), L = L_NMSE + λ L_CE: each sample's NMSE (31) is weighted by SNR^``snr_balance``, so that low SNRs
do not dominate, and the mean is divided by that of the classical filter bank on the training split, so that a loss
of 1 means no better than classical. The cross-entropy is divided by ln V'. Its targets are k-means codes of features
of the clean future window (see :func:`~sclmkb.common.models.csi.features.future_features`). The weights are selected
on the validation split; what training starts from, the classical predictor, is the first candidate.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import Field, field_validator
from scipy.cluster.vq import kmeans2
from torch import Tensor
from torch.nn import functional as F

from sclmkb.common.artifacts import Artifact
from sclmkb.common.channel.csi import CsiSet, EigenBeams, add_pilot_noise, load_csi, normalise_power
from sclmkb.common.cli import limit_threads, say
from sclmkb.common.config import speed_only
from sclmkb.common.errors import UserError
from sclmkb.common.metrics import mean_nmse_db, nmse, nmse_by_snr_db
from sclmkb.common.models.csi.base import predict_in_batches
from sclmkb.common.models.csi.cdg import Cdg, CdgSettings
from sclmkb.common.models.csi.cdg_checkpoint import build_cdg, save_cdg
from sclmkb.common.models.csi.features import future_features
from sclmkb.common.models.csi.lmmse import EigenBeamLmmse
from sclmkb.common.seeds import derive_seed, make_generator
from sclmkb.train.checkpoint import TrainingRun, TrainingState, trained_tensors
from sclmkb.train.loop import cosine_schedule, fit


class CdgTrainSettings(CdgSettings):
    """Settings of ``sclmkb-train cdg``: those of the model, and how it is fitted.

    Attributes:
        num_steps: optimiser steps.
        batch_size: drops a step.
        learning_rate: of AdamW, at its peak.
        weight_decay: of AdamW.
        warmup_steps: steps of rising learning rate.
        ce_weight: λ of (32).
        snr_balance: exponent of the SNR in a sample's weight.
        pilot_snr_db: range [dB] that the pilot noise of training is redrawn in.
        num_validations: how often the validation split is measured.
        save_every: steps between two saved states.
        seed: everything random follows from it.
        threads: CPU threads; all cores if left out.
    """

    num_steps: int = Field(default=600, ge=1)
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup_steps: int = Field(default=30, ge=0)
    ce_weight: float = Field(default=0.1, ge=0)
    snr_balance: float = 0.5
    pilot_snr_db: tuple[float, float] = (8.0, 22.0)
    num_validations: int = Field(default=6, ge=1)
    save_every: int = speed_only(50, ge=1)
    seed: int = 0
    threads: int | None = speed_only(None)

    @field_validator("pilot_snr_db")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError("the first value of a range must not be above the second")
        return value

    def model_settings(self) -> CdgSettings:
        """Return the settings of the model alone."""
        return CdgSettings.model_validate({name: getattr(self, name) for name in CdgSettings.model_fields})


def train_cdg(settings: CdgTrainSettings, csi: Path, out: Path, *, new_run: bool = False) -> Path:
    """Train CDG on a CSI artifact and write its checkpoint, or go on with that.

    Returns:
        The folder of the checkpoint.

    Raises:
        UserError: on bad CSI, an unreadable language model, or another run in ``out``.
    """
    limit_threads(settings.threads)
    data = {split: load_csi(csi, split) for split in ("train", "val")}
    shape = data["train"].shape
    least = settings.ar_order + shape["num_future"]
    if settings.ar_order and shape["num_history"] < least:
        raise UserError(
            f"the AR({settings.ar_order}) expert needs {least} history samples, the CSI in {csi} has"
            f" {shape['num_history']}: --set ar_order=0 leaves it out"
        )
    model = build_cdg(settings.model_settings(), shape, settings.seed)
    run = TrainingRun.open(
        out,
        kind="cdg",
        settings=settings.fingerprint_fields(),
        inputs={"csi": Artifact.open(csi, "csi", verify=False).fingerprint, "model": model.backbone.fingerprint},
        new_run=new_run,
    )
    if run.finished:
        say(f"cdg: already trained in {out}; --new-run trains again")
        return out
    trainer = CdgTrainer(settings, model, data["train"], data["val"])
    state = trainer.state
    if not run.state_path.exists():
        first = trainer.validate()
        state.notes |= {"best": first["val_gain_db"], "best_step": 0}
        state.tensors = {name: t.detach().clone() for name, t in trained_tensors(model).items()}
        run.log({"step": 0, **first})
    every = max(1, settings.num_steps // settings.num_validations)
    best = fit(
        run,
        state,
        num_steps=settings.num_steps,
        train_step=trainer.step,
        validate=trainer.validate,
        select="val_gain_db",
        validate_at=frozenset(range(every, settings.num_steps + 1, every)),
        save_every=settings.save_every,
        description="cdg: steps",
    )
    model.load_state_dict(best, strict=False)
    measured = trainer.validate()
    save_cdg(
        out,
        model,
        shape=shape,
        seed=settings.seed,
        settings=settings.fingerprint_fields(),
        tensors=best,
        info={
            "inputs": {"csi": Artifact.open(csi, "csi", verify=False).fingerprint},
            "measurements": {"best_step": state.notes["best_step"], **measured},
            "seconds": state.notes.get("seconds"),
        },
    )
    run.state_path.unlink(missing_ok=True)
    bins = nmse_by_snr_db(trainer.validation_nmse(), data["val"].pilot_snr_db)
    listed = ", ".join(f"{name} {value:.1f}" for name, (_, value) in bins.items())
    say(
        f"cdg: validation NMSE {measured['val_nmse_db']:.2f} dB (classical filter {trainer.classical_db:.2f} dB);"
        f" by pilot SNR: {listed}"
    )
    return out


class CdgTrainer:
    """Batches, loss and validation.

    Args:
        settings: how to fit.
        model: what to fit; its filter bank and code book are fitted here.
        train: training drops; their stored noise is not used.
        val: validation drops, with the noise they were stored with.
    """

    def __init__(self, settings: CdgTrainSettings, model: Cdg, train: CsiSet, val: CsiSet) -> None:
        self.settings, self.model, self.val = settings, model, val
        self.num_history = train.history.shape[1]
        self.clean = torch.cat([train.clean_history, train.future], 1)
        model.bank.fit(self.clean, settings.pilot_snr_db, make_generator(settings.seed, "cdg", "bank"))
        self.codes = self._fit_codes(train) if settings.head == "soft_token" and settings.ce_weight > 0 else None
        self.reference, self.classical_db = self._classical()
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(self.parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        scheduler = cosine_schedule(optimizer, settings.num_steps, settings.warmup_steps)
        self.state = TrainingState(module=model, optimizer=optimizer, scheduler=scheduler)

    def step(self, index: int) -> Mapping[str, float]:
        """Do optimiser step number ``index``; its batch, augmentation and noise depend on nothing else."""
        generator = make_generator(self.settings.seed, "cdg", "step", index)
        history, future, snr_db = self._batch(generator)
        losses = self.losses(history, future, snr_db)
        self.state.optimizer.zero_grad()
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.state.optimizer.step()
        if self.state.scheduler is not None:
            self.state.scheduler.step()
        return {name: float(value.detach()) for name, value in losses.items()}

    def losses(self, history: Tensor, future: Tensor, snr_db: Tensor) -> dict[str, Tensor]:
        """Return the joint loss (32) and its parts for a batch."""
        output = self.model(history, snr_db)
        wanted = output.beams.to_beams(future / output.scale)
        ratios = nmse(wanted, output.predicted)  # the same in beams as in antennas
        found = {"nmse": ratios.mean(), "loss": (self._weights(snr_db) * ratios).mean() / self.reference}
        if self.codes is not None:
            features = future_features(wanted, self.model.num_directions)
            target = torch.cdist(features, self.codes).argmin(-1)
            entropy = F.cross_entropy(output.logits.flatten(0, 1), target.flatten())
            found["ce"] = entropy / math.log(self.settings.num_prototypes)
            found["loss"] = found["loss"] + self.settings.ce_weight * found["ce"]
        return found

    def validate(self) -> dict[str, float]:
        """Measure the validation split; ``val_gain_db``, the weighted NMSE below 0 dB, is what selects."""
        ratios = self.validation_nmse()
        weighted = self._weights(self.val.pilot_snr_db) * ratios
        return {"val_nmse_db": mean_nmse_db(ratios), "val_gain_db": -mean_nmse_db(weighted)}

    def validation_nmse(self) -> Tensor:
        """Return each validation drop's NMSE."""
        num_future = self.val.future.shape[1]
        predicted = predict_in_batches(self.model, self.val.history, self.val.pilot_snr_db, num_future)
        return nmse(self.val.future, predicted)

    def _batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        size, (low, high) = self.settings.batch_size, self.settings.pilot_snr_db
        h = self.clean[torch.randint(len(self.clean), (size,), generator=generator)]
        reverse, conjugate = (torch.rand(2, size, generator=generator) < 0.5).view(2, size, 1, 1, 1)
        h = torch.where(reverse, h.flip(1), h)
        h = torch.where(conjugate, h.conj(), h)
        snr_db = low + (high - low) * torch.rand(size, generator=generator)
        clean, future = h[:, : self.num_history], h[:, self.num_history :]
        return add_pilot_noise(clean, snr_db, generator), future, snr_db

    def _weights(self, snr_db: Tensor) -> Tensor:
        """Return SNR^balance, 1 in the middle of the training range."""
        middle = sum(self.settings.pilot_snr_db) / 2
        return torch.pow(10.0, self.settings.snr_balance * (snr_db - middle) / 10)

    def _fit_codes(self, train: CsiSet) -> Tensor:
        """Return the k-means code book of the targets of (30): one code for each prototype."""
        unit, scale = normalise_power(train.clean_history)
        parts = []
        for start in range(0, len(unit), 200):
            chosen = slice(start, start + 200)
            beams = EigenBeams.of(unit[chosen]).to_beams(train.future[chosen] / scale[chosen])
            parts.append(future_features(beams, self.model.num_directions).flatten(0, 1))
        features = torch.cat(parts)
        seed = derive_seed(self.settings.seed, "cdg", "codes") % 2**32
        centres, _ = kmeans2(features.numpy(), self.settings.num_prototypes, minit="++", iter=15, seed=seed)
        return torch.from_numpy(centres)

    def _classical(self) -> tuple[float, float]:
        """Return the weighted NMSE of the filter bank on training drops, and its validation NMSE in dB."""
        generator = make_generator(self.settings.seed, "cdg", "reference")
        bank, num_future = EigenBeamLmmse(self.model.bank), self.val.future.shape[1]
        total, count = 0.0, 0
        for _ in range(8):
            history, future, snr_db = self._batch(generator)
            ratios = nmse(future, bank.predict(history, snr_db, num_future))
            total, count = total + float((self._weights(snr_db) * ratios).sum()), count + len(ratios)
        predicted = predict_in_batches(bank, self.val.history, self.val.pilot_snr_db, num_future)
        return total / count, mean_nmse_db(nmse(self.val.future, predicted))
