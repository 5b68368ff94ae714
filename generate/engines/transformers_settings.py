"""Settings of the engine in :mod:`sclmkb.generate.engines.transformers`, apart: that one loads PyTorch."""

from typing import Literal

from pydantic import Field

from sclmkb.common.config import Settings, speed_only


class TransformersSettings(Settings):
    """Settings of the engine."""

    dtype: Literal["bfloat16", "float16", "float32"] = "float32"
    """Of weights and activations; in float32 a completion hardly ever depends on its batch."""
    device: str = speed_only("auto")
    """A device of torch; ``auto``: a GPU (CUDA or MPS) where there is one, else the CPU."""
    batch_size: int = speed_only(16, ge=1)
    """Requests that are decoded together."""
    max_model_len: int = Field(default=512, ge=64)
    """Longest prompt and completion together, in tokens."""
