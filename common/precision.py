"""What a machine is fast in: which device, which number format."""

from collections.abc import Mapping
from typing import Literal

Dtype = Literal["bfloat16", "float32"]
Precision = Literal["auto", "float32", "bfloat16"]


def best_device() -> str:
    """Return ``cuda`` if there is a GPU, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def has_fast_bfloat16() -> bool:
    """Return whether this machine's processor multiplies bfloat16 in hardware (elsewhere it is slower than 32 bits)."""
    import torch

    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def fast_cpu_dtype() -> Dtype:
    """Return the format that this machine's processor is fastest in."""
    return "bfloat16" if has_fast_bfloat16() else "float32"
