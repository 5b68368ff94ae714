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

_CHUNK = 16384
_FIRST_NEIGHBOURS = 8
_TRAINING_POINTS_A_CELL = 40
_GPU_NEIGHBOURS = 2048  # no more can be asked for there


class CaptionIndex:
    """Inner-product index over the features of all source captions.

    Features have unit length, so that an inner product is the cosine of equation (24). Similarities to the own source
    are exact with every kind; the nearest caption of another identity is exact with ``flat`` and found nearly always
    with the others, whose margins can therefore only be too large:

    - ``flat``: compares with all captions; a search costs time in proportion to their number;
    - ``ivf``: compares with the captions of the nearest of about 4√N cells, for hundreds of thousands of captions;
    - ``hnsw``: walks a graph of neighbours, for millions; building it takes longest, and it takes the most memory.

    ``flat`` moves to a GPU where there is one and FAISS is built for it.
    """

    def __init__(self, embed: Embed, texts: Sequence[str], identities: Sequence[str], kind: IndexKind = "flat") -> None:
        """Embed the source captions, equation (22), and index them; the features are held once, in the index.

        Args:
            embed: gives features ``[B, d]`` of unit length.
            texts: the N source captions.
            identities: identity of each source caption, N of them.
            kind: how to search.

        Raises:
            UserError: if FAISS is not installed.
        """
        try:
            import faiss
        except ModuleNotFoundError:
            raise UserError("the filter needs FAISS: pip install 'sclmkb[cpu]' (or [gpu])") from None
        self._codes = np.unique(np.asarray(identities, dtype=np.str_), return_inverse=True)[1].astype(np.int32)
        # So many neighbours always hold one of another identity, if there is one.
        self._enough = min(len(texts), 1 + int(np.bincount(self._codes, minlength=1).max()))
        chunks = (_as_floats(embed(texts[i : i + _CHUNK])) for i in range(0, len(texts), _CHUNK))
        first = next(chunks, np.zeros((0, 1), np.float32))
        self._index: Any = _new_index(faiss, kind, first.shape[1], len(texts))
        if not self._index.is_trained:
            # Cells come from captions spread over the whole corpus, which is seldom in random order.
            wanted = _TRAINING_POINTS_A_CELL * self._index.nlist
            self._index.train(_as_floats(embed(texts[:: max(1, len(texts) // wanted)])))
        if kind == "flat" and self._enough <= _GPU_NEIGHBOURS and faiss.get_num_gpus():
            self._gpu_memory = faiss.StandardGpuResources()  # must outlive the index
            self._index = faiss.index_cpu_to_gpu(self._gpu_memory, 0, self._index)
        self._index.add(first)
        for chunk in chunks:
            self._index.add(chunk)
        if kind == "ivf":
            self._index.make_direct_map()

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
        queries, own = _as_floats(features), np.asarray(sources, dtype=np.int64)
        similarity = np.einsum("bd,bd->b", queries, self._index.reconstruct_batch(own)).astype(np.float32)
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
            cosines, neighbours = self._index.search(queries[left], count)
            other = (neighbours >= 0) & (self._codes[neighbours] != own[left, None])
            nearest[left] = np.where(other, cosines, -np.inf).max(axis=1)
            if count == self._enough:
                break
            left, count = left[~other.any(axis=1)], 4 * count
        return nearest


def _as_floats(features: Tensor) -> Floats:
    return np.ascontiguousarray(features.cpu().numpy(), dtype=np.float32)


def _new_index(faiss: Any, kind: IndexKind, width: int, count: int) -> Any:
    num_cells = max(1, min(int(4 * count**0.5), count // _TRAINING_POINTS_A_CELL))
    description = {"flat": "Flat", "ivf": f"IVF{num_cells},Flat", "hnsw": "HNSW32,Flat"}[kind]
    index = faiss.index_factory(width, description, faiss.METRIC_INNER_PRODUCT)
    if kind == "ivf":
        index.nprobe = max(8, num_cells // 16)
    if kind == "hnsw":
        index.hnsw.efConstruction, index.hnsw.efSearch = 80, 64
    return index
