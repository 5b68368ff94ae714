"""Frozen text encoders; embeddings are computed once and kept on disk."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sclmkb.common.artifacts.files import cache_dir, replacing
from sclmkb.common.config import fingerprint
from sclmkb.common.models.encoders.text import (
    BATCH_SIZE,
    TextSettings,
    backbone_of,
    batches_by_length,
    load_text_model,
    pool,
    pooled_width,
    text_fingerprint,
)
from sclmkb.common.precision import best_device


class SentenceEncoder(nn.Module):
    """A BERT-like sentence encoder: tokens, transformer, one vector of all tokens, unit length.

    ::

        texts ─► tokenizer ─► transformer [B, L, w] ─► mean over tokens, first token, or as the model has it ─► x / ‖x‖

    Source: Reimers and Gurevych, Sentence-BERT, 2019; the embedded weights are all-MiniLM-L6-v2, d = 384.
    """

    def __init__(self, settings: TextSettings) -> None:
        """Load the weights; a UserError says if there are none, or some that are needed are missing."""
        super().__init__()
        model, self.tokenizer, longest = load_text_model(settings.name, settings.pooling)
        self.model, self.pooling = model.eval(), settings.pooling
        self.max_length = min(settings.max_length, longest)

    @property
    def width(self) -> int:
        """Width d of an embedding."""
        return pooled_width(self.model.config, self.pooling)

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


def embed_texts(texts: Sequence[str], settings: TextSettings) -> Float[Tensor, "B d"]:
    """Return the frozen encoder's embeddings ``[B, d]`` of texts, computed once and kept in :func:`cache_dir`.

    The cache's key is the encoder and the list of texts; a file there that cannot be read is made again.

    Raises:
        UserError: if the encoder cannot be loaded.
    """
    key = fingerprint([text_fingerprint(settings), settings.pooling, settings.max_length, *texts])
    path = cache_dir() / "embeddings" / f"{key}.safetensors"
    try:
        embeddings: Tensor = load_file(path)["embeddings"]
    except (OSError, SafetensorError, KeyError):
        with replacing(path) as temporary:
            save_file({"embeddings": load_frozen(settings).encode(texts)}, temporary)
        embeddings = load_file(path)["embeddings"]  # mapped into memory
    return embeddings


def load_frozen(settings: TextSettings) -> SentenceEncoder:
    """Return the frozen encoder that settings name, on the GPU if there is one."""
    return SentenceEncoder(settings).to(best_device())
