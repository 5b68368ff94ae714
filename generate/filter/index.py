"""Similarity search over the source captions. The only module that imports FAISS."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sclmkb.common.errors import UserError

Floats = NDArray[np.float32]
IndexKind = Literal["flat", "ivf", "hnsw"]
Embed = Callable[[Sequence[str]], Tensor]

PART = 1024
"""Captions that are embedded together, and a part of the features; FAISS multiplies as many at a time."""
_FIRST_NEIGHBOURS = 8
_TRAINING_POINTS_A_CELL = 40
_GPU_NEIGHBOURS = 2048  # no more can be asked for there


def embed_in_parts(embed: Embed, texts: Sequence[str]) -> list[Floats]:
    """Return the features of texts, equation (22), in parts of :data:`PART`."""
    return [as_floats(embed(texts[i : i + PART])) for i in range(0, len(texts), PART)]


class CaptionIndex:
    """Inner-product index over the features of all source captions.

    Features have unit length, so that an inner product is the cosine of equation (24). Similarities to the own source
    are exact with every kind. The nearest caption of another identity is exact with ``flat``. The other kinds find it
    nearly always, so their margins can only be too large:

    - ``flat``: compares with all captions; a search costs time in proportion to their number;
    - ``ivf``: compares with the captions of the nearest of about 4√N cells, for hundreds of thousands of captions;
    - ``hnsw``: walks a graph of neighbours, for millions; building it takes longest, and it takes the most memory.

    ``flat`` searches the features where they lie, and copies nothing; it moves to a GPU where there is one and FAISS is
    built for it. The others hold a copy.
    """

    def __init__(self, features: Sequence[Floats], identities: Sequence[str], kind: IndexKind = "flat") -> None:
        """Index the features of the source captions, equation (22).

        Args:
            features: of the N source captions, unit length, ``[P, d]`` each, all but the last of :data:`PART`.
            identities: identity of each source caption, N of them.
            kind: how to search.

        Raises:
            UserError: if FAISS is not installed.
        """
        try:
            import faiss
        except ModuleNotFoundError:
            raise UserError("the filter needs FAISS: pip install 'sclmkb[cpu]' (or [gpu])") from None
        self._faiss, self._features = faiss, features
        self._codes = np.unique(np.asarray(identities, dtype=np.str_), return_inverse=True)[1].astype(np.int32)
        # So many neighbours always hold one of another identity, if there is one.
        self._enough = min(len(identities), 1 + int(np.bincount(self._codes, minlength=1).max()))
        self._index: Any = None
        if kind != "flat":
            self._index = _train(faiss, kind, features, len(identities))
        elif self._enough <= _GPU_NEIGHBOURS and features and faiss.get_num_gpus():
            self._gpu_memory = faiss.StandardGpuResources()  # must outlive the index
            self._index = faiss.index_cpu_to_gpu(self._gpu_memory, 0, faiss.IndexFlatIP(features[0].shape[1]))
        if self._index is not None:
            for part in features:
                self._index.add(part)

    def score(self, features: Float[Tensor, "B d"], sources: Sequence[int]) -> tuple[Floats, Floats]:
        """Compare generated captions with the source captions.

        Args:
            features: features of B generated captions, unit length.
            sources: position in the index of each one's source caption, B of them.

        Returns:
            similarity: cosine to the own source, equation (24), ``[B]``.
            margin: similarity minus the highest cosine to a caption of another identity, ``[B]``; 2, the largest
                there can be, where there is no other identity.
        """
        queries, own = as_floats(features), np.asarray(sources, dtype=np.int64)
        theirs = np.stack([self._features[i // PART][i % PART] for i in sources])
        similarity = np.einsum("bd,bd->b", queries, theirs).astype(np.float32)
        nearest = self._nearest_other(queries, self._codes[own])
        return similarity, np.where(np.isfinite(nearest), similarity - nearest, 2.0).astype(np.float32)

    def _nearest_other(self, queries: Floats, own: NDArray[np.int32]) -> Floats:
        """Return the highest cosine ``[B]`` to a caption of another identity, -inf where none is found.

        Few neighbours nearly always hold one; only where all are of the own identity are more asked for.
        """
        nearest = np.full(len(own), -np.inf, dtype=np.float32)
        left, count = np.arange(len(own)), _FIRST_NEIGHBOURS
        while len(left):
            count = min(count, self._enough)
            cosines, neighbours = self._search(queries[left], count)
            other = (neighbours >= 0) & (self._codes[neighbours] != own[left, None])
            nearest[left] = np.where(other, cosines, -np.inf).max(axis=1)
            if count == self._enough:
                break
            left, count = left[~other.any(axis=1)], 4 * count
        return nearest

    def _search(self, queries: Floats, count: int) -> tuple[Floats, NDArray[np.int64]]:
        """Return the cosines to the nearest captions, and their positions, ``[B, count]`` each."""
        if self._index is not None:
            cosines, neighbours = self._index.search(queries, count)
            return cosines, neighbours
        nearest = self._faiss.ResultHeap(len(queries), count, keep_max=True)
        for i, part in enumerate(self._features):
            inner_product = self._faiss.METRIC_INNER_PRODUCT
            cosines, places = self._faiss.knn(queries, part, min(count, len(part)), metric=inner_product)
            nearest.add_result(cosines, places + i * PART)
        nearest.finalize()
        return nearest.D, nearest.I


def as_floats(features: Tensor) -> Floats:
    """Return features as FAISS takes them."""
    return np.ascontiguousarray(features.cpu().numpy(), dtype=np.float32)


def _train(faiss: Any, kind: IndexKind, features: Sequence[Floats], count: int) -> Any:
    """Return an index that is not exact, and still empty."""
    num_cells = max(1, min(int(4 * count**0.5), count // _TRAINING_POINTS_A_CELL))
    description = {"ivf": f"IVF{num_cells},Flat", "hnsw": "HNSW32,Flat"}[kind]
    index = faiss.index_factory(features[0].shape[1] if features else 1, description, faiss.METRIC_INNER_PRODUCT)
    if kind == "ivf":
        # Cells come from captions spread over the whole corpus, which is seldom in random order.
        step = max(1, count // (_TRAINING_POINTS_A_CELL * num_cells))
        index.train(np.concatenate([part[-i * PART % step :: step] for i, part in enumerate(features)]))
        index.nprobe = max(8, num_cells // 16)
    if kind == "hnsw":
        index.hnsw.efConstruction, index.hnsw.efSearch = 80, 64
    return index
