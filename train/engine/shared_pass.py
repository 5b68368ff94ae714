"""An encoder's pass over a batch that several processes share, and that each cuts into pieces: gradient caching.

::

    rows of the batch ─► own share ─► pieces ─► encoder ─► embeddings of all processes ─► link, loss over all pairs
                                         ▲                                                       │
                                         └──── each piece again, with gradients ◄── ∂L/∂embedding

A contrastive loss needs all pairs of a batch, so that gradients of parts of it do not add up. Therefore only the work
of the encoders is cut and shared. Embeddings come first, then link and loss of the whole batch, then the encoders'
gradients piece by piece. Except for rounding, the result is that of the whole batch. There is one exception: batch
normalisation takes the statistics of a piece (of all processes). Encoders have no dropout.

Source: Gao et al., Scaling deep contrastive learning batch size under memory limited setup, 2021.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class SharedPass:
    """Encodes a batch now, and takes the gradient back to the encoder's weights later.

    Args:
        accelerator: this process's device, and the other processes.
        module: what encodes; its batch statistics count once, however often it runs.
        encode: gives embeddings of some rows of the batch, on the device.
        num: rows of the batch.
        pieces: how many pieces each process cuts its share into.

    Attributes:
        embeddings: of the whole batch ``[num, d]``, a leaf that takes gradients.
    """

    def __init__(
        self, accelerator: Any, module: nn.Module, encode: Callable[[Tensor], Tensor], num: int, pieces: int
    ) -> None:
        self._module, self._encode = module, encode
        self._share = -(-num // accelerator.num_processes)
        first = accelerator.process_index * self._share
        self._own = slice(min(first, num), min(first + self._share, num))
        # Every process does as many rows as the others: whoever has fewer repeats the last one.
        self._pieces = torch.arange(first, first + self._share).clamp(max=num - 1).chunk(pieces)
        self._at_once: Tensor | None = None
        if len(self._pieces) == 1:
            self._at_once = found = encode(self._pieces[0])
        else:
            with torch.no_grad():
                found = torch.cat([encode(rows) for rows in self._pieces])
        self.embeddings: Tensor = accelerator.gather(found.detach())[:num].detach().requires_grad_()

    def backward(self) -> None:
        """Add this process's part of the gradients of the encoder's weights to them."""
        found = self.embeddings.grad
        if found is None:
            return
        gradient = found.new_zeros(self._share, *found.shape[1:])
        gradient[: self._own.stop - self._own.start] = found[self._own]
        if self._at_once is not None:
            _back(self._at_once, gradient)
            return
        with _statistics_stay(self._module):
            for rows, part in zip(self._pieces, torch.split(gradient, [len(p) for p in self._pieces]), strict=True):
                _back(self._encode(rows), part)


def _back(embeddings: Tensor, gradient: Tensor) -> None:
    if embeddings.requires_grad:
        embeddings.backward(gradient)  # type: ignore[no-untyped-call]


@contextmanager
def _statistics_stay(module: nn.Module) -> Iterator[None]:
    """Keep running statistics of batch normalisation as they are."""
    layers = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [layer.track_running_stats for layer in layers]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer, tracked in zip(layers, before, strict=True):
            layer.track_running_stats = tracked
