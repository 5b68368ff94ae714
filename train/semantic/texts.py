"""What training takes of captions and generated captions: embeddings, or states below the layers that are tuned."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from sclmkb.common.models.encoders.sentence import embed_texts
from sclmkb.common.models.encoders.text import TextBatch, TextSettings
from sclmkb.common.models.encoders.tuned_text import TextStates, hidden_states


class Texts:
    """Captions, rows 0 to C - 1, and generated captions, rows from C on; read from memory-mapped files.

    Raises:
        UserError: if the encoder cannot be loaded.
    """

    def __init__(self, settings: TextSettings, captions: Sequence[str], generated: Sequence[str]) -> None:
        self.num_captions = len(captions)
        self.tuned = settings.tune != "frozen"
        parts = [texts for texts in (captions, generated) if texts]
        self._embeddings = [] if self.tuned else [embed_texts(texts, settings) for texts in parts]
        self._states = [hidden_states(texts, settings) for texts in parts] if self.tuned else []

    @property
    def states(self) -> TextStates:
        """States of the source captions, where the encoder is tuned."""
        return self._states[0]

    @property
    def embeddings(self) -> Tensor:
        """Embeddings of the source captions ``[C, t]``, where the encoder is frozen."""
        return self._embeddings[0]

    def take(self, rows: Int[Tensor, " B"]) -> Tensor:
        """Return frozen embeddings ``[B, t]``."""
        found = self._embeddings[0].new_empty(len(rows), self._embeddings[0].shape[1])
        for part, (places, own) in zip(self._embeddings, self._places(rows), strict=False):
            found[places] = part[own]
        return found

    def take_states(self, rows: Int[Tensor, " B"]) -> TextBatch:
        """Return the states of texts, padded to the longest one."""
        taken = [(at, part.take(own)) for part, (at, own) in zip(self._states, self._places(rows), strict=False)]
        longest = max(batch.values.shape[1] for _, batch in taken)
        values = torch.zeros(len(rows), longest, taken[0][1].values.shape[2])
        length = torch.zeros(len(rows), dtype=torch.long)
        for places, batch in taken:
            values[places, : batch.values.shape[1]] = batch.values
            length[places] = batch.length
        return TextBatch(values, length)

    def _places(self, rows: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return which of the rows are captions and which are generated, and their row in each part."""
        captions = (rows < self.num_captions).nonzero()[:, 0]
        generated = (rows >= self.num_captions).nonzero()[:, 0]
        return [(captions, rows[captions]), (generated, rows[generated] - self.num_captions)]
