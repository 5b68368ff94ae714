"""Flan-T5-small out of the int8 ONNX files of ``traceforge-title-model``.

::

    encoder.onnx, decoder.onnx ─► initializers W_quantized, W_scale, W_zero_point ─► (W - zero point) · scale
                               └► nodes MatMulInteger: which layer each W belongs to, W transposed

8 + 8 layers, d = 512, 77 million weights. The output layer is not tied to the embeddings.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sclmkb.common.models.parts.onnx_file import OnnxGraph, read_graph

_DATA = "data/span"

CONFIG: Mapping[str, Any] = {
    "architectures": ["T5ForConditionalGeneration"],
    "model_type": "t5",
    "vocab_size": 32128,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 1024,
    "num_layers": 8,
    "num_decoder_layers": 8,
    "num_heads": 6,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "feed_forward_proj": "gated-gelu",
    "layer_norm_epsilon": 1e-6,
    "tie_word_embeddings": False,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "dtype": "float32",
}
"""Of ``T5ForConditionalGeneration``. With tied embeddings transformers would scale what the output layer takes."""

FILES: Mapping[str, str | Mapping[str, Any]] = {
    "tokenizer.json": f"{_DATA}/tokenizer.json",
    "tokenizer_config.json": {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "model_max_length": 512,
    },
    "generation_config.json": {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0},
}
"""The other files of the folder."""


def read_weights(packages: Sequence[Path]) -> dict[str, Tensor]:
    """Return the weights by their names in transformers.

    Args:
        packages: the folder of the package.

    Raises:
        ValueError: if the files hold another model.
    """
    found: dict[str, Tensor] = {}
    for name in ("encoder", "decoder"):
        found |= _weights(read_graph(packages[0] / _DATA / f"{name}.onnx"))
    if not torch.equal(found.pop("encoder.embed_tokens.weight"), found["shared.weight"]):
        raise ValueError("encoder and decoder have different embeddings")
    expected = 8 * 9 + 2 + 8 * 14 + 2 + 2  # layers, with final norm and position bias; embeddings and output layer
    if len(found) != expected:
        raise ValueError(f"{len(found)} weights, not {expected}")
    return found


def _weights(graph: OnnxGraph) -> dict[str, Tensor]:
    found = {}
    for name, value in graph.values.items():
        if name.endswith("weight"):
            found[_name(name)] = torch.from_numpy(value.copy())
        elif name.endswith(".weight_quantized"):
            found[_name(name.removesuffix("_quantized"))] = _dequantised(graph, name)
    for node in graph.nodes:
        if node.kind == "MatMulInteger" and node.inputs[1] in graph.values:
            layer = node.name.removesuffix("/MatMul_quant").strip("/").replace("/", ".")
            found[_name(f"{layer}.weight")] = _dequantised(graph, node.inputs[1]).T
    return found


def _dequantised(graph: OnnxGraph, quantised: str) -> Tensor:
    stem = quantised.removesuffix("_quantized")
    scale, zero = graph.values[f"{stem}_scale"], graph.values[f"{stem}_zero_point"]
    value = (graph.values[quantised].astype(np.float32) - zero.astype(np.float32)) * scale
    return torch.from_numpy(value)


def _name(name: str) -> str:
    """``enc.block.0…`` and ``m.decoder.block.0…`` → ``encoder.block.0…`` and ``decoder.block.0…``."""
    return re.sub(r"^(enc|m)\.", lambda start: "encoder." if start[1] == "enc" else "", name)
