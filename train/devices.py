"""Hugging Face Accelerate: which device, how many processes, which precision.

One process uses the GPU that is there, or the CPU. Several are started by ``accelerate launch`` or ``torchrun``, on
GPUs or on the cores of a CPU.
"""

from typing import Literal

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from sclmkb.common.cli import console

Precision = Literal["auto", "float32", "bfloat16"]


def start_accelerator(precision: Precision) -> Accelerator:
    """Find the device and join the other processes; those that are not the first one fall silent.

    Args:
        precision: of the layers that allow it; ``auto`` is bfloat16 on a GPU that has it and float32 elsewhere.
    """
    # The words of a language model are buffers and never change: broadcasting them at every step costs most of it.
    distributed = DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=True)
    half = precision == "bfloat16" or (
        precision == "auto" and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    )
    accelerator = Accelerator(mixed_precision="bf16" if half else "no", kwargs_handlers=[distributed])
    console.quiet = not accelerator.is_main_process
    return accelerator
