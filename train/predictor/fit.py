"""``sclmkb-train cdg``: fits any CSI predictor that is fitted, CDG unless another is named.

::

    train splits ─► statistics in closed form ─► gradient descent on batches with fresh noise ─► best on validation

A predictor without parameters for gradient descent is finished after the statistics. What training starts from is the
first candidate of the selection: for CDG, Wiener filters of one fixed spectrum.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.config import Settings, speed_only
from sclmkb.common.console import limit_threads, say
from sclmkb.common.metrics import nmse_by_snr_db
from sclmkb.common.models.csi.base import AnyPredictorSettings
from sclmkb.common.models.csi.cdg.settings import CdgSettings
from sclmkb.common.models.csi.zoo import build_predictor, language_model_of, save_predictor
from sclmkb.common.seeds import make_generator
from sclmkb.train.engine.checkpoint import TrainingRun, trained_tensors
from sclmkb.train.engine.devices import start_accelerator
from sclmkb.train.engine.loop import fit
from sclmkb.train.predictor.data import load_training_data
from sclmkb.train.predictor.trainer import CsiTrainer


class CsiTrainSettings(Settings):
    """Settings of ``sclmkb-train cdg``."""

    model: AnyPredictorSettings = Field(
        default=CdgSettings(), description="the predictor (`kind`) and its own settings"
    )
    num_steps: int = Field(default=600, ge=1, description="most optimiser steps")
    batch_size: int = Field(default=32, ge=1, description="drops per step, over all processes")
    learning_rate: float | None = Field(
        default=None, gt=0, description="peak learning rate of AdamW; default: the predictor's own, or else 0.001"
    )
    weight_decay: float = Field(default=0.01, ge=0, description="weight decay of AdamW")
    warmup_steps: int = Field(default=30, ge=0, description="steps in which the learning rate rises")
    snr_balance: float = Field(
        default=0.5, description="exponent of the SNR in the weight of a sample, so that low SNRs do not dominate"
    )
    histories: Literal["redrawn", "stored"] = Field(
        default="redrawn",
        description="redrawn: new white noise on the clean histories at each step; stored: as in the artifact, for "
        "histories that a quantiser or a pilot pattern has shaped. Fitted statistics always redraw",
    )
    pilot_snr_db: tuple[float, float] = Field(
        default=(8.0, 22.0), description="range (least, most) of the redrawn pilot SNR in training [dB]"
    )
    reverse: bool = Field(
        default=True, description="whether half of the training sequences are played backwards in time"
    )
    conjugate: bool = Field(default=True, description="whether half of the training sequences are conjugated")
    num_validations: int = Field(default=6, ge=1, description="number of measurements on the validation split")
    patience: int | None = Field(
        default=None,
        ge=1,
        description="number of validations without a better one after which training stops; default: never",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="precision of the layers that allow a choice; auto: bfloat16 on GPUs that have it"
    )
    save_every: int = speed_only(50, ge=1, description="steps between two saved states")
    max_data_gb: float = speed_only(8.0, gt=0, description="most memory that the training sequences may take [GB]")
    seed: int = Field(default=0, description="seed of everything random")
    threads: int | None = speed_only(None, description="CPU threads; default: all cores")

    @field_validator("model", mode="before")
    @classmethod
    def _cdg_by_default(cls, value: Any) -> Any:
        return {"kind": "cdg", **value} if isinstance(value, dict) else value

    @field_validator("pilot_snr_db")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError("the first value of a range must not be above the second")
        return value


def train_predictor(settings: CsiTrainSettings, csi: Sequence[Path], out: Path, *, new_run: bool = False) -> Path:
    """Fit a predictor to CSI artifacts of one shape, or go on with the run in ``out``; return the checkpoint's folder.

    Raises:
        UserError: on bad CSI, an unreadable language model, or another run in ``out``.
    """
    accelerator = start_accelerator(settings.precision)
    limit_threads(settings.threads)
    data = load_training_data(csi, settings.max_data_gb, stored=settings.histories == "stored")
    name = settings.model.kind
    model = build_predictor(settings.model, data.shape, settings.seed)
    inputs = {f"csi{i or ''}": Artifact.open(root, "csi", verify=False).fingerprint for i, root in enumerate(csi)}
    language_model = language_model_of(model)
    named = {"model": language_model["fingerprint"]} if language_model else {}
    fields = settings.fingerprint_fields()
    with accelerator.main_process_first():
        run = TrainingRun.open(
            out,
            kind="cdg",
            settings=fields,
            inputs=inputs | named,
            new_run=new_run,
            writes=accelerator.is_main_process,
        )
    if run.finished:
        say(f"{name}: already trained in {out}; --new-run trains again")
        return out
    if not run.state_path.exists():
        model.fit_statistics(data.clean, settings.pilot_snr_db, make_generator(settings.seed, "cdg", "statistics"))
    trainer = CsiTrainer(settings, model, data, accelerator)
    state = trainer.state
    if not run.state_path.exists():
        first = trainer.validate()
        state.keep_as_best(first["val_gain_db"])
        run.log({"step": 0, **first})
    if model.has_gradients:
        every = max(1, settings.num_steps // settings.num_validations)
        best = fit(
            run,
            state,
            accelerator,
            num_steps=settings.num_steps,
            train_step=trainer.step,
            validate=trainer.validate,
            select="val_gain_db",
            validate_at=frozenset(range(every, settings.num_steps + 1, every)),
            patience=settings.patience,
            save_every=settings.save_every,
            description=f"{name}: steps",
        )
        model.load_state_dict(best, strict=False)
    ratios = trainer.validation_nmse()
    measured = trainer.measures(ratios)
    if run.writes:
        save_predictor(
            out,
            model,
            seed=settings.seed,
            settings=fields,
            tensors=trained_tensors(model),
            info={
                "inputs": inputs,
                "measurements": {"best_step": state.notes["best_step"], **measured},
                "steps": state.step,
                "seconds": state.notes.get("seconds"),
            },
        )
        run.state_path.unlink(missing_ok=True)
    bins = nmse_by_snr_db(ratios, trainer.val_snr_db)
    listed = ", ".join(f"{key} {value:.1f}" for key, (_, value) in bins.items())
    say(f"{name}: validation NMSE {measured['val_nmse_db']:.2f} dB; by pilot SNR: {listed}")
    accelerator.wait_for_everyone()
    return out
