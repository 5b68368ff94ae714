"""Hugging Face Accelerate: which device, how many processes, which precision.

One process uses the GPU that is there, or the CPU. Several are started by ``accelerate launch`` or ``torchrun``, on
GPUs or on the cores of a CPU.
"""

import os
from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from sclmkb.common.console import console
from sclmkb.common.precision import Precision


def start_accelerator(precision: Precision, *, cpu_bfloat16: bool = False) -> Accelerator:
    """Find the device and join the other processes; those that are not the first one fall silent.

    Args:
        precision: of the layers that allow it; ``auto`` is bfloat16 on a GPU that has it and float32 elsewhere.
        cpu_bfloat16: whether ``auto`` is bfloat16 on this CPU too.
    """
    fast = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else cpu_bfloat16
    half = precision == "bfloat16" or (precision == "auto" and fast)
    # Without being told, Accelerate leaves several processes without a GPU to themselves.
    on_cpus = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.cuda.is_available()
    AcceleratorState._reset_state()  # an earlier run of this process may have had another precision
    accelerator = Accelerator(mixed_precision="bf16" if half else "no", cpu=on_cpus or None)
    console.quiet = not accelerator.is_main_process
    return accelerator


def in_any_process(accelerator: Any, here: bool) -> bool:
    """Return whether something is so in this process or another; all of them must ask at the same point."""
    if accelerator.num_processes == 1:
        return here
    return bool(accelerator.reduce(torch.tensor(float(here), device=accelerator.device), "sum") > 0)


def reduce_gradients(accelerator: Any, parameters: Sequence[nn.Parameter], how: Literal["mean", "sum"]) -> None:
    """Replace each process's gradients by their mean or sum, in one exchange."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if accelerator.num_processes == 1 or not gradients:
        return
    joined = accelerator.reduce(torch.cat([g.flatten() for g in gradients]), how)
    for gradient, part in zip(gradients, joined.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def share_statistics(module: nn.Module) -> None:
    """Make batch normalisation in a module normalise with the statistics of all processes, on CPUs as well.

    PyTorch's own ``SyncBatchNorm`` works on GPUs alone. Names and buffers stay as they are.
    """
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) and not isinstance(layer, _SharedBatchNorm):
            layer.__class__ = _SharedBatchNorm


class _SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the batches of all processes; each holds as many samples."""

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 (the name in the base class)
        pass

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name in the base class)
        if not self.training:
            y: Tensor = super().forward(input)
            return y
        x = input.float()
        places = [0, *range(2, x.dim())]
        sums = torch.stack([x.sum(places), x.square().sum(places)])
        count = x.numel() // x.shape[1] * torch.distributed.get_world_size()
        mean, square = cast(Tensor, _SumOverProcesses.apply(sums)) / count  # type: ignore[no-untyped-call]
        variance = (square - mean.square()).clamp(min=0)
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
            with torch.no_grad():
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(variance * count / max(count - 1, 1), share)
        shape = (1, -1, *(1 for _ in places[1:]))
        y = (x - mean.view(shape)) * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(input.dtype)


class _SumOverProcesses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        joined = x.clone()
        torch.distributed.all_reduce(joined)
        return joined

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        joined = gradients[0].clone()
        torch.distributed.all_reduce(joined)
        return joined
