"""Seeds derived by hashing, and generators built from them.

Neighbouring rows must not share seeds. vLLM gives the samples of one request the seeds ``seed + index``. So ``seed =
row number`` would make row 7's second sample equal to row 8's first. Every seed is therefore a hash of all that
identifies its use.
"""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive_seed(*parts: int | str) -> int:
    """Return a seed in ``[0, 2**63)`` that depends on every part, e.g. run seed, row id, attempt, and on their order.

    Example:
        >>> derive_seed(0, "row", 1) == derive_seed(0, "row", 1)
        True
        >>> derive_seed(0, "row", 1) == derive_seed(0, "row", 2)
        False
    """
    digest = hashlib.sha256("\x1f".join(f"{type(p).__name__}:{p}" for p in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def make_generator(*parts: int | str) -> "torch.Generator":
    """Return a ``torch.Generator`` seeded with :func:`derive_seed` of the parts."""
    import torch

    return torch.Generator().manual_seed(derive_seed(*parts))
