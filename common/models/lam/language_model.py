"""The language model in the middle: an encoder as fusion center and a decoder that writes every text task.

::

    prompt, media tokens [B, L, d] ─► encoder ─► [B, L, d]      at the transmitter
    what arrived         [B, T, d] ─► decoder ─► text           at the receiver

Any encoder-decoder model of transformers serves. Its output layer, and the embeddings of what it writes, are cut to the
tokens of the training texts. Its own input embeddings stay whole and frozen, so that unseen words can be asked about.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sclmkb.common.errors import UserError
from sclmkb.common.models.lam.settings import SCRATCH, LanguageModelSettings
from sclmkb.common.models.lam.texts import END, PAD, CutVocabulary, Vocabulary, Words
from sclmkb.common.models.pretrained import clear_refusal, load_weights, read_config, resolve_encoder_decoder

_DEPTHS = (("num_layers", "num_decoder_layers"), ("encoder_layers", "decoder_layers"))
"""How configurations call the numbers of layers."""


class LanguageModel(nn.Module):
    """An encoder-decoder model of width d that writes a cut vocabulary of V tokens.

    Args:
        model: of transformers.
        vocabulary: what it writes.
        settings: what is trained of it.

    Attributes:
        width: d.
        read_embedding: frozen embeddings of prompts; of ``scratch`` they are trained.
    """

    def __init__(self, model: Any, vocabulary: Vocabulary, settings: LanguageModelSettings) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.width: int = model.get_input_embeddings().embedding_dim
        self.read_embedding: nn.Embedding = model.get_input_embeddings()
        own = model.get_output_embeddings().weight.detach()
        written = self.read_embedding.weight.detach()
        if isinstance(vocabulary, CutVocabulary):
            start = getattr(model.config, "decoder_start_token_id", None)
            begins = [vocabulary.entries[PAD] if start is None else start, *vocabulary.entries[PAD + 1 :]]
            own, written = own[list(vocabulary.entries)], written[begins]
        scale = self.width**-0.5 if settings.is_drawn else 1.0
        head = nn.Linear(self.width, len(vocabulary), bias=False)
        head.weight = nn.Parameter(own.clone().float() * scale)
        embedding = nn.Embedding(*written.shape)
        embedding.weight = nn.Parameter(written.clone().float())
        self.encoder: nn.Module = model.get_encoder()
        self.decoder: nn.Module = model.get_decoder()
        self.decoder.set_input_embeddings(embedding)
        self.head = head
        self.logit_scale = self.width**-0.5 if getattr(model.config, "scale_decoder_outputs", False) else 1.0
        # The encoder is only given embeddings; a table of its own would be saved for nothing.
        self.encoder.set_input_embeddings(None)
        self.read_embedding.requires_grad_(settings.is_drawn)
        if settings.tune != "all":
            self._freeze(settings)

    @property
    def embedding_scale(self) -> float:
        """Deviation of an entry of the prompts' embeddings: 13.5 in Flan-T5."""
        return float(self.read_embedding.weight.detach().float().std())

    def embed(self, numbers: Int[Tensor, "B L"]) -> Float[Tensor, "B L d"]:
        """Return the embeddings of prompts that :meth:`Vocabulary.read` has read."""
        embedded: Tensor = self.read_embedding(numbers)
        return embedded

    def fuse(self, tokens: Float[Tensor, "B L d"], real: Bool[Tensor, "B L"]) -> Float[Tensor, "B L d"]:
        """Return what the encoder makes of all tokens of a sample, of whatever modality."""
        fused: Tensor = self.encoder(inputs_embeds=tokens, attention_mask=real.long()).last_hidden_state
        return fused

    def loss(
        self, memory: Float[Tensor, "B T d"], arrived: Bool[Tensor, "B T"], labels: Int[Tensor, "B L"]
    ) -> Float[Tensor, " B"]:
        """Return the mean cross-entropy per token of each text that shall be written.

        Args:
            memory: what the receiver has.
            arrived: which of its tokens were sent.
            labels: the texts, see :meth:`Vocabulary.numbers`.
        """
        begun = nn.functional.pad(labels[:, :-1], (1, 0), value=PAD)
        logits = self._logits(begun, memory, arrived)
        each = nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
        there = labels != PAD
        return (each * there).sum(1) / there.sum(1)

    @torch.no_grad()
    def generate(self, memory: Float[Tensor, "B T d"], arrived: Bool[Tensor, "B T"], most: int) -> Int[Tensor, "B L"]:
        """Write texts token by token, the likeliest each time, up to ``most`` tokens or the end of all."""
        last = torch.full((len(memory), 1), PAD, dtype=torch.long, device=memory.device)
        ended = torch.zeros(len(memory), dtype=torch.bool, device=memory.device)
        written: list[Tensor] = []
        past = None
        for _ in range(most):
            states = self.decoder(
                input_ids=last,
                encoder_hidden_states=memory,
                encoder_attention_mask=arrived.long(),
                past_key_values=past,
                use_cache=True,
            )
            past = states.past_key_values
            last = self.head(states.last_hidden_state[:, -1:] * self.logit_scale).argmax(-1)
            last = last.masked_fill(ended[:, None], PAD)
            written.append(last)
            ended |= last[:, 0] == END
            if bool(ended.all()):
                break
        return torch.cat(written, dim=1)

    def _logits(self, numbers: Tensor, memory: Tensor, arrived: Tensor) -> Tensor:
        states = self.decoder(
            input_ids=numbers, encoder_hidden_states=memory, encoder_attention_mask=arrived.long(), use_cache=False
        ).last_hidden_state
        logits: Tensor = self.head(states * self.logit_scale)
        return logits.float()

    def _freeze(self, settings: LanguageModelSettings) -> None:
        for part in (self.encoder, self.decoder):
            part.requires_grad_(False)
        if settings.tune == "lora":
            from peft import LoraConfig, inject_adapter_in_model

            lora = LoraConfig(r=settings.lora_rank, lora_alpha=2 * settings.lora_rank, target_modules="all-linear")
            for part in (self.encoder, self.decoder):
                inject_adapter_in_model(lora, part)


