"""The encoder E_α of the hallucination filter, equations (22) and (23)."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from sclmkb.common.models.encoders import SentenceEncoder


class TextEncoder(Protocol):
    """Turns texts into unit-length features."""

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Return features ``[B, d]`` of unit length."""
        ...


def load_text_encoder(name: str) -> TextEncoder:
    """Load a sentence encoder: ``minilm`` (embedded), a folder or a hub name.

    An untrained JSCC encoder would give a meaningless cosine, so E_α is a sentence encoder.

    Raises:
        UserError: if it cannot be loaded.
    """
    return SentenceEncoder.from_pretrained(name)
