"""The JSCC encoder E_α of (1) and the JSCC decoder D_β of (6).

::

    F  = E_α(s),   F ∈ C^{k×m}      (1)
    t^ = D_β(F~)                    (6)

s is a caption, F its features, F~ what the receiver detects, and t^ the result of the task.
"""

from typing import cast

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from sclmkb.common.link.mimo import Detected, normalise_symbols


class JsccEncoder(nn.Module):
    """E_α: from a caption's embedding to k·m complex symbols, (1).

    ::

        text [B, t] ─► standardise ─► linear ─► GELU ─► residual layer ─► linear ─► F [B, k, m]
        SNR, stream SNRs [B, 1 + k] ─► linear ─┘                   mean power 1 per use, each sample

    The stream SNRs are those of the CSI that the transmitter has, so that the encoder can put what matters on
    strong streams.
    """

    text_mean: Tensor
    text_deviation: Tensor

    def __init__(self, *, text_width: int, hidden_width: int, num_streams: int, num_uses: int) -> None:
        super().__init__()
        self.num_streams, self.num_uses = num_streams, num_uses
        self.register_buffer("text_mean", torch.zeros(text_width))
        self.register_buffer("text_deviation", torch.full((text_width,), text_width**-0.5))
        self.text = nn.Linear(text_width, hidden_width)
        self.condition = nn.Linear(1 + num_streams, hidden_width)
        self.hidden = _Residual(hidden_width)
        self.symbols = nn.Linear(hidden_width, 2 * num_streams * num_uses)

    def standardise(self, texts: Float[Tensor, "N t"]) -> None:
        """Set the mean and deviation that texts are standardised with to those of the training captions."""
        self.text_mean.copy_(texts.mean(0))
        self.text_deviation.copy_(texts.std(0, correction=0).clamp(min=1e-3))

    def forward(
        self, text: Float[Tensor, "B t"], snr_db: Float[Tensor, "B"], stream_snr_db: Float[Tensor, "B k"]
    ) -> Complex[Tensor, "B k m"]:
        """Return F with a mean power of 1 per channel use in every sample."""
        return self.features(self.read(text), snr_db, stream_snr_db)

    def read(self, text: Float[Tensor, "B t"]) -> Float[Tensor, "B h"]:
        """Return what depends on the text alone, the same at every SNR."""
        return cast(Tensor, self.text((text - self.text_mean) / self.text_deviation))

    def features(
        self, read: Float[Tensor, "B h"], snr_db: Float[Tensor, "B"], stream_snr_db: Float[Tensor, "B k"]
    ) -> Complex[Tensor, "B k m"]:
        """Return F of texts that :meth:`read` has read."""
        hidden = nn.functional.gelu(read + self.condition(_condition(snr_db, stream_snr_db)))
        planes = self.symbols(self.hidden(hidden)).reshape(-1, self.num_streams, self.num_uses, 2)
        return normalise_symbols(torch.view_as_complex(planes.float().contiguous()))


class JsccDecoder(nn.Module):
    """D_β: from detected symbols to a retrieval embedding of unit length, (6).

    ::

        F^ [B, k, m] as reals ─► linear ──────► GELU ─► residual layer ─► linear ─► x / ‖x‖ [B, d]
        SNR, stream SNRs [B, 1 + k] ─► linear ─┘
    """

    def __init__(self, *, embedding_width: int, hidden_width: int, num_streams: int, num_uses: int) -> None:
        super().__init__()
        self.symbols = nn.Linear(2 * num_streams * num_uses, hidden_width)
        self.condition = nn.Linear(1 + num_streams, hidden_width)
        self.hidden = _Residual(hidden_width)
        self.embedding = nn.Linear(hidden_width, embedding_width)
        self.scale = float(num_streams) ** 0.5  # symbols have power 1/k

    def forward(self, detected: Detected, snr_db: Float[Tensor, "B"]) -> Float[Tensor, "B d"]:
        """Return unit-length embeddings ``[B, d]``."""
        planes = torch.view_as_real(detected.symbols).flatten(1) * self.scale
        condition = self.condition(_condition(snr_db, detected.stream_snr_db))
        hidden = nn.functional.gelu(self.symbols(planes) + condition)
        return nn.functional.normalize(self.embedding(self.hidden(hidden)).float(), dim=-1)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + cast(Tensor, self.inner(x))


def _condition(snr_db: Tensor, stream_snr_db: Tensor) -> Tensor:
    return torch.cat([snr_db[:, None], stream_snr_db], dim=1).clamp(-30.0, 50.0) / 20
