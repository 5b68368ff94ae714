"""Saving and loading trained CDG models: the trained tensors, and the name and fingerprint of the frozen model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from sclmkb.common.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from sclmkb.common.errors import UserError
from sclmkb.common.models.backbone import Backbone
from sclmkb.common.models.csi.cdg import Cdg, CdgSettings
from sclmkb.common.seeds import make_generator

_SHAPE = ("num_history", "num_future", "num_rx", "num_tx")


def build_cdg(settings: CdgSettings, shape: Mapping[str, int], seed: int) -> Cdg:
    """Build an untrained CDG model around its language model.

    Args:
        settings: shape and options.
        shape: ``num_history``, ``num_future``, ``num_rx``, ``num_tx``.
        seed: of the initial weights, and of the random backbone.

    Raises:
        UserError: if the language model cannot be loaded.
    """
    backbone = Backbone.load(settings.language_model, num_layers=settings.num_layers, kind=settings.backbone, seed=seed)
    return Cdg(settings, backbone, **shape, generator=make_generator(seed, "cdg", "weights"))


def save_cdg(
    root: Path,
    model: Cdg,
    *,
    shape: Mapping[str, int],
    seed: int,
    settings: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    info: Mapping[str, Any],
) -> None:
    """Write the checkpoint of a trained model; the frozen language model is named, not copied."""
    named = {"name": model.settings.language_model, "fingerprint": model.backbone.fingerprint}
    save_checkpoint(
        root,
        kind="cdg",
        settings=settings,
        tensors=tensors,
        info={"shape": dict(shape), "seed": seed, "language_model": named, **info},
    )


def load_cdg(root: Path) -> tuple[Cdg, Checkpoint]:
    """Read a trained model and its language model.

    Raises:
        UserError: if the checkpoint is missing, corrupt or of another kind, or the language model cannot be loaded or
            is not the one it was trained with.
    """
    checkpoint = load_checkpoint(root, "cdg")
    known = {name: value for name, value in checkpoint.settings.items() if name in CdgSettings.model_fields}
    try:
        settings = CdgSettings.model_validate(known)
        shape = {name: int(checkpoint.info["shape"][name]) for name in _SHAPE}
        seed, named = int(checkpoint.info["seed"]), checkpoint.info["language_model"]
    except (KeyError, TypeError, ValueError):
        raise UserError(f"checkpoint {root} was written by another version: train it again") from None
    model = build_cdg(settings, shape, seed)
    if model.backbone.fingerprint != named["fingerprint"]:
        raise UserError(
            f"checkpoint {root} was trained with another '{named['name']}' than the one that is there now: restore that"
            " model, or train again"
        )
    checkpoint.load_into(model)
    return model.eval(), checkpoint


def check_shape(checkpoint: Checkpoint, shape: Mapping[str, int], csi: Path) -> None:
    """Refuse CSI of another shape than a checkpoint was trained on.

    Raises:
        UserError: naming the first number that differs.
    """
    for name, wanted in checkpoint.info["shape"].items():
        if shape[name] != wanted:
            raise UserError(
                f"checkpoint {checkpoint.root} was trained with {name} = {wanted}, the CSI in {csi} has {shape[name]}:"
                " train on this CSI, or name the CSI it was trained on"
            )
