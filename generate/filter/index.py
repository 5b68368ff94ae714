"""Similarity search over the source captions. The only module that imports FAISS."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sclmkb.common.errors import UserError

Floats = NDArray[np.float32]


class CaptionIndex:
    """Exact inner-product index over the features of all source captions.

    Features have unit length, so that an inner product is the cosine of equation (24).
    """

    def __init__(self, features: Tensor, identities: Sequence[str]) -> None:
        """Build the index.

        Args:
            features: features of the source captions, ``[N, d]``, unit length.
            identities: identity of each source caption, N of them.

        Raises:
            UserError: if FAISS is not installed.
        """
        try:
            import faiss
        except ModuleNotFoundError:
            raise UserError("the filter needs FAISS: pip install 'sclmkb[cpu]' (or [gpu])") from None
        self._faiss = faiss
        self._identities = np.asarray(identities)
        self._index: Any = faiss.IndexFlatIP(features.shape[1])
        self._index.add(np.ascontiguousarray(features.numpy(), dtype=np.float32))
        # So many neighbours always hold one of another identity.
        self._num_neighbours = min(len(identities), 1 + max(Counter(identities).values()))

    def score(self, features: Tensor, sources: Sequence[int]) -> tuple[Floats, Floats]:
        """Compare generated captions with the source captions.

        Args:
            features: features of B generated captions, ``[B, d]``, unit length.
            sources: position in the index of each one's source caption, B of them.

        Returns:
            similarity: cosine to the own source, equation (24), ``[B]``.
            margin: similarity minus the highest cosine to a caption of another identity, ``[B]``; 2, the largest
                there can be, where there is no other identity.
        """
        queries = np.ascontiguousarray(features.numpy(), dtype=np.float32)
        own = np.asarray(sources, dtype=np.int64)
        similarity = self._own_cosines(queries, own)
        cosines, neighbours = self._index.search(queries, self._num_neighbours)
        other = self._identities[neighbours] != self._identities[own][:, None]
        nearest = np.where(other, cosines, -np.inf).max(axis=1)
        margin = np.where(np.isfinite(nearest), similarity - nearest, 2.0)
        return similarity, margin.astype(np.float32)

    def _own_cosines(self, queries: Floats, own: NDArray[np.int64]) -> Floats:
        """Return the cosine ``[B]`` of each query to the one indexed caption named for it."""
        cosines = np.empty(len(own), dtype=np.float32)
        pointer = self._faiss.swig_ptr
        self._index.compute_distance_subset(len(own), pointer(queries), 1, pointer(cosines), pointer(own))
        return cosines
