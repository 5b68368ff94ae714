"""The fitted predictors: how they are built, saved and loaded.

Checkpoints hold what was fitted; a frozen language model is named with its fingerprint, not copied.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import TypeAdapter
from torch import Tensor

from sclmkb.common.artifacts.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from sclmkb.common.csi.sets import CsiShape
from sclmkb.common.errors import UserError
from sclmkb.common.models.backbone import Backbone
from sclmkb.common.models.csi.base import PREDICTORS, AnyPredictorSettings, FittedPredictor, PredictorSettings
from sclmkb.common.seeds import make_generator


def build_predictor(settings: PredictorSettings, shape: CsiShape, seed: int) -> FittedPredictor:
    """Build a predictor that is not fitted yet; the seed is that of its weights, and of a random backbone.

    Raises:
        UserError: if its language model cannot be loaded, or it cannot work with the shape.
    """
    known: dict[str, Any] = {"generator": make_generator(seed, settings.kind, "weights")}
    options: Any = settings
    if hasattr(options, "language_model"):
        known["backbone"] = Backbone.load(
            options.language_model, num_layers=options.num_layers, kind=options.backbone, seed=seed
        )
    build: Any = PREDICTORS[settings.kind]
    try:
        return cast(FittedPredictor, build(settings, shape, **known))
    except ValueError as error:
        raise UserError(f"predictor '{settings.kind}' cannot work with this CSI: {error}") from None


def language_model_of(predictor: FittedPredictor) -> dict[str, str] | None:
    """Return name and fingerprint of the language model inside a predictor; None if it has none."""
    backbone = getattr(predictor, "backbone", None)
    if not isinstance(backbone, Backbone):
        return None
    settings: Any = predictor.settings
    return {"name": settings.language_model, "fingerprint": backbone.fingerprint}


def save_predictor(
    root: Path,
    predictor: FittedPredictor,
    *,
    seed: int,
    settings: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    info: Mapping[str, Any],
) -> None:
    """Write the checkpoint of a fitted predictor.

    Args:
        root: the folder.
        predictor: what was fitted.
        seed: that it was built with.
        settings: of the training run, with those of the predictor as ``model``.
        tensors: what was fitted, by name.
        info: more to keep: inputs and measurements.
    """
    own = {"shape": predictor.shape.to_dict(), "seed": seed, "language_model": language_model_of(predictor)}
    save_checkpoint(root, kind="cdg", settings=settings, tensors=tensors, info={**own, **info})


def load_predictor(root: Path) -> tuple[FittedPredictor, Checkpoint]:
    """Read a fitted predictor, with its language model if it has one.

    Raises:
        UserError: if the checkpoint is missing, corrupt or of another kind or version, or the language model cannot be
            loaded or is not the one it was trained with.
    """
    checkpoint = load_checkpoint(root, "cdg")
    settings_type: TypeAdapter[PredictorSettings] = TypeAdapter(AnyPredictorSettings)
    try:
        settings = settings_type.validate_python(checkpoint.settings["model"])
        shape = CsiShape(**{name: int(value) for name, value in checkpoint.info["shape"].items()})
        seed, named = int(checkpoint.info["seed"]), checkpoint.info["language_model"]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"checkpoint {root} was written by another version: train it again") from None
    predictor = build_predictor(settings, shape, seed)
    found = language_model_of(predictor)
    if found is not None and (named is None or found["fingerprint"] != named["fingerprint"]):
        raise UserError(
            f"checkpoint {root} was trained with another '{(named or found)['name']}' than the one that is there now:"
            " restore that model, or train again"
        )
    checkpoint.load_into(predictor)
    return predictor.eval(), checkpoint


def check_shape(checkpoint: Checkpoint, shape: CsiShape, csi: Path) -> None:
    """Refuse CSI of another shape than a checkpoint was trained on.

    Raises:
        UserError: naming the first number that differs.
    """
    given = shape.to_dict()
    for name, wanted in checkpoint.info["shape"].items():
        if given[name] != wanted:
            raise UserError(
                f"checkpoint {checkpoint.root} was trained with {name} = {wanted}, the CSI in {csi} has {given[name]}:"
                " train on this CSI, or name the CSI it was trained on"
            )
