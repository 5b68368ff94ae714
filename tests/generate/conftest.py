import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="session")
def fakes() -> ModuleType:
    """The stand-ins of ``sdg_fakes.py``."""
    path = Path(__file__).with_name("sdg_fakes.py")
    spec = importlib.util.spec_from_file_location("sdg_fakes", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["sdg_fakes"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def byte_tokenizer() -> Any:
    """A tokenizer of single bytes with the control tokens of LLaMA-2 and LLaMA-3."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    control = ["<s>", "</s>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    vocabulary = {token: i for i, token in enumerate([*control, *alphabet])}
    bare = Tokenizer(models.BPE(vocabulary, []))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=bare, bos_token="<s>", eos_token="</s>", extra_special_tokens=control[2:]
    )
