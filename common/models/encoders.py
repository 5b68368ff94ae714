"""Encoders of text and media."""

from collections.abc import Sequence
from typing import Any, Self, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sclmkb.common.errors import UserError
from sclmkb.common.models.pretrained import resolve_encoder


class SentenceEncoder(nn.Module):
    """A BERT-like sentence encoder: tokens, transformer, mean over the tokens, unit length.

    ::

        texts ─► tokenizer ─► transformer [B, L, d] ─► masked mean [B, d] ─► x / ‖x‖

    Source: Reimers and Gurevych, Sentence-BERT, 2019; the embedded weights are all-MiniLM-L6-v2, d = 384.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, max_length: int = 128) -> None:
        super().__init__()
        self.model, self.tokenizer, self.max_length = model, tokenizer, max_length

    @classmethod
    def from_pretrained(cls, name: str = "minilm") -> Self:
        """Load ``minilm``, a local folder or a hub name.

        Raises:
            UserError: if it cannot be loaded.
        """
        from transformers import AutoModel, AutoTokenizer

        resolved = resolve_encoder(name)
        try:
            tokenizer = AutoTokenizer.from_pretrained(resolved)
            model = AutoModel.from_pretrained(resolved, dtype=torch.float32)
        except (OSError, ValueError) as error:
            raise UserError(f"cannot load the sentence encoder '{name}': {str(error).splitlines()[0]}") from None
        return cls(model.eval(), tokenizer)

    @property
    def width(self) -> int:
        """Width d of an embedding."""
        return int(cast(Any, self.model).config.hidden_size)

    def tokenize(self, texts: Sequence[str]) -> dict[str, Int[Tensor, "B L"]]:
        """Return padded token ids and attention mask, each ``[B, L]``."""
        encoded = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
        )
        return {name: encoded[name] for name in ("input_ids", "attention_mask")}

    def forward(self, input_ids: Int[Tensor, "B L"], attention_mask: Int[Tensor, "B L"]) -> Float[Tensor, "B d"]:
        """Return unit-length embeddings ``[B, d]`` of tokenised texts."""
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
        return nn.functional.normalize(mean, dim=-1)

    @torch.no_grad()
    def encode(self, texts: Sequence[str], batch_size: int = 128) -> Float[Tensor, "B d"]:
        """Return unit-length embeddings ``[B, d]`` of texts; sorted by length inside, so that padding is little."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        device = next(self.model.parameters()).device
        result = torch.empty(len(texts), self.width)
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            tokens = self.tokenize([texts[i] for i in batch])
            result[batch] = self(**{name: t.to(device) for name, t in tokens.items()}).float().cpu()
        return result
