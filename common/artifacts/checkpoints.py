"""Model checkpoints: a folder with safetensors and JSON, nothing that can run code when it is loaded.

::

    DIR/config.json          kind, format version, resolved settings, inputs, measurements
    DIR/model.safetensors    the parameters that were trained (a frozen language model is named, not copied)
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sclmkb.common.artifacts.files import read_json, replacing, write_json
from sclmkb.common.errors import UserError

_VERSIONS = {"cdg": "2"}
"""Of the kinds whose parameters have come to mean something else under the same names; of all others: 1."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A loaded checkpoint: its folder, the settings of the training, the trained parameters, all else that is known."""

    root: Path
    settings: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    info: dict[str, Any]

    def part(self, prefix: str) -> dict[str, torch.Tensor]:
        """Return the parameters whose names start with the prefix."""
        return {name: tensor for name, tensor in self.tensors.items() if name.startswith(prefix)}

    def fingerprint(self, prefix: str = "") -> str:
        """Return a hash of the parameters whose names start with the prefix."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.part(prefix).items()):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def load_into(self, module: torch.nn.Module) -> None:
        """Copy the tensors into a module whose other parameters are frozen and stay as they are.

        Raises:
            UserError: if a trainable parameter is missing, unknown or of another shape.
        """
        own = module.state_dict()
        wanted = {name for name, p in module.named_parameters() if p.requires_grad}
        problems = [f"'{name}' is missing" for name in sorted(wanted - set(self.tensors))]
        for name, tensor in self.tensors.items():
            if name not in own:
                problems.append(f"'{name}' is unknown")
            elif own[name].shape != tensor.shape:
                problems.append(f"'{name}' is {list(tensor.shape)}, the model needs {list(own[name].shape)}")
        if problems:
            raise UserError(
                f"checkpoint {self.root} does not fit the model: {problems[0]}"
                f"{f' (and {len(problems) - 1} more)' if len(problems) > 1 else ''};"
                " use the settings it was trained with, or train again"
            )
        module.load_state_dict(self.tensors, strict=False)


def save_checkpoint(
    root: Path,
    *,
    kind: str,
    settings: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    info: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint; ``config.json`` comes last and marks it as complete."""
    with replacing(root / "model.safetensors") as temporary:
        save_file({name: t.detach().contiguous().cpu() for name, t in tensors.items()}, temporary)
    config = {"kind": kind, "version": _VERSIONS.get(kind, "1"), "settings": dict(settings), **(info or {})}
    write_json(root / "config.json", config)


def load_checkpoint(root: Path, kind: str) -> Checkpoint:
    """Read a checkpoint of a kind, e.g. ``cdg`` or ``jscc``.

    Raises:
        UserError: if it is missing, unfinished, of another kind or version, or corrupt.
    """
    path = root / "config.json"
    if not path.exists():
        raise UserError(f"no {kind} checkpoint at {root}: train it with sclmkb-train {kind} --out {root}")
    config = read_json(path)
    if config.pop("kind", None) != kind:
        raise UserError(f"{root} is no {kind} checkpoint")
    if config.pop("version", None) != _VERSIONS.get(kind, "1"):
        raise UserError(f"checkpoint {root} has another format version: train it again")
    try:
        tensors = load_file(root / "model.safetensors")
    except (SafetensorError, OSError) as error:
        raise UserError(f"corrupt checkpoint {root / 'model.safetensors'}: {error}; train it again") from None
    return Checkpoint(root=root, settings=config.pop("settings"), tensors=tensors, info=config)
