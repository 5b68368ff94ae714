"""What a frozen encoder of media is."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor

from sclmkb.common.modalities.base import MediaBatch, MediaForm


class FrozenEncoder(ABC):
    """What turns media into tokens and is never trained.

    Attributes:
        form: what media must look like.
        key: what tells its features from others.
    """

    form: MediaForm
    key: str

    @abstractmethod
    def tokens(self, batch: MediaBatch) -> Float[Tensor, "B F f"]:
        """Return the tokens of media."""
