"""Whisper base out of the CTranslate2 file that two packages carry half each.

6 + 6 layers, d = 512, 72.6 million weights. The file holds named arrays (ctranslate2/specs/model_spec.py): query, key
and value maps side by side, the key without a bias of its own.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_FIRST, _SECOND = "data/model.bin.part1", "data/model.bin.part2"
_TYPES = {0: "<f4", 1: "i1", 2: "<i2", 3: "<i4", 4: "<f2"}
"""NumPy's types by those of CTranslate2."""

CONFIG: Mapping[str, Any] = {
    "architectures": ["WhisperForConditionalGeneration"],
    "model_type": "whisper",
    "vocab_size": 51865,
    "num_mel_bins": 80,
    "d_model": 512,
    "encoder_layers": 6,
    "encoder_attention_heads": 8,
    "encoder_ffn_dim": 2048,
    "decoder_layers": 6,
    "decoder_attention_heads": 8,
    "decoder_ffn_dim": 2048,
    "max_source_positions": 1500,
    "max_target_positions": 448,
    "bos_token_id": 50257,
    "eos_token_id": 50257,
    "pad_token_id": 50257,
    "decoder_start_token_id": 50258,
    "tie_word_embeddings": True,
    "dtype": "float32",
}
"""Of ``WhisperForConditionalGeneration``."""

FILES: Mapping[str, str | Mapping[str, Any]] = {
    "tokenizer.json": "data/tokenizer.json",
    "tokenizer_config.json": {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "model_max_length": 448,
    },
    "preprocessor_config.json": {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": 80,
        "sampling_rate": 16000,
        "hop_length": 160,
        "chunk_length": 30,
        "n_fft": 400,
        "n_samples": 480000,
        "nb_max_frames": 3000,
        "padding_value": 0.0,
        "padding_side": "right",
        "return_attention_mask": False,
    },
    "generation_config.json": {
        "bos_token_id": 50257,
        "eos_token_id": 50257,
        "pad_token_id": 50257,
        "decoder_start_token_id": 50258,
        "max_length": 448,
    },
}
"""The other files of the folder."""

_NAMES = {
    "encoder/position_encodings/encodings": "encoder.embed_positions.weight",
    "decoder/position_encodings/encodings": "decoder.embed_positions.weight",
    "decoder/embeddings/weight": "decoder.embed_tokens.weight",
}
_NORMS = {"gamma": "weight", "beta": "bias"}
_BLOCKS = {
    "self_attention/layer_norm": "self_attn_layer_norm",
    "self_attention/linear_1": "self_attn.out_proj",
    "attention/layer_norm": "encoder_attn_layer_norm",
    "attention/linear_0": "encoder_attn.q_proj",
    "attention/linear_2": "encoder_attn.out_proj",
    "ffn/layer_norm": "final_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
}
_FUSED = {
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
}


def read_weights(packages: Sequence[Path]) -> dict[str, Tensor]:
    """Return the weights by their names in transformers.

    Args:
        packages: the folders of both packages.

    Raises:
        ValueError: if the file holds another model.
    """
    data = (packages[0] / _FIRST).read_bytes() + (packages[1] / _SECOND).read_bytes()
    found: dict[str, Tensor] = {}
    for name, value in _arrays(data):
        found |= {f"model.{new}": tensor.float() for new, tensor in _renamed(name, value)}
    expected = 2 * 2 + 1 + 2 + 6 * 15 + 2 + 2 + 6 * 24
    if len(found) != expected:
        raise ValueError(f"{len(found)} weights, not {expected}")
    return found


def _arrays(data: bytes) -> Iterator[tuple[str, NDArray[Any]]]:
    """Go through the arrays of a CTranslate2 file (version 6)."""
    place = 0

    def take(form: str) -> tuple[Any, ...]:
        nonlocal place
        try:
            values = struct.unpack_from(form, data, place)
        except struct.error:
            raise ValueError("the CTranslate2 file breaks off") from None
        place += struct.calcsize(form)
        return values

    def text() -> str:
        (size,) = take("<H")
        return bytes(take(f"<{size}s")[0]).rstrip(b"\0").decode()

    (version,) = take("<I")
    spec = text()
    _, count = take("<II")
    if version != 6 or spec != "WhisperSpec":
        raise ValueError(f"version {version} of {spec}, not 6 of WhisperSpec")
    for _ in range(count):
        name, (rank,) = text(), take("<B")
        shape = take(f"<{rank}I")
        kind, size = take("<BI")
        yield name, np.frombuffer(data, _TYPES[kind], size // np.dtype(_TYPES[kind]).itemsize, place).reshape(shape)
        place += size


def _renamed(name: str, value: NDArray[Any]) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights that an array holds, by their names below ``model``; settings hold none."""
    if name in _NAMES:
        yield _NAMES[name], torch.from_numpy(value.copy())
        return
    side, _, rest = name.partition("/")
    stem, _, kind = rest.rpartition("/")
    kind = _NORMS.get(kind, kind)
    if kind not in ("weight", "bias"):
        return
    if stem in ("conv1", "conv2", "layer_norm"):
        yield f"{side}.{stem}.{kind}", torch.from_numpy(value.copy())
        return
    layer, _, block = stem.partition("/")
    before = f"{side}.layers.{layer.removeprefix('layer_')}"
    if block in _BLOCKS:
        yield f"{before}.{_BLOCKS[block]}.{kind}", torch.from_numpy(value.copy())
    elif block in _FUSED:
        maps = np.split(value, len(_FUSED[block]))
        for new, part in zip(_FUSED[block], maps, strict=True):
            if kind == "weight" or not new.endswith("k_proj"):
                yield f"{before}.{new}.{kind}", torch.from_numpy(part.copy())
