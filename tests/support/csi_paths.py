"""Channels of a few paths, for CSI predictors."""

import torch
from tiny import generator

from sclmkb.common.csi.sets import CsiShape
from sclmkb.common.csi.tensors import add_pilot_noise, normalise_power

NARROW = CsiShape(num_history=16, num_future=4, num_rx=4, num_tx=6)
WIDE = CsiShape(num_history=16, num_future=4, num_rx=12, num_tx=2, num_subcarriers=6)


def paths(drops: int, shape: CsiShape = NARROW, seed: int = 0, num_paths: int = 4) -> torch.Tensor:
    """Return sums of complex exponentials over time, ``[B, T + P, Nr, Nt]``, their histories of unit power."""
    g = generator(seed)
    left, right = (
        torch.randn(drops, num_paths, size, dtype=torch.complex64, generator=g) for size in (shape.num_rx, shape.num_tx)
    )
    doppler = 0.3 * torch.cos(6.283 * torch.rand(drops, num_paths, generator=g))
    turn = torch.exp(1j * doppler[:, None] * torch.arange(shape.num_history + shape.num_future)[:, None])
    return normalise_power(torch.einsum("btl,bli,blj->btij", turn, left, right), shape.num_history)[0]


def noisy(h: torch.Tensor, shape: CsiShape = NARROW, snr_db: float = 15.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return noisy histories and clean futures."""
    history = add_pilot_noise(h[:, : shape.num_history], torch.full((len(h),), snr_db), generator(1))
    return history, h[:, shape.num_history :]