def load_language_model(settings: LanguageModelSettings, vocabulary: Vocabulary) -> LanguageModel:
    """Build the language model around a vocabulary.

    Raises:
        UserError: if there is no such model, it is no encoder-decoder, or it has fewer layers than asked for.
    """
    from transformers import AutoModelForSeq2SeqLM, T5Config

    if settings.name == SCRATCH:
        width, layers = settings.width, settings.layers or 2
        config = T5Config(
            vocab_size=len(vocabulary), d_model=width, d_kv=max(width // 8, 8), num_heads=8, d_ff=2 * width,
            num_layers=layers, num_decoder_layers=layers, feed_forward_proj="gated-gelu", dropout_rate=0.0,
        )  # fmt: skip
        return LanguageModel(AutoModelForSeq2SeqLM.from_config(config), vocabulary, settings)
    folder, config = resolve_encoder_decoder(settings.name), cut_config(settings)
    for name in ("dropout_rate", "dropout", "attention_dropout", "activation_dropout"):
        if hasattr(config, name):
            setattr(config, name, 0.0)
    if settings.random_weights:
        model = AutoModelForSeq2SeqLM.from_config(config)
    else:
        model, _ = load_weights(AutoModelForSeq2SeqLM, "language model", settings.name, folder, config)
    return LanguageModel(model, vocabulary, settings)


def cut_config(settings: LanguageModelSettings) -> Any:
    """Return the configuration of a pre-trained model, cut to the layers that are kept.

    Raises:
        UserError: if there is no such model, it is no encoder-decoder, or it has fewer layers than asked for.
    """
    config = read_config("language model", settings.name, resolve_encoder_decoder(settings.name))
    if not getattr(config, "is_encoder_decoder", False):
        raise UserError(f"language model {settings.name} is no encoder-decoder model: name one such as Flan-T5 or BART")
    _cut(config, settings)
    return config


def make_vocabulary(settings: LanguageModelSettings, read: Sequence[str], written: Sequence[str]) -> Vocabulary:
    """Return the vocabulary of a training.

    Args:
        settings: whose tokenizer is used.
        read: prompts of the training; only ``scratch`` needs them.
        written: texts that are written.

    Raises:
        UserError: if there is no such model, or it has no tokenizer.
    """
    if settings.name == SCRATCH:
        return Words.of([*read, *written])
    return CutVocabulary.of(_tokenizer(settings.name), written)


def saved_vocabulary(settings: LanguageModelSettings, entries: Sequence[Any]) -> Vocabulary:
    """Return the vocabulary whose entries a checkpoint holds.

    Raises:
        UserError: if the model of its tokenizer is not there.
    """
    if settings.name == SCRATCH:
        return Words(entries)
    return CutVocabulary(_tokenizer(settings.name), entries)


def _tokenizer(name: str) -> Any:
    from transformers import AutoTokenizer

    folder = resolve_encoder_decoder(name)
    with clear_refusal("tokenizer of language model", name):
        return AutoTokenizer.from_pretrained(folder)


def _cut(config: Any, settings: LanguageModelSettings) -> None:
    """Set the numbers of layers to the first ones that are kept."""
    for names in _DEPTHS:
        if settings.layers and hasattr(config, names[0]):
            least = min(getattr(config, name) for name in names)
            if settings.layers > least:
                raise UserError(
                    f"language model {settings.name} has {least} layers, not {settings.layers}: ask for fewer"
                )
            for name in names:
                setattr(config, name, settings.layers)
            return
