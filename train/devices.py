"""Hugging Face Accelerate: which device, how many processes, which precision.

One process uses the GPU that is there, or the CPU. Several are started by ``accelerate launch`` or ``torchrun``, on
GPUs or on the cores of a CPU.
"""

import os
from typing import Literal

import torch
from accelerate import Accelerator

from sclmkb.common.cli import console

Precision = Literal["auto", "float32", "bfloat16"]


def start_accelerator(precision: Precision) -> Accelerator:
    """Find the device and join the other processes; those that are not the first one fall silent.

    Args:
        precision: of the layers that allow it; ``auto`` is bfloat16 on a GPU that has it and float32 elsewhere.
    """
    half = precision == "bfloat16" or (
        precision == "auto" and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    )
    # Without being told, Accelerate leaves several processes without a GPU to themselves.
    on_cpus = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.cuda.is_available()
    accelerator = Accelerator(mixed_precision="bf16" if half else "no", cpu=on_cpus or None)
    console.quiet = not accelerator.is_main_process
    return accelerator
