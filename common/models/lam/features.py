"""Features of media by a frozen encoder: computed once per corpus and encoder, then mapped into memory.

::

    decoded media ─► frozen encoder ─► pooled to F tokens ─► cache/features/KEY.npy, float16 [N, F, f]

The key is a hash of the corpus, the split, the encoder and the form of its tokens. A second epoch, and a second
training, spend nothing on the encoder.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.files import cache_dir, one_at_a_time, replacing
from sclmkb.common.config import fingerprint
from sclmkb.common.console import progress
from sclmkb.common.modalities.store import MediaStore
from sclmkb.common.models.lam.frozen_base import FrozenEncoder

_BATCH = 16
"""Media per call: with more of them, maps of EfficientNet leave the cache and each takes three times as long."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features of the N media of a split that can be read.

    Attributes:
        item_ids: of each.
        values: ``[N, F, f]``, float16, mapped into memory.
    """

    item_ids: list[str]
    values: NDArray[Any]

    @classmethod
    def none(cls, item_ids: list[str]) -> "Features":
        """Return a zero of each medium, where nothing reads features."""
        return cls(item_ids=item_ids, values=np.broadcast_to(np.zeros((1, 1, 1), np.float16), (len(item_ids), 1, 1)))

    def take(self, rows: Tensor) -> Float[Tensor, "B F f"]:
        """Return copies of some, as 32-bit numbers."""
        return torch.from_numpy(np.asarray(self.values[rows.numpy()], dtype=np.float32))


def open_features(corpus: Artifact, split: str, encoder: FrozenEncoder, cache: Path | None = None) -> Features:
    """Return the features of a split, computing them first where the cache does not hold them.

    Raises:
        UserError: if the corpus holds no media of that kind that can be read.
    """
    store = MediaStore.open(corpus, split, encoder.form)
    folder = cache or cache_dir() / "features"
    path = folder / f"{fingerprint([corpus.fingerprint, split, encoder.key, store.item_ids])}.npy"
    if not path.exists():
        with one_at_a_time(path):
            if not path.exists():  # another process may just have written them
                _compute(store, encoder, path, f"features of {split}")
    return Features(item_ids=store.item_ids, values=np.load(path, mmap_mode="r"))


def _compute(store: MediaStore, encoder: FrozenEncoder, path: Path, what: str) -> None:
    with replacing(path) as temporary, progress(what, len(store), 0) as ticker, torch.no_grad():
        first = encoder.tokens(store.take(torch.arange(1)))
        size = (len(store), *first.shape[1:])
        values = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
            temporary, mode="w+", dtype=np.float16, shape=size
        )
        for rows in torch.split(torch.arange(len(store)), _BATCH):
            values[rows.numpy()] = encoder.tokens(store.take(rows)).half().numpy()
            ticker.advance(len(rows))
        values.flush()
