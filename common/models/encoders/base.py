"""Encoders of media: each to unit-length embeddings in the space of the captions.

An encoder is one file: its settings and a :class:`MediaEncoder` that registers itself in :data:`ENCODERS`. None has
dropout, so that a resumed training is the same; what varies is the training data (augmentation).
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, cast

import torch
from jaxtyping import Bool, Float
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from sclmkb.common.artifacts.files import read_json
from sclmkb.common.config import Settings
from sclmkb.common.errors import UserError
from sclmkb.common.modalities.base import MediaBatch, MediaForm
from sclmkb.common.modalities.store import MediaStore
from sclmkb.common.models.pretrained import (
    clear_refusal,
    content_fingerprint,
    load_weights,
    read_config,
    resolve_encoder,
)
from sclmkb.common.registry import Registry


class MediaEncoderSettings(Settings):
    """Settings of a media encoder; a subclass gives ``kind`` one value, its default, which tells it from others."""

    kind: str = Field(description="the media encoder")

    def form(self) -> MediaForm:
        """Return what media must look like."""
        raise NotImplementedError


def media_fingerprint(settings: MediaEncoderSettings) -> str:
    """Return a hash of a pre-trained encoder's files, for the plan of a run; empty where there is none.

    Raises:
        UserError: if it is not there.
    """
    model = getattr(settings, "model", None)
    return content_fingerprint(resolve_encoder(model)) if model is not None else ""


def read_media_config(name: str, family: str) -> tuple[str, Any]:
    """Return where a pre-trained media encoder is and its configuration; it must be of a family.

    Raises:
        UserError: if it is not there or of another family.
    """
    resolved = resolve_encoder(name)
    config = read_config("media encoder", name, resolved)
    if not str(config.model_type).startswith(family):
        raise UserError(f"the media encoder '{name}' is of the kind {config.model_type}, not {family}")
    return resolved, config


def load_media_model(loader: Any, name: str, resolved: str, config: Any) -> nn.Module:
    """Return a whole media encoder in evaluation mode.

    Raises:
        UserError: if it cannot be loaded or lacks weights.
    """
    model, missing = load_weights(loader, "media encoder", name, resolved, config)
    if missing:
        raise UserError(
            f"the media encoder '{name}' lacks the weights '{missing[0]}' (and {len(missing) - 1} more): name a"
            " complete model"
        )
    return cast(nn.Module, model.eval())


def read_preprocessor(name: str, resolved: str) -> dict[str, Any]:
    """Return the model's ``preprocessor_config.json``; empty where it has none."""
    from transformers.utils import cached_file

    with clear_refusal("media encoder", name):
        path = cached_file(resolved, "preprocessor_config.json", _raise_exceptions_for_missing_entries=False)
    return dict(read_json(Path(path))) if path else {}


