"""Checkpoints of the first version, which knew pictures and frozen text encoders alone, by the names of today."""

from dataclasses import replace
from typing import Any

from sclmkb.common.checkpoints import Checkpoint


def with_present_names(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint of ``sclmkb-train jscc`` with settings and tensors named as today; a new one as it is."""
    trained: dict[str, Any] = dict(checkpoint.settings)
    if "encoder" in trained:
        trained.setdefault("text", {"name": trained.pop("encoder")})
    model = dict(trained["model"])
    if "picture_size" in model:
        model["media"] = {"kind": "cnn", "size": model.pop("picture_size"), "widths": model.pop("picture_widths")}
    former, present = "pictures.", "media."
    tensors = {
        present + name.removeprefix(former) if name.startswith(former) else name: tensor
        for name, tensor in checkpoint.tensors.items()
    }
    return replace(checkpoint, settings={**trained, "model": model}, tensors=tensors)
