"""The trained layers of CDG: the mixer of directions, the aligner around the frozen language model, the heads."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sclmkb.common.models.backbone import Backbone


class Mixer(nn.Module):
    """A small trained transformer, of pre-norm layers, in which all directions see one another."""

    def __init__(self, width: int, num_heads: int, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([_MixerLayer(width, num_heads) for _ in range(num_layers)])

    def forward(self, tokens: Float[Tensor, "B N width"]) -> Float[Tensor, "B N width"]:
        """Return the mixed tokens."""
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens


class _MixerLayer(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inputs, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = (split_heads(x, self.num_heads) for x in self.inputs(self.first(tokens)).chunk(3, -1))
        tokens = tokens + self.join(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
        result: Tensor = tokens + self.narrow(F.gelu(self.wide(self.second(tokens))))
        return result


class Aligner(nn.Module):
    """From CSI embeddings to the language model's world and back, eqs. (17)-(21).

    Args:
        backbone: the frozen language model.
        width: d_m of a CSI embedding, and of the context.
        num_heads: of the cross-attention.
        num_prototypes: compressed words V'.
        num_words: words of the vocabulary that W_c compresses; 0: all.
        soft_token: the context comes from soft tokens (21), or else straight from the backbone's output.
        cross_attention: CSI embeddings reach the backbone through the words (18), or else by a linear layer.
    """

    words: Tensor

    def __init__(
        self,
        backbone: Backbone,
        *,
        width: int,
        num_heads: int,
        num_prototypes: int,
        num_words: int,
        soft_token: bool,
        cross_attention: bool,
    ) -> None:
        super().__init__()
        num_words = min(num_words or backbone.vocabulary_size, backbone.vocabulary_size)
        self.register_buffer("words", backbone.words[:num_words].clone(), persistent=False)
        self.soft_token, self.cross_attention, self.num_heads = soft_token, cross_attention, num_heads
        words_needed = cross_attention or soft_token
        self.compress = nn.Linear(num_words, num_prototypes, bias=False) if words_needed else None  # W_c
        self.query = nn.Linear(width, width)
        if cross_attention:
            self.key = nn.Linear(backbone.width, width)
            self.value = nn.Linear(backbone.width, width)
        self.join = nn.Linear(width, backbone.width)
        self.backbone = [backbone]  # in a list, since its owner registers it
        self.norm = nn.LayerNorm(backbone.width)
        if soft_token:
            self.vocabulary = nn.Linear(backbone.width, num_prototypes)  # W_o, b
        self.context = nn.Linear(backbone.width, width)

    def forward(self, tokens: Float[Tensor, "B N width"]) -> tuple[Float[Tensor, "B N width"], Float[Tensor, "B N V"]]:
        """Return the context of each token and the logits of (20)."""
        embedded = self.query(tokens)
        prototypes = None if self.compress is None else self.compress.weight @ self.words  # E' [V', D], (17)
        if self.cross_attention and prototypes is not None:
            key, value = (
                split_heads(layer(prototypes)[None], self.num_heads).expand(len(tokens), -1, -1, -1)
                for layer in (self.key, self.value)
            )
            attended = F.scaled_dot_product_attention(split_heads(embedded, self.num_heads), key, value)
            embedded = attended.transpose(1, 2).flatten(2)
        aligned = self.join(embedded)  # A [B, N, D], (18)
        hidden = self.norm(self.backbone[0](aligned))  # O, (19)
        if not self.soft_token or prototypes is None:
            return self.context(hidden), hidden.new_zeros(*hidden.shape[:2], 0)
        logits = self.vocabulary(hidden)
        soft = logits.softmax(-1) @ prototypes  # (20), (21)
        return self.context(soft), logits


class SpectrumHead(nn.Module):
    """Two layers for each beam, then its spectrum over Doppler words and what else its filter needs.

    The first layer is linear in the features of beam, row and, if there are any, column side by side; those of row and
    column are computed at their own size and broadcast. The last layer starts at zero.
    """

    def __init__(self, *, beam: int, row: int, column: int, hidden: int, num_words: int) -> None:
        super().__init__()
        self.beam, self.row = nn.Linear(beam, hidden), nn.Linear(row, hidden, bias=False)
        self.column = nn.Linear(column, hidden, bias=False) if column else None
        self.second = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, num_words + 2)

    def forward(
        self,
        beam: Float[Tensor, "B Nr Nt beam"],
        row: Float[Tensor, "B Nr row"],
        column: Float[Tensor, "B Nt column"] | None = None,
    ) -> tuple[Float[Tensor, "B Nr Nt hidden"], Float[Tensor, "B Nr Nt outputs"]]:
        """Return hidden features of each beam, and K logits, a correction to its SNR and one to its frequency."""
        first = self.beam(beam) + self.row(row).unsqueeze(2)
        if self.column is not None and column is not None:
            first = first + self.column(column).unsqueeze(1)
        hidden = F.gelu(self.second(F.gelu(first)))
        return hidden, self.last(hidden).float()


def split_heads(x: Float[Tensor, "B N width"], num_heads: int) -> Float[Tensor, "B heads N part"]:
    """Return the parts of each token that the heads of an attention see."""
    return x.reshape(*x.shape[:2], num_heads, -1).transpose(1, 2)


def draw_weights(module: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of every trained linear layer from the generator; biases are zero."""
    with torch.no_grad():
        for child in module.modules():
            if isinstance(child, nn.Linear) and child.weight.requires_grad:
                deviation = (3 * child.in_features) ** -0.5  # as torch does by itself
                child.weight.copy_(deviation * torch.randn(child.weight.shape, generator=generator))
                if child.bias is not None:
                    child.bias.zero_()
