"""The trained layers of CDG: the aligner around the frozen language model, and layers on the grid of beams."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sclmkb.common.models.backbone import Backbone


class GridMlp(nn.Module):
    """Two layers for each beam on features of the beam, its row, its column and the whole.

    The first layer is linear in all four side by side; each part is computed at its own size and then broadcast,
    which costs a fraction of the layer on the expanded features and is the same.

    Args:
        beam: features of a beam.
        direction: features of a row, and of a column.
        whole: features of the whole.
        width: of both layers.
    """

    def __init__(self, beam: int, direction: int, whole: int, width: int) -> None:
        super().__init__()
        self.beam = nn.Linear(beam, width)
        self.row, self.column, self.whole = (
            nn.Linear(size, width, bias=False) for size in (direction, direction, whole)
        )
        self.second = nn.Linear(width, width)

    def forward(
        self,
        beam: Float[Tensor, "B Nr Nt beam"],
        row: Float[Tensor, "B Nr direction"],
        column: Float[Tensor, "B Nt direction"],
        whole: Float[Tensor, "B whole"],
    ) -> Float[Tensor, "B Nr Nt width"]:
        """Return hidden features of each beam."""
        directions = self.row(row).unsqueeze(2) + self.column(column).unsqueeze(1)
        first = self.beam(beam) + directions + self.whole(whole)[:, None, None]
        result: Tensor = F.gelu(self.second(F.gelu(first)))
        return result


class Aligner(nn.Module):
    """From CSI embeddings to the language model's world and back, eqs. (17)-(21).

    Args:
        backbone: the frozen language model.
        width: width d_m of a CSI embedding, and of the context.
        num_heads: heads of the cross-attention.
        num_prototypes: compressed words V'.
        num_words: words of the vocabulary that W_c compresses; 0: all.
        soft_token: the context comes from soft tokens (21), or else straight from the backbone's output.
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
    ) -> None:
        super().__init__()
        num_words = min(num_words or backbone.vocabulary_size, backbone.vocabulary_size)
        self.register_buffer("words", backbone.words[:num_words].clone(), persistent=False)
        self.soft_token, self.num_heads = soft_token, num_heads
        self.compress = nn.Linear(num_words, num_prototypes, bias=False)  # W_c
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(backbone.width, width)
        self.value = nn.Linear(backbone.width, width)
        self.join = nn.Linear(width, backbone.width)
        self.backbone = [backbone]  # in a list, since its owner registers it
        self.norm = nn.LayerNorm(backbone.width)
        if self.soft_token:
            self.vocabulary = nn.Linear(backbone.width, num_prototypes)  # W_o, b
        self.context = nn.Linear(backbone.width, width)

    def forward(self, tokens: Float[Tensor, "B N width"]) -> tuple[Float[Tensor, "B N width"], Float[Tensor, "B N V"]]:
        """Return the context of each token and the logits of (20)."""
        prototypes = self.compress.weight @ self.words  # E' [V', D], (17)
        query = self._split(self.query(tokens))
        key, value = self._split(self.key(prototypes)[None]), self._split(self.value(prototypes)[None])
        attended = F.scaled_dot_product_attention(
            query, key.expand(len(tokens), -1, -1, -1), value.expand(len(tokens), -1, -1, -1)
        )
        aligned = self.join(attended.transpose(1, 2).flatten(2))  # A [B, N, D], (18)
        hidden = self.norm(self.backbone[0](aligned))  # O, (19)
        if not self.soft_token:
            return self.context(hidden), hidden.new_zeros(*hidden.shape[:2], 0)
        logits = self.vocabulary(hidden)
        soft = logits.softmax(-1) @ prototypes  # (20), (21)
        return self.context(soft), logits

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.num_heads, -1).transpose(1, 2)
