"""Autoregression fitted to each sample's own history: needs no training and no statistics."""

import torch
from jaxtyping import Complex64
from torch import Tensor


class AutoRegression:
    """One least-squares filter for each horizon, shared by all antenna pairs of a sample.

    For each horizon p, the filter w_p minimises Σ_{t,i,j} |h_ij[t+p] - Σ_k w_p[k] h_ij[t-k]|² over the history; it
    is exact for as many complex exponentials as it has taps. A unitary change of basis of the antennas does not
    change it.

    Args:
        order: taps.
        ridge: added to the diagonal of the normal equations, over its mean.
    """

    name = "ar"

    def __init__(self, order: int = 8, ridge: float = 1e-6) -> None:
        self.order, self.ridge = order, ridge

    def predict(
        self, history: Complex64[Tensor, "B T Nr Nt"], num_future: int
    ) -> Complex64[Tensor, "B num_future Nr Nt"]:
        """See :class:`~sclmkb.common.models.csi.base.CsiPredictor`.

        Raises:
            ValueError: if the history is too short for the order.
        """
        num_history = history.shape[1]
        if num_history < self.order + num_future:
            raise ValueError(f"AR({self.order}) needs {self.order + num_future} history samples, got {num_history}")
        series = history.flatten(2)  # [B, T, N]
        products = series.conj() @ series.mT  # [B, T, T], all that the normal equations need
        predicted = []
        for horizon in range(1, num_future + 1):
            starts = range(num_history - self.order - horizon + 1)
            gram = torch.stack([products[:, i : i + self.order, i : i + self.order] for i in starts]).sum(0)
            ends = [i + self.order + horizon - 1 for i in starts]
            cross = torch.stack(
                [products[:, i : i + self.order, end] for i, end in zip(starts, ends, strict=True)]
            ).sum(0)
            diagonal = gram.diagonal(dim1=-2, dim2=-1).real.mean(-1)
            eye = torch.eye(self.order, dtype=gram.dtype, device=gram.device)
            loading = (self.ridge * diagonal + torch.finfo(diagonal.dtype).tiny).view(-1, 1, 1)
            taps = torch.linalg.solve(gram + loading * eye, cross)
            predicted.append(torch.einsum("bkn,bk->bn", series[:, -self.order :], taps))
        return torch.stack(predicted, 1).reshape(len(history), num_future, *history.shape[2:])
