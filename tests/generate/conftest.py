from pathlib import Path
from typing import Any

import pytest
import sdg_fakes

from sclmkb.generate.engines.chat import shipped_templates


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


@pytest.fixture
def byte_model(byte_tokenizer: Any, tmp_path: Path) -> str:
    """A folder with that tokenizer and without weights."""
    folder = tmp_path / "model"
    byte_tokenizer.chat_template = shipped_templates()["vicuna-v1.1"]
    byte_tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return str(folder)


@pytest.fixture
def job(tmp_path: Path) -> sdg_fakes.Job:
    """Return what runs SDG over a corpus of 100 captions."""
    return sdg_fakes.Job(tmp_path, sdg_fakes.write_corpus(tmp_path / "corpus", 100))
