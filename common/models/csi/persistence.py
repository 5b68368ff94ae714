"""Persistence: the channel stays as it was last seen (what a system without prediction uses)."""

from jaxtyping import Complex64
from torch import Tensor


class Persistence:
    """Repeats the last noisy sample."""

    name = "persistence"

    def predict(
        self, history: Complex64[Tensor, "B T Nr Nt"], num_future: int
    ) -> Complex64[Tensor, "B num_future Nr Nt"]:
        """See :class:`~sclmkb.common.models.csi.base.CsiPredictor`."""
        return history[:, -1:].expand(-1, num_future, -1, -1).clone()
