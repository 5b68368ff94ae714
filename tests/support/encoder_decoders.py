"""Small encoder-decoder models with random weights, in the layouts that transformers saves."""

from pathlib import Path

import torch

WORDS = [
    "<pad>",
    "</s>",
    "<unk>",
    "<s>",
    "what",
    "color",
    "is",
    "this",
    "it",
    "red",
    "green",
    "blue",
    "yes",
    "no",
    "the",
]


def write_encoder_decoder(folder: Path, kind: str) -> Path:
    """Write a model of 2 + 2 layers, 32 wide: ``t5``, ``flan`` (gated, its output layer untied) or ``bart``."""
    from transformers import BartConfig, BartForConditionalGeneration, T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    folder.mkdir()
    _tokenizer(folder)
    if kind == "bart":
        config = BartConfig(
            vocab_size=len(WORDS), d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64,
            pad_token_id=0, eos_token_id=1, bos_token_id=3, decoder_start_token_id=1, forced_eos_token_id=None,
        )  # fmt: skip
        BartForConditionalGeneration(config).save_pretrained(folder)
        return folder
    config = T5Config(
        vocab_size=len(WORDS), d_model=32, d_kv=8, d_ff=48, num_layers=2, num_decoder_layers=2, num_heads=4,
        feed_forward_proj="gated-gelu" if kind == "flan" else "relu", decoder_start_token_id=0,
        tie_word_embeddings=kind == "t5",
    )  # fmt: skip
    model = T5ForConditionalGeneration(config)
    model.save_pretrained(folder)
    return folder


def _tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", bos_token="<s>"
    ).save_pretrained(folder)
