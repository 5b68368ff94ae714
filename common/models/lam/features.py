"""Features of media by a frozen encoder: computed once per corpus and encoder, then mapped into memory.

::

    decoded media ─► frozen encoder ─► pooled to F tokens ─► cache/features/KEY.npy, float16 [N, F, f]

The key is a hash of the corpus, the split, the encoder and the form of its tokens. A second epoch, and a second
training, spend nothing on the encoder.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.files import cache_dir, replacing
from sclmkb.common.config import fingerprint
from sclmkb.common.console import progress
from sclmkb.common.errors import UserError
from sclmkb.common.modalities.base import MediaBatch
from sclmkb.common.modalities.image import PictureForm
from sclmkb.common.modalities.store import MediaStore
from sclmkb.common.models.lam.settings import MtscModelSettings
from sclmkb.common.models.parts.convert import part_folder
from sclmkb.common.models.parts.efficientnet import EfficientNetLite0

EFFICIENTNET = "efficientnet-lite0"
_BATCH = 64
_PATCH = 8
"""Height and width of what one token of ``patches`` covers [pixels]."""


class FrozenEncoder(ABC):
    """What turns media into tokens and is never trained.

    Attributes:
        form: what media must look like.
        key: what tells its features from others.
    """

    form: PictureForm
    key: str

    @abstractmethod
    def tokens(self, batch: MediaBatch) -> Float[Tensor, "B F f"]:
        """Return the tokens of media."""


class Patches(FrozenEncoder):
    """The pixels of squares: no pre-trained encoder."""

    def __init__(self, grid: int) -> None:
        self.form = PictureForm(size=_PATCH * grid)
        self.key = f"patches-{grid}"

    def tokens(self, batch: MediaBatch) -> Float[Tensor, "B F f"]:
        """See :meth:`FrozenEncoder.tokens`."""
        return nn.functional.unfold(batch.values.float() / 255, _PATCH, stride=_PATCH).transpose(1, 2)


class EfficientNet(FrozenEncoder):
    """EfficientNet-Lite0, pre-trained on ImageNet; its last map, averaged over a grid."""

    def __init__(self, size: int, grid: int) -> None:
        self.form = PictureForm(size=size)
        self.key = f"{EFFICIENTNET}-{size}-{grid}"
        self._grid = grid

    @cached_property
    def _model(self) -> EfficientNetLite0:
        """Loaded when there is something to compute."""
        return EfficientNetLite0.load(part_folder(EFFICIENTNET))

    def tokens(self, batch: MediaBatch) -> Float[Tensor, "B F f"]:
        """See :meth:`FrozenEncoder.tokens`."""
        maps = self._model(batch.values)
        return nn.functional.adaptive_avg_pool2d(maps, self._grid).flatten(2).transpose(1, 2)


def frozen_encoder(settings: MtscModelSettings) -> FrozenEncoder:
    """Return the encoder of pictures that settings name.

    Raises:
        UserError: if there is none of that name.
    """
    if settings.picture_encoder == "patches":
        return Patches(settings.picture_grid)
    if settings.picture_encoder == EFFICIENTNET:
        return EfficientNet(settings.picture_size, settings.picture_grid)
    raise UserError(
        f"there is no encoder of pictures '{settings.picture_encoder}': choose patches or efficientnet-lite0"
    )


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
        UserError: if the corpus holds no pictures that can be read.
    """
    store = MediaStore.open(corpus, split, encoder.form)
    folder = cache or cache_dir() / "features"
    path = folder / f"{fingerprint([corpus.fingerprint, split, encoder.key, store.item_ids])}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
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
