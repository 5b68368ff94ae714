"""Pre-trained text encoders, BERT-like or CLIP: which one, how it is loaded, how hidden states become a vector."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from sclmkb.common.config import Settings
from sclmkb.common.errors import UserError
from sclmkb.common.models.encoders.tuning import Tune
from sclmkb.common.models.pretrained import (
    clear_refusal,
    content_fingerprint,
    load_weights,
    quiet_loading,
    read_config,
    resolve_encoder,
)

Pooling = Literal["mean", "cls", "model"]
BATCH_SIZE = 128
"""Texts that are embedded at a time."""


class TextSettings(Settings):
    """Which text encoder, and what of it is trained."""

    name: str = Field(
        default="minilm", description="text encoder: minilm (embedded), a folder or a hub name of a BERT or CLIP model"
    )
    pooling: Pooling = Field(
        default="mean",
        description="mean: over the tokens; cls: the first token; model: the model's own output for a text (BERT's "
        "pooler, CLIP's projected last token)",
    )
    tune: Tune = Field(
        default="frozen",
        description="which weights are trained: frozen (none), the last layers, or LoRA adapters in the last layers",
    )
    num_layers: PositiveInt = Field(default=2, description="number of last layers that are tuned")
    lora_rank: PositiveInt = Field(default=8, description="rank of the LoRA adapters")
    max_length: PositiveInt = Field(
        default=128, description="tokens per text, at most the model's limit; longer texts are cut"
    )


class TextBatch(NamedTuple):
    """Hidden states of B texts below the tuned layers.

    Attributes:
        values: ``[B, L, w]``, zero behind a text's end.
        length: tokens of each text ``[B]``.
    """

    values: Tensor
    length: Tensor


def text_width(settings: TextSettings) -> int:
    """Return the width t of a text encoder's embeddings; reads its configuration alone.

    Raises:
        UserError: if there is no such encoder.
    """
    if (width := _plain_width(settings.name)) is not None:
        return width
    return pooled_width(read_text_config(settings.name), settings.pooling)


def _plain_width(name: str) -> int | None:
    """Return the width that a folder's configuration spells out; spares the seconds of importing transformers."""
    path = Path(resolve_encoder(name)) / "config.json"
    try:
        config = json.loads(path.read_text("utf-8"))
        clip = str(config["model_type"]).startswith("clip")
        return None if clip else int(config["hidden_size"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # transformers knows more, and what is wrong


def text_fingerprint(settings: TextSettings) -> str:
    """Return a hash of a text encoder's files, for the plan of a run.

    Raises:
        UserError: if there is no such encoder.
    """
    return content_fingerprint(resolve_encoder(settings.name))


def load_text_model(name: str, pooling: Pooling) -> tuple[nn.Module, Any, int]:
    """Return model, tokenizer, and the most tokens that the model takes."""
    from transformers import AutoModel, AutoTokenizer, CLIPTextModelWithProjection

    config = read_text_config(name)
    if is_clip(config) and pooling == "cls":
        raise UserError(f"the first token of '{name}' sees no other, as of any CLIP: use pooling=model or mean")
    resolved = resolve_encoder(name)
    loader = CLIPTextModelWithProjection if is_clip(config) else AutoModel
    with clear_refusal("text encoder", name), quiet_loading():
        tokenizer = AutoTokenizer.from_pretrained(resolved)
    model, missing = load_weights(loader, "text encoder", name, resolved, config)
    heads = ("pooler.", "text_projection.") if pooling != "model" else ()
    missing = [key for key in missing if not key.startswith(heads)]
    if missing:
        raise UserError(
            f"text encoder '{name}' lacks the weights '{missing[0]}' (and {len(missing) - 1} more) that"
            f" pooling={pooling} needs: name a complete model, or use pooling=mean"
        )
    tokenizer.padding_side = "right"
    positions = int(getattr(config, "max_position_embeddings", 1 << 20))
    return model, tokenizer, min(positions, int(tokenizer.model_max_length))


def read_text_config(name: str) -> Any:
    """Return the configuration of a text encoder; of a CLIP, that of its text half."""
    config = read_config("text encoder", name, resolve_encoder(name))
    half = getattr(config, "text_config", None)
    if half is None:
        return config
    half.projection_dim = config.projection_dim  # CLIP's two halves share it
    return half


def is_clip(config: Any) -> bool:
    """Return whether a configuration is that of a CLIP."""
    return str(config.model_type).startswith("clip")


def backbone_of(model: nn.Module) -> nn.Module:
    """Return the part of a model that has embeddings and layers."""
    return cast(nn.Module, getattr(model, "text_model", model))


def after_layers(model: nn.Module) -> list[nn.Module]:
    """Return what stands between the last layer and the embedding."""
    places = ((backbone_of(model), "final_layer_norm"), (model, "pooler"), (model, "text_projection"))
    found = [getattr(owner, name, None) for owner, name in places]
    return [module for module in found if module is not None]


def pooled_width(config: Any, pooling: Pooling) -> int:
    """Return the width t of what :func:`pool` gives of a model with a configuration."""
    return int(config.projection_dim if pooling == "model" and is_clip(config) else config.hidden_size)


def pool(model: Any, hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Return one vector per text ``[B, t]`` of the last hidden states ``[B, L, w]``."""
    if pooling == "mean":
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
    if pooling == "cls":
        return hidden[:, 0]
    if is_clip(model.config):
        last = (mask.sum(1) - 1).clamp(min=0)  # the end-of-text token
        projected: Tensor = model.text_projection(hidden[torch.arange(len(hidden), device=hidden.device), last])
        return projected
    if getattr(model, "pooler", None) is None:
        raise UserError(
            f"a text encoder of the kind {model.config.model_type} has no pooling of its own: use mean or cls"
        )
    pooled: Tensor = model.pooler(hidden)
    return pooled


def batches_by_length(lengths: Sequence[int], batch_size: int = BATCH_SIZE) -> Iterator[list[int]]:
    """Yield batches of places in order of length, so that padding is little."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
