"""What the codes of text have in common: a text that does not fit is not sent, an empty one goes in its place."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int64, UInt8


class SourceCode(ABC):
    """A code that makes bits of texts, each with its end."""

    @property
    @abstractmethod
    def least_bits(self) -> int:
        """Length of an empty text in bits."""

    @abstractmethod
    def num_bits(self, texts: Sequence[str]) -> Int64[np.ndarray, " B"]:
        """Return the length of each text in bits, its end included."""

    @abstractmethod
    def _write_all(self, texts: Sequence[str], capacity: int) -> UInt8[np.ndarray, "B {capacity}"]:
        """Return the bits of texts that all fit, filled up with zeros."""

    def encode(
        self, texts: Sequence[str], capacity: int
    ) -> tuple[UInt8[np.ndarray, "B {capacity}"], Bool[np.ndarray, " B"]]:
        """Return the bits of texts, filled up with zeros, and which texts fit; of one that does not, the end alone.

        Raises:
            ValueError: if not even the end fits; see :attr:`least_bits`.
        """
        if capacity < self.least_bits:
            raise ValueError(f"a capacity of {capacity} bits, an empty text takes {self.least_bits}")
        fits = self.num_bits(texts) <= capacity
        sent = [text if fit else "" for text, fit in zip(texts, fits, strict=True)]
        return self._write_all(sent, capacity), fits
