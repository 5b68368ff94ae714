"""Frozen text encoders; embeddings are computed once and kept on disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sclmkb.common.artifacts.files import cache_dir, replacing
from sclmkb.common.config import fingerprint
from sclmkb.common.models.encoders.text import (
    BATCH_SIZE,
    Pooling,
    TextSettings,
    backbone_of,
    batches_by_length,
    best_device,
    load_text_model,
    pool,
    pooled_width,
)
from sclmkb.common.models.pretrained import content_fingerprint, resolve_encoder


class SentenceEncoder(nn.Module):
    """A BERT-like sentence encoder: tokens, transformer, one vector of all tokens, unit length.

    ::

        texts ─► tokenizer ─► transformer [B, L, w] ─► mean over tokens, first token, or as the model has it ─► x / ‖x‖

    Source: Reimers and Gurevych, Sentence-BERT, 2019; the embedded weights are all-MiniLM-L6-v2, d = 384.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, max_length: int = 128, pooling: Pooling = "mean") -> None:
        super().__init__()
        self.model, self.tokenizer, self.pooling = model, tokenizer, pooling
        self.max_length = max_length

    @classmethod
    def from_pretrained(
        cls, name: str = "minilm", *, pooling: Pooling = "mean", max_length: int = 128
    ) -> "SentenceEncoder":
        """Load ``minilm``, a local folder or a hub name.

        Raises:
            UserError: if it cannot be loaded, or lacks weights that are needed.
        """
        model, tokenizer, longest = load_text_model(name, pooling)
        return cls(model.eval(), tokenizer, min(max_length, longest), pooling)

    @property
    def width(self) -> int:
        """Width d of an embedding."""
        return pooled_width(self.model, self.pooling)

    def tokenize(self, texts: Sequence[str]) -> dict[str, Int[Tensor, "B L"]]:
        """Return padded token ids and attention mask, each ``[B, L]``."""
        encoded = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
        )
        return {name: encoded[name] for name in ("input_ids", "attention_mask")}

    def forward(self, input_ids: Int[Tensor, "B L"], attention_mask: Int[Tensor, "B L"]) -> Float[Tensor, "B d"]:
        """Return unit-length embeddings ``[B, d]`` of tokenised texts."""
        hidden = backbone_of(self.model)(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return nn.functional.normalize(pool(self.model, hidden, attention_mask, self.pooling), dim=-1)

    @torch.no_grad()
    def encode(self, texts: Sequence[str], batch_size: int = BATCH_SIZE) -> Float[Tensor, "B d"]:
        """Return unit-length embeddings ``[B, d]`` of texts; sorted by length inside, so that padding is little."""
        device = next(self.model.parameters()).device
        result = torch.empty(len(texts), self.width)
        for batch in batches_by_length([len(text) for text in texts], batch_size):
            tokens = self.tokenize([texts[i] for i in batch])
            result[batch] = self(**{name: t.to(device) for name, t in tokens.items()}).float().cpu()
        return result


def embed_texts(
    texts: Sequence[str], settings: TextSettings | str | None = None, cache: Path | None = None
) -> Float[Tensor, "B d"]:
    """Return the frozen encoder's embeddings ``[B, d]`` of texts, computed once and kept in a cache.

    The cache's key is the encoder and the list of texts; a file there that cannot be read is made again.

    Args:
        texts: what to embed.
        settings: which encoder (a name: that one with the other settings at their defaults).
        cache: folder of the cache, by default ``embeddings`` in :func:`cache_dir`.

    Raises:
        UserError: if the encoder cannot be loaded.
    """
    if not isinstance(settings, TextSettings):
        settings = TextSettings(name=settings or "minilm")
    source = content_fingerprint(resolve_encoder(settings.name))
    key = fingerprint([source, settings.pooling, settings.max_length, *texts])
    path = (cache or cache_dir() / "embeddings") / f"{key}.safetensors"
    try:
        embeddings: Tensor = load_file(path)["embeddings"]
        return embeddings
    except (OSError, SafetensorError, KeyError):
        pass
    embeddings = load_frozen(settings).encode(texts)
    with replacing(path) as temporary:
        save_file({"embeddings": embeddings}, temporary)
    mapped: Tensor = load_file(path)["embeddings"]
    return mapped


def load_frozen(settings: TextSettings) -> SentenceEncoder:
    """Return the frozen encoder that settings name, on the GPU if there is one."""
    encoder = SentenceEncoder.from_pretrained(settings.name, pooling=settings.pooling, max_length=settings.max_length)
    return encoder.to(best_device())
