"""Encoders of text and media."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float, Int, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sclmkb.common.artifacts import replacing
from sclmkb.common.config import fingerprint
from sclmkb.common.errors import UserError
from sclmkb.common.models.pretrained import cache_dir, model_fingerprint, quiet_loading, resolve_encoder


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
    def from_pretrained(cls, name: str = "minilm") -> "SentenceEncoder":
        """Load ``minilm``, a local folder or a hub name.

        Raises:
            UserError: if it cannot be loaded.
        """
        from transformers import AutoModel, AutoTokenizer

        resolved = resolve_encoder(name)
        try:
            with quiet_loading():
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


def embed_texts(texts: Sequence[str], name: str = "minilm", cache: Path | None = None) -> Float[Tensor, "B d"]:
    """Return the frozen sentence encoder's embeddings ``[B, d]`` of texts, computed once and kept in a cache.

    The cache's key is the encoder and the list of texts; a file there that cannot be read is made again.

    Args:
        texts: what to embed.
        name: as in :meth:`SentenceEncoder.from_pretrained`.
        cache: folder of the cache, by default ``embeddings`` in :func:`cache_dir`.

    Raises:
        UserError: if the encoder cannot be loaded.
    """
    key = fingerprint([model_fingerprint(resolve_encoder(name)), *texts])
    path = (cache or cache_dir() / "embeddings") / f"{key}.safetensors"
    try:
        embeddings: Tensor = load_file(path)["embeddings"]
        return embeddings
    except (OSError, SafetensorError, KeyError):
        pass
    embeddings = SentenceEncoder.from_pretrained(name).encode(texts)
    with replacing(path) as temporary:
        save_file({"embeddings": embeddings}, temporary)
    return embeddings


class PictureEncoder(nn.Module):
    """A small residual CNN, trained from scratch, from pictures to unit-length embeddings.

    ::

        uint8 [B, 3, S, S] ─► scale ─► conv 3×3 / 2 ─► { conv 3×3 / 2 ─► residual block } ...
            ─► mean and maximum over places ─► linear [B, d] ─► x / ‖x‖

    Args:
        widths: channels of each stage; each stage has half the side of the one before, the first S / 4.
        embedding_width: d.
    """

    def __init__(self, widths: Sequence[int], embedding_width: int) -> None:
        super().__init__()
        stem = max(widths[0] // 2, 1)
        layers: list[nn.Module] = [_conv(3, stem, stride=2)]
        for before, width in pairwise((stem, *widths)):
            layers += [_conv(before, width, stride=2), _Residual(width)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(2 * widths[-1], embedding_width)

    def forward(self, pictures: UInt8[Tensor, "B 3 S S"]) -> Float[Tensor, "B d"]:
        """Return unit-length embeddings ``[B, d]`` of 8-bit RGB pictures."""
        x = (pictures.to(torch.float32) / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        x = self.body(x).float()
        pooled = torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)
        return nn.functional.normalize(self.head(pooled).float(), dim=-1)


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
