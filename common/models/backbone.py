"""The frozen language model inside CDG and other predictors: its word embeddings and its first layers.

Models of the LLaMA family and those laid out like it in transformers (``model.layers``, ``model.norm``) work, and
GPT-2 (``transformer.h``).
"""

from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sclmkb.common.errors import UserError
from sclmkb.common.models.pretrained import load_weights, model_fingerprint, read_config, resolve_language_model

BackboneKind = Literal["pretrained", "random", "none"]


class Backbone(nn.Module):
    """The first K layers of a language model, frozen: gradients pass through, weights stay.

    ::

        A [B, N, D] ─► layer 1 ─► … ─► layer K ─► final norm ─► O [B, N, D]          (19)

    There are two controls beside the pre-trained weights, with the same number of tokens and steps. ``random`` has the
    same layers with random weights. ``none`` has no layers and passes the tokens on. All three share the word
    embeddings.

    Attributes:
        words: word embeddings E of the whole vocabulary, standardised (see :meth:`load`).
        fingerprint: of the model's files.
        architecture: what transformers calls the kind of model: ``llama``, ``gpt2``.
    """

    words: Tensor

    def __init__(
        self, layers: nn.Module | None, words: Float[Tensor, "V D"], fingerprint: str, architecture: str = "llama"
    ) -> None:
        super().__init__()
        self.layers = layers
        self.register_buffer("words", words, persistent=False)
        self.fingerprint, self.architecture = fingerprint, architecture
        self.requires_grad_(False)

    @classmethod
    def load(cls, name: str, *, num_layers: int = 4, kind: BackboneKind = "pretrained", seed: int = 0) -> "Backbone":
        """Load the first layers and the word embeddings of a language model, in float32.

        The embeddings are standardised: the mean word is taken out and the rest scaled to unit mean square. Words
        share a large common part, which would dominate a softmax over words.

        Args:
            name: what :func:`~sclmkb.common.models.pretrained.resolve_language_model` takes.
            num_layers: K.
            kind: the weights as trained, random ones, or no layers.
            seed: of the random weights.

        Raises:
            UserError: if the model cannot be loaded, has another layout, or fewer layers.
        """
        from transformers import AutoModelForCausalLM

        what, resolved = "language model", resolve_language_model(name)
        config = read_config(what, name, resolved)
        available = int(getattr(config, "num_hidden_layers", 0))
        if num_layers > available:
            raise UserError(f"the language model '{name}' has {available} layers, {num_layers} were asked for")
        config.num_hidden_layers = num_layers  # the other layers are never read
        model, _ = load_weights(AutoModelForCausalLM, what, name, resolved, config, attn_implementation="sdpa")
        words = model.get_input_embeddings().weight.detach().clone()
        words = words - words.mean(0)
        words = words / words.square().mean().sqrt()
        layers = None
        if kind != "none":
            layers = _first_layers(getattr(model, model.base_model_prefix), name, num_layers)
        if kind == "random" and layers is not None:
            _randomise(layers, seed, float(getattr(config, "initializer_range", 0.02)))
        return cls(layers, words, model_fingerprint(resolved), str(config.model_type))

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
        return cast(Tensor, self.layers(inputs_embeds=tokens, use_cache=False).last_hidden_state)

    def go_on(self, tokens: Float[Tensor, "B N D"], past: Any = None) -> tuple[Float[Tensor, "B N D"], Any]:
        """Return the hidden states of further tokens, and what to pass as ``past`` with those that follow them."""
        if self.layers is None:
            return tokens, None
        output = self.layers(inputs_embeds=tokens, past_key_values=past, use_cache=True)
        return output.last_hidden_state, output.past_key_values

    def tune_norms(self) -> "Backbone":
        """Let gradient descent change the layer norms and, where the model learns them, the position embeddings.

        The rest stays frozen: the "frozen pretrained transformer" of Lu et al. 2021 (arXiv 2103.05247). See
        :class:`TunedNorm` for what is trained of a norm.
        """
        for module in list(self.layers.modules()) if self.layers is not None else []:
            for name, child in list(module.named_children()):
                if "norm" in name or name.startswith("ln_"):
                    setattr(module, name, TunedNorm(child))
        positions = getattr(self.layers, "wpe", None)
        if positions is not None:
            positions.requires_grad_(True)
        return self

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in evaluation mode: a frozen model has no dropout."""
        return super().train(False)


class TunedNorm(nn.Module):
    """A frozen norm, then a trained gain from 1 and, where the norm has a bias, a trained offset from 0.

    It computes the same as a norm with tuned weights, but its steps are relative to the original weights. A LLaMA's
    weights are some hundredths. The learning rate of the layers around it would wipe them out.
    """

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.norm: nn.Module = norm
        self.gain = nn.Parameter(torch.ones_like(norm.weight))
        biased = getattr(norm, "bias", None) is not None
        self.offset = nn.Parameter(torch.zeros_like(norm.weight)) if biased else None

    def forward(self, hidden: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape D"]:
        """Return the normalised hidden states."""
        scaled: Tensor = self.norm(hidden) * self.gain
        return scaled if self.offset is None else scaled + self.offset


def _first_layers(model: Any, name: str, num_layers: int) -> nn.Module:
    stack = next((part for part in ("layers", "h") if isinstance(getattr(model, part, None), nn.ModuleList)), None)
    if stack is None:
        raise UserError(
            f"the language model '{name}' is not laid out like LLaMA (model.layers) or GPT-2 (transformer.h): choose"
            " another"
        )
    setattr(model, stack, getattr(model, stack)[:num_layers])
    for words in ("embed_tokens", "wte"):  # they are kept apart
        if hasattr(model, words):
            setattr(model, words, None)
    return cast(nn.Module, model)


def _randomise(layers: nn.Module, seed: int, deviation: float) -> None:
    """Draw matrices as the model's own initialisation does; norms become ones, biases zeros."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in layers.named_parameters():
            if parameter.ndim > 1:
                parameter.copy_(deviation * torch.randn(parameter.shape, generator=generator))
            else:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
