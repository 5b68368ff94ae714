"""The encoder E_α of the hallucination filter, equations (22) and (23)."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from sclmkb.common.models.encoders import SentenceEncoder


class TextEncoder(Protocol):
    """Turns texts into unit-length features."""

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Return features ``[B, d]`` of unit length."""
        ...


class FilterEncoder:
    """A sentence encoder set up for short captions; satisfies :class:`TextEncoder`."""

    def __init__(self, encoder: SentenceEncoder, dtype: str) -> None:
        """Wrap an encoder; ``dtype`` is that of its matrix products, ``float32`` or ``bfloat16``."""
        self._encoder, self._reduced = encoder, dtype == "bfloat16"

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Return features ``[B, d]`` of unit length; small batches stay in the cache of a core."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self._reduced):
            features = self._encoder.encode(texts, batch_size=32)
        return torch.nn.functional.normalize(features, dim=-1)


def load_text_encoder(name: str, dtype: str = "float32") -> TextEncoder:
    """Load a sentence encoder: ``minilm`` (embedded), a folder or a hub name.

    An untrained JSCC encoder would give a meaningless cosine, so E_α is a sentence encoder.

    Raises:
        UserError: if it cannot be loaded.
    """
    return FilterEncoder(SentenceEncoder.from_pretrained(name), dtype)