class MediaEncoder(nn.Module):
    """Base of the encoders: features of its own kind, a linear map to d values, unit length.

    Attributes:
        is_pretrained: whether it has a pre-trained part ``model``, which stays in evaluation mode: no dropout.
    """

    is_pretrained = False

    def __init__(self, feature_width: int, embedding_width: int) -> None:
        super().__init__()
        self.head = nn.Linear(feature_width, embedding_width)

    def features(self, batch: MediaBatch) -> Tensor:
        """Return what the linear map takes ``[B, w]``."""
        raise NotImplementedError

    def forward(self, batch: MediaBatch) -> Float[Tensor, "B d"]:
        """Return unit-length embeddings ``[B, d]``."""
        return nn.functional.normalize(self.head(self.features(batch)).float(), dim=-1)

    def standardise(self, store: MediaStore) -> None:
        """Set what values are standardised with to what the training media have; nothing where there is no need."""
        for part in self.children():
            if isinstance(part, Standardise):
                part.fit(store)

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Return the trained parameters that come from a pre-trained model; they want a lower learning rate."""
        return [p for p in self.get_submodule("model").parameters() if p.requires_grad] if self.is_pretrained else []

    def train(self, mode: bool = True) -> "MediaEncoder":
        """Set training mode for all but a pre-trained part."""
        super().train(mode)
        if self.is_pretrained:
            self.get_submodule("model").eval()
        return self


ENCODERS: Registry[MediaEncoder] = Registry("sclmkb.common.models.encoders")
"""The class of each kind; see :func:`build_media_encoder`."""


def _default_kind(value: Any) -> Any:
    return {"kind": "cnn", **value} if isinstance(value, dict) else value


AnyMediaEncoderSettings = Annotated[MediaEncoderSettings, ENCODERS, BeforeValidator(_default_kind)]
"""Settings of any media encoder; their ``kind`` is ``cnn`` where nothing is said."""


def build_media_encoder(settings: MediaEncoderSettings, shape: Sequence[int], embedding_width: int) -> MediaEncoder:
    """Return the encoder of media of a shape, ``MediaStore.shape``, to embeddings of width d.

    Raises:
        UserError: if a pre-trained model cannot be loaded or does not fit the media.
    """
    build: Any = ENCODERS[settings.kind]
    return cast(MediaEncoder, build(settings, shape, embedding_width))


class Standardise(nn.Module):
    """Takes the mean off values, divides by their deviation, and sets what is behind an item's end to zero.

    Args:
        num_values: D for a mean and deviation of each of the last axis' values, 1 for one of all.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, num_values: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_values))
        self.register_buffer("deviation", torch.ones(num_values))

    def fit(self, store: MediaStore, most: int = 4096) -> None:
        """Take mean and deviation of the real frames of a store's items, of ``most`` evenly chosen ones at the most."""
        chosen = torch.linspace(0, len(store) - 1, min(len(store), most)).round().long()
        count, total, squares = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for index in torch.split(chosen, 64):
            values, length = store.take(index)
            frames = values[real_frames(length, values.shape[1])].double()
            frames = frames if len(self.mean) > 1 else frames.reshape(-1, 1)
            count, total, squares = count + len(frames), total + frames.sum(0), squares + frames.square().sum(0)
        mean = total / max(count, 1)
        deviation = (squares / max(count, 1) - mean.square()).clamp(min=0).sqrt()
        self.mean.copy_(mean)
        self.deviation.copy_(torch.where(deviation < 1e-6, 1.0, deviation))  # what never changes stays as it is

    def forward(self, batch: MediaBatch) -> Float[Tensor, "B F D"]:
        """Return standardised values, zero behind an item's end."""
        values = (batch.values.float() - self.mean) / self.deviation
        return values * real_frames(batch.length, values.shape[1])[:, :, None]


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = _conv(width, width, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + cast(Tensor, self.inner(x))


def _conv(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def residual_stages(channels: int, widths: Sequence[int]) -> nn.Sequential:
    """Return a small residual CNN of ``channels`` inputs: conv 3×3 / 2, then conv 3×3 / 2 and a block per width."""
    stem = max(widths[0] // 2, 1)
    layers: list[nn.Module] = [_conv(channels, stem, stride=2)]
    for before, width in pairwise((stem, *widths)):
        layers += [_conv(before, width, stride=2), _Residual(width)]
    return nn.Sequential(*layers)


def real_frames(length: Tensor, num_frames: int) -> Bool[Tensor, "B F"]:
    """Return which frames are real."""
    return torch.arange(num_frames, device=length.device) < length[:, None]


def pool_frames(x: Tensor, real: Tensor) -> Tensor:
    """Return mean and maximum over the real frames ``[B, 2w]`` of states ``[B, F, w]``."""
    kept = real[:, :, None]
    mean = (x * kept).sum(1) / kept.sum(1).clamp(min=1)
    return torch.cat([mean, x.masked_fill(~kept, -torch.inf).amax(1)], dim=1)


def check_heads(width: int, num_heads: int) -> None:
    """Raise ValueError unless the heads divide a transformer's width."""
    if width % num_heads:
        raise ValueError(f"num_heads = {num_heads} does not divide width = {width}")
