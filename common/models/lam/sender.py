"""JSC encoder and JSC decoder of text tasks: from fused tokens to complex channel uses, and back.

::

    fused [B, L, d] ─► learned queries read it ─► T tokens ─► linear, centred ─► T · c complex uses ─► power 1 per use
    arrived [B, T, c] ─► linear + SNR ─► blocks ─► norm, rescaled ─► memory [B, T, d] ─► decoder of the language model

Each task has its queries, its centring and its places at the receiver; everything else is shared. The paper draws both
as boxes (Fig. 4b) and states no layer.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor, nn

from sclmkb.common.models.lam.settings import JscSettings

_SNR_SCALE_DB = 10.0


class LinearOfEach(nn.Module):
    """A linear map of its own for each of T tokens.

    The queries start alike. With one map for all tokens, all would send the same at first, and the receiver could not
    tell them apart.
    """

    def __init__(self, num_tokens: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(num_tokens, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_tokens, outputs).uniform_(-bound, bound))

    def forward(self, x: Float[Tensor, "B T i"]) -> Float[Tensor, "B T o"]:
        """Return what each token's map makes of it."""
        return torch.einsum("bti,tio->bto", x, self.weight) + self.bias


class JscEncoder(nn.Module):
    """From what the fusion center gives to T · c complex numbers per sample, power not yet normalised.

    Args:
        width: d.
        uses: complex uses per sample of each task; multiples of the number of tokens.
        settings: number of tokens and heads.
    """

    def __init__(self, width: int, uses: Mapping[str, int], settings: JscSettings) -> None:
        super().__init__()
        tokens = settings.num_tokens
        self.norm = nn.LayerNorm(width)
        self.queries = nn.ParameterDict({task: nn.Parameter(torch.randn(tokens, width) * 0.02) for task in uses})
        self.attention = nn.MultiheadAttention(width, settings.num_heads, batch_first=True)
        self.hidden = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.snr = nn.Linear(1, width)
        self.symbols = nn.ModuleDict(
            {task: LinearOfEach(tokens, width, 2 * count // tokens) for task, count in uses.items()}
        )
        # Symbols are centred over samples: a constant would take power and say nothing.
        self.centre = nn.ModuleDict({task: nn.BatchNorm1d(2 * count, affine=False) for task, count in uses.items()})

    def read(self, fused: Float[Tensor, "B L d"], real: Bool[Tensor, "B *T L"], task: str) -> Float[Tensor, "B T d"]:
        """Return what T queries read of the fused tokens, each of what it may read: ``real``, for all or for each."""
        tokens = self.norm(fused)
        queries = self.queries[task].expand(len(fused), -1, -1)
        if real.ndim == 2:
            read, _ = self.attention(queries, tokens, tokens, key_padding_mask=~real, need_weights=False)
        else:
            hidden = (~real).repeat_interleave(self.attention.num_heads, dim=0)
            read, _ = self.attention(queries, tokens, tokens, attn_mask=hidden, need_weights=False)
        found: Tensor = read + self.hidden(read)
        return found

    def forward(self, read: Float[Tensor, "B T d"], snr_db: Float[Tensor, " B"], task: str) -> Complex[Tensor, "B T c"]:
        """Return the complex numbers of T tokens."""
        known = read + self.snr(snr_db[:, None] / _SNR_SCALE_DB)[:, None]
        planes = self.symbols[task](known).float()
        centred = self.centre[task](planes.flatten(1)).view_as(planes)
        return torch.view_as_complex(centred.unflatten(2, (-1, 2)).contiguous())


class JscDecoder(nn.Module):
    """From what arrived to the memory that the language model's decoder reads.

    Args:
        width: d.
        uses: complex uses per sample of each task.
        settings: number of tokens, blocks and heads.
        scale: deviation of the memory, that of what the language model's decoder is used to.
    """

    scale: Tensor

    def __init__(self, width: int, uses: Mapping[str, int], settings: JscSettings, scale: float) -> None:
        super().__init__()
        tokens = settings.num_tokens
        self.arrived = nn.ModuleDict(
            {task: LinearOfEach(tokens, 2 * count // tokens, width) for task, count in uses.items()}
        )
        self.places = nn.ParameterDict({task: nn.Parameter(torch.randn(tokens, width) * 0.02) for task in uses})
        self.snr = nn.Linear(1, width)
        self.blocks = transformer_blocks(width, settings)
        self.norm = nn.LayerNorm(width)
        self.register_buffer("scale", torch.tensor(scale))

    def forward(
        self, arrived: Complex[Tensor, "B T c"], sent: Bool[Tensor, "B T"], snr_db: Float[Tensor, " B"], task: str
    ) -> Float[Tensor, "B T d"]:
        """Return the memory; tokens that were not sent are not looked at."""
        planes = torch.view_as_real(arrived).flatten(2)
        tokens = self.arrived[task](planes) + self.places[task] + self.snr(snr_db[:, None] / _SNR_SCALE_DB)[:, None]
        memory: Tensor = self.norm(self.blocks(tokens, src_key_padding_mask=~sent)) * self.scale
        return memory


def transformer_blocks(width: int, settings: JscSettings) -> nn.TransformerEncoder:
    """Return blocks of self-attention over tokens ``[B, T, width]``."""
    block = nn.TransformerEncoderLayer(
        width, settings.num_heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    return nn.TransformerEncoder(block, settings.num_blocks, enable_nested_tensor=False)
