"""Settings of the engine in :mod:`sclmkb.generate.engines.transformers`, apart: that one loads PyTorch."""

from typing import Literal

from pydantic import Field

from sclmkb.common.config import Settings, speed_only


class TransformersSettings(Settings):
    """Settings of the engine."""

    dtype: Literal["bfloat16", "float16", "float32"] = Field(
        default="float32",
        description="type of weights and activations; in float32 a text hardly ever depends on its batch",
    )
    device: str = speed_only(
        "auto", description="a device of torch; auto: a GPU (CUDA or MPS) if there is one, else the CPU"
    )
    batch_size: int = speed_only(16, ge=1, description="requests that are decoded together")
    max_model_len: int = Field(default=512, ge=64, description="most tokens of prompt and text together")
