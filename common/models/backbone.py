"""The frozen language model inside CDG: its word embeddings and its first layers.

Only models of the LLaMA family and those laid out like it in transformers (``model.layers``, ``model.norm``) work.
"""

from contextlib import suppress
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor, nn

from sclmkb.common.errors import UserError
from sclmkb.common.models.pretrained import model_fingerprint, quiet_loading, resolve_language_model

BackboneKind = Literal["pretrained", "random", "none"]


class Backbone(nn.Module):
    """The first K layers of a language model, frozen: gradients pass through, weights stay.

    ::

        A [B, N, D] ─► layer 1 ─► … ─► layer K ─► final norm ─► O [B, N, D]          (19)

    Two controls stand beside the pre-trained weights, at the same number of tokens and steps: ``random`` has the
    same layers with random weights, ``none`` has no layers and passes the tokens on. All three share the word
    embeddings.

    Attributes:
        words: word embeddings E of the whole vocabulary, standardised (see :meth:`load`).
        fingerprint: of the model's files.
    """

    words: Tensor

    def __init__(self, layers: nn.Module | None, words: Float[Tensor, "V D"], fingerprint: str) -> None:
        super().__init__()
        self.layers = layers
        self.register_buffer("words", words, persistent=False)
        self.fingerprint = fingerprint
        self.requires_grad_(False)

    @classmethod
    def load(cls, name: str, *, num_layers: int = 4, kind: BackboneKind = "pretrained", seed: int = 0) -> "Backbone":
        """Load the first layers and the word embeddings of a language model, in float32.

        The embeddings are standardised: the mean word is taken out and the rest scaled to unit mean square. Words
        share a large common part, which a softmax over words could hardly look past.

        Args:
            name: what :func:`~sclmkb.common.models.pretrained.resolve_language_model` takes.
            num_layers: K; at most what the model has.
            kind: the weights as trained, random ones, or no layers.
            seed: of the random weights.

        Raises:
            UserError: if the model cannot be loaded, has another layout, or fewer layers.
        """
        from transformers import AutoConfig, AutoModelForCausalLM

        resolved = resolve_language_model(name)
        try:
            config = AutoConfig.from_pretrained(resolved)
            available = int(getattr(config, "num_hidden_layers", 0))
            if num_layers > available:
                raise UserError(f"the language model '{name}' has {available} layers, {num_layers} were asked for")
            config.num_hidden_layers = num_layers  # the other layers are never read
            with quiet_loading():
                model = AutoModelForCausalLM.from_pretrained(
                    resolved, config=config, dtype=torch.float32, attn_implementation="sdpa"
                )
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            first = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(f"cannot load the language model '{name}': {first}") from None
        words = model.get_input_embeddings().weight.detach().clone()
        words = words - words.mean(0)
        words = words / words.square().mean().sqrt()
        layers: nn.Module | None = None
        if kind != "none":
            layers = _first_layers(model.model, name, num_layers)
        if kind == "random" and layers is not None:
            _randomise(layers, seed, float(getattr(config, "initializer_range", 0.02)))
        return cls(layers, words, model_fingerprint(resolved))

    @property
    def width(self) -> int:
        """Hidden width D."""
        return self.words.shape[1]

    @property
    def vocabulary_size(self) -> int:
        """Vocabulary V."""
        return self.words.shape[0]

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """Return the hidden states of input tokens, eq. (19)."""
        if self.layers is None:
            return tokens
        output: Tensor = self.layers(inputs_embeds=tokens, use_cache=False).last_hidden_state
        return output

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in evaluation mode: a frozen model has no dropout."""
        return super().train(False)


def _first_layers(model: Any, name: str, num_layers: int) -> nn.Module:
    if not isinstance(getattr(model, "layers", None), nn.ModuleList):
        raise UserError(f"the language model '{name}' is not laid out like LLaMA (model.layers): choose another")
    model.layers = model.layers[:num_layers]
    with suppress(AttributeError):  # the words are kept apart
        model.embed_tokens = None
    return cast(nn.Module, model)


def _randomise(layers: nn.Module, seed: int, deviation: float) -> None:
    """Draw matrices as the model's own initialisation does; vectors (norms) become ones."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layers.parameters():
            if parameter.ndim > 1:
                parameter.copy_(deviation * torch.randn(parameter.shape, generator=generator))
            else:
                parameter.fill_(1.0)
