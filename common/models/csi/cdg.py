"""CDG: channel data generation with a frozen language model, the paper's second capability, eqs. (17)-(21).

::

    history [B,T,Nr,Nt] ─► unit power ─► eigen-beams b [B,T,Nr,Nt]
                                           │
        ┌──────────────────────────────────┼───────────────────────────────────┐
        │                                  ▼                                   │
        │        features: lag autocorrelations over power, log SNR,           │
        │        of each beam, receive row, transmit column and of all         │
        │                                  │                                   │
        │                    beam embedding, mixed over rows and columns       │
        │                                  │                                   │
        │            tokens: strongest receive and transmit directions         │
        │                                  ▼                                   │
        │   words E ─► E' = W_c E (17) ─► cross-attention (18) ─► A [B,N,D]    │
        │                 │                ▼                                   │
        │                 │      frozen backbone O = LLM(A) (19)               │
        │                 │                ▼                                   │
        │                 │      y^ = softmax(W_o o + b) (20) ──► CE (30)      │
        │                 └──────────────► ▼                                   │
        │                        soft tokens y^ᵀE' (21) ─► context             │
        │                                  ▼                                   │
        │                head for each beam: T·P complex taps, AR gate         │
        ▼                                  ▼                                   ▼
    Wiener bank ──────────► + ◄── taps applied to the beam        AR(8) expert, gated
                            │
                            ▼
                back to antennas and scale ─► future [B,P,Nr,Nt]

How this reads the paper. Flattened into the frozen model as the text has it, CDG hardly beats stale CSI (see
``docs``), so what enters the tokens and what the last projection means differ, and the equations between stay:

- A token is a receive or transmit direction instead of a time patch; its features cover all T samples.
- The vocabulary of (20) is the V' prototypes E' and not the V words: a softmax over 49,152 words costs more than
  everything else together, and E' spans what the tokens can attend to. With ``num_prototypes`` = V the two agree
  but for W_c.
- W_c in (17) reads the ``num_words`` first words of the vocabulary, which byte-pair encodings number by frequency; 0
  reads all of them.
- The last projection of (21) gives, for each beam, a correction to a classical filter instead of the CSI itself. Its
  last layer starts at zero, so that training starts at the classical predictor.

Predictions turn with the phase of the history and scale with it, since features do not and filters do.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Complex64, Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from sclmkb.common.channel.csi import EigenBeams, normalise_power
from sclmkb.common.config import Settings
from sclmkb.common.models.backbone import Backbone, BackboneKind
from sclmkb.common.models.csi.ar import AutoRegression
from sclmkb.common.models.csi.lmmse import WienerBank, noise_after_normalising


class CdgSettings(Settings):
    """What decides the shape and meaning of a CDG model.

    Attributes:
        language_model: the model that is embedded, as for SDG.
        backbone: its pre-trained weights, random ones, or no layers (the two controls).
        num_layers: layers K of it.
        head: soft tokens over the vocabulary (21), or a projection straight from the backbone's output.
        num_prototypes: compressed words V' of (17).
        num_words: words of the vocabulary that W_c compresses; 0: all.
        num_directions: strongest receive, and as many transmit, directions that become tokens.
        num_lags: lags of the autocorrelation features.
        width: width d_m of the embeddings and the context.
        num_heads: heads of the cross-attention (18).
        hidden: width of the head for each beam.
        ar_order: order of the AR expert; 0: none.
    """

    language_model: str = "smollm2-135m-instruct"
    backbone: BackboneKind = "pretrained"
    num_layers: int = Field(default=4, ge=1)
    head: Literal["soft_token", "direct"] = "soft_token"
    num_prototypes: int = Field(default=256, ge=2)
    num_words: int = Field(default=4096, ge=0)
    num_directions: int = Field(default=8, ge=1)
    num_lags: int = Field(default=8, ge=1)
    width: int = Field(default=128, ge=8)
    num_heads: int = Field(default=8, ge=1)
    hidden: int = Field(default=256, ge=8)
    ar_order: int = Field(default=8, ge=0)

    @model_validator(mode="after")
    def _heads_divide(self) -> "CdgSettings":
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} must be a multiple of num_heads {self.num_heads}")
        return self


@dataclass(frozen=True, kw_only=True)
class CdgOutput:
    """What :meth:`Cdg.forward` returns, in the eigen-beams and at unit power of the noisy history.

    Attributes:
        predicted: predicted beams.
        base: what the classical filter bank predicts.
        logits: of (20), before the softmax; of zero width if the head is ``direct``.
        beams: the transform, to bring labels into the same beams.
        scale: of the history.
    """

    predicted: Complex64[Tensor, "B P Nr Nt"]
    base: Complex64[Tensor, "B P Nr Nt"]
    logits: Float[Tensor, "B N V"]
    beams: EigenBeams
    scale: Float[Tensor, "B 1 1 1"]


class Cdg(nn.Module):
    """The model drawn at the top of this module.

    Args:
        settings: shape and options.
        backbone: the frozen language model.
        num_history: T.
        num_future: P.
        num_rx: Nr.
        num_tx: Nt.
        generator: of the initial weights.
    """

    name = "cdg"

    def __init__(
        self,
        settings: CdgSettings,
        backbone: Backbone,
        *,
        num_history: int,
        num_future: int,
        num_rx: int,
        num_tx: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.settings, self.num_future = settings, num_future
        self.backbone = backbone
        self.bank = WienerBank(num_history, num_future)
        width, hidden = settings.width, settings.hidden
        num_lags = min(settings.num_lags, num_history - 1)
        self.num_lags = num_lags
        features = 2 * num_lags + 1
        self.num_directions = min(settings.num_directions, num_rx, num_tx)
        self.embed_beam = GridMlp(features, features, features, width)
        self.embed_direction = nn.Sequential(
            nn.Linear(2 * features + 2 * width, width), nn.GELU(), nn.Linear(width, width), nn.GELU()
        )
        self.kind = nn.Parameter(torch.zeros(2 * self.num_directions, width))
        self.aligner = Aligner(settings, backbone)
        self.head = GridMlp(features + width, features + 2 * width, features + width, hidden)
        self.ar = AutoRegression(settings.ar_order) if settings.ar_order else None
        self.taps = nn.Linear(hidden, 2 * num_history * num_future + (num_future if self.ar else 0))
        _initialise(self, generator)
        nn.init.zeros_(self.taps.weight)
        nn.init.zeros_(self.taps.bias)

    def forward(self, history: Complex64[Tensor, "B T Nr Nt"], pilot_snr_db: Float[Tensor, " B"]) -> CdgOutput:
        """Predict the future of noisy histories; see :class:`CdgOutput`."""
        with torch.no_grad():
            unit, scale = normalise_power(history)
            transform = EigenBeams.of(unit)
            beams = transform.to_beams(unit)
            noise = noise_after_normalising(pilot_snr_db)
            base = self.bank(beams, noise)
            beam, row, column, whole = direction_features(beams, noise, self.num_lags)
        num_rx, num_tx = beams.shape[2:]
        embedded = self.embed_beam(beam, row, column, whole)  # [B, Nr, Nt, width]
        mixed_row, mixed_column = embedded.mean(2), embedded.mean(1)
        mixed = embedded.mean((1, 2))
        n = self.num_directions
        directions = torch.cat(
            [
                torch.cat([row[:, :n], mixed_row[:, :n]], -1),
                torch.cat([column[:, :n], mixed_column[:, :n]], -1),
            ],
            1,
        )
        everything = torch.cat([whole, mixed], -1)
        tokens = torch.cat([directions, everything.unsqueeze(1).expand(-1, 2 * n, -1)], -1)
        tokens = self.embed_direction(tokens) + self.kind
        # strongest last: the backbone is causal, and the last token sees all
        order = torch.arange(2 * n).view(2, n).T.flip(0).flatten()
        context, logits = self.aligner(tokens[:, order])
        context, logits = context[:, order.argsort()], logits[:, order.argsort()]
        receive, transmit = context[:, :n], context[:, n:]
        last = context[:, :1] + context[:, n : n + 1]
        receive = torch.cat([receive, last.expand(-1, num_rx - n, -1)], 1)
        transmit = torch.cat([transmit, last.expand(-1, num_tx - n, -1)], 1)
        hidden = self.head(
            torch.cat([beam, embedded], -1),
            torch.cat([row, mixed_row, receive], -1),
            torch.cat([column, mixed_column, transmit], -1),
            everything,
        )
        raw = self.taps(hidden)
        predicted = base + self._correct(beams, base, noise, raw)
        return CdgOutput(predicted=predicted, base=base, logits=logits, beams=transform, scale=scale)

    def _correct(self, beams: Tensor, base: Tensor, noise: Tensor, raw: Tensor) -> Tensor:
        num_history = beams.shape[1]
        size = num_history * self.num_future
        taps = torch.complex(raw[..., :size], raw[..., size : 2 * size])
        taps = taps.reshape(*taps.shape[:-1], num_history, self.num_future)
        correction = torch.einsum("btij,bijtp->bpij", beams, taps)
        if self.ar is not None:
            with torch.no_grad():
                expert = self.ar.predict(beams, noise, self.num_future)
            correction = correction + raw[..., 2 * size :].movedim(-1, 1) * (expert - base)
        return correction

    @torch.no_grad()
    def predict(
        self, history: Complex64[Tensor, "B T Nr Nt"], pilot_snr_db: Float[Tensor, " B"], num_future: int
    ) -> Complex64[Tensor, "B P Nr Nt"]:
        """See :class:`~sclmkb.common.models.csi.base.CsiPredictor`.

        Raises:
            ValueError: if ``num_future`` is not what the model was built for.
        """
        if num_future != self.num_future:
            raise ValueError(f"this CDG model predicts {self.num_future} samples, {num_future} were asked for")
        output = self(history, pilot_snr_db)
        future: Tensor = output.beams.from_beams(output.predicted) * output.scale
        return future


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
        settings: shape and options.
        backbone: the frozen language model.
    """

    words: Tensor

    def __init__(self, settings: CdgSettings, backbone: Backbone) -> None:
        super().__init__()
        width = settings.width
        num_words = min(settings.num_words or backbone.vocabulary_size, backbone.vocabulary_size)
        self.register_buffer("words", backbone.words[:num_words].clone(), persistent=False)
        self.soft_token, self.num_heads = settings.head == "soft_token", settings.num_heads
        self.compress = nn.Linear(num_words, settings.num_prototypes, bias=False)  # W_c
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(backbone.width, width)
        self.value = nn.Linear(backbone.width, width)
        self.join = nn.Linear(width, backbone.width)
        self.backbone = [backbone]  # in a list, since its owner registers it
        self.norm = nn.LayerNorm(backbone.width)
        if self.soft_token:
            self.vocabulary = nn.Linear(backbone.width, settings.num_prototypes)  # W_o, b
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


def direction_features(
    beams: Complex64[Tensor, "B T Nr Nt"], noise: Float[Tensor, " B"], num_lags: int
) -> tuple[Float[Tensor, "B Nr Nt F"], Float[Tensor, "B Nr F"], Float[Tensor, "B Nt F"], Float[Tensor, "B F"]]:
    """Return features of each beam, receive row, transmit column and of all that no phase or scale changes.

    F = 2 · lags + 1: the autocorrelation at lags 1, 2, … over the power without noise, real and imaginary parts, and
    the log SNR.

    Args:
        beams: eigen-beams of a history of unit power.
        noise: noise power of each beam.
        num_lags: lags.
    """
    num_history = beams.shape[1]
    lags = [(beams * beams.conj()).mean(1)]
    lags += [(beams[:, lag:] * beams[:, :-lag].conj()).sum(1) / (num_history - lag) for lag in range(1, num_lags + 1)]
    correlation = torch.stack(lags, -1)  # [B, Nr, Nt, lags + 1]
    noise = noise.view(-1, 1, 1)
    return (
        _normalised(correlation, noise),
        _normalised(correlation.mean(2), noise[..., 0]),
        _normalised(correlation.mean(1), noise[..., 0]),
        _normalised(correlation.mean((1, 2)), noise[:, 0, 0]),
    )


def _normalised(correlation: Tensor, noise: Tensor, floor: float = 0.1) -> Tensor:
    """Return real features of mean autocorrelations ``[..., lags + 1]`` of a group of beams."""
    power = torch.maximum(correlation[..., 0].real - noise, floor * noise)
    ratio = correlation[..., 1:] / power.unsqueeze(-1)
    ratio = ratio / ratio.abs().clamp(min=1.0)
    snr = torch.log10(power / noise).unsqueeze(-1)
    return torch.cat([ratio.real, ratio.imag, snr], -1)


def future_features(beams: Complex64[Tensor, "B P Nr Nt"], num_directions: int) -> Float[Tensor, "B N F"]:
    """Return features of the *clean future window* for each token, whose k-means code is the target of (30).

    The paper names no words for CSI. The nearest word to the aligned embedding of the true next patch collapses: the
    aligner makes all patches one word and the loss goes to zero. A code of fixed features cannot. They are the
    normalised autocorrelation of the window at lags 1 … P-1 and the log share of power of the token's direction.

    Args:
        beams: the clean future in the eigen-beams of the history.
        num_directions: strongest receive, and transmit, directions that are tokens.
    """
    num_future = beams.shape[1]
    products = [(beams[:, lag:] * beams[:, : num_future - lag].conj()).mean(1) for lag in range(num_future)]
    correlation = torch.stack(products, -1)  # [B, Nr, Nt, P]
    rows = torch.cat([correlation.mean(2)[:, :num_directions], correlation.mean(1)[:, :num_directions]], 1)
    power = rows[..., 0].real.clamp(min=1e-9)
    ratio = rows[..., 1:] / power.unsqueeze(-1)
    share = 0.25 * torch.log10(power / correlation[..., 0].real.mean((1, 2)).clamp(min=1e-9).unsqueeze(-1))
    return torch.cat([ratio.real, ratio.imag, share.unsqueeze(-1)], -1)


def _initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of every trained linear layer from the generator."""
    with torch.no_grad():
        for child in module.modules():
            if isinstance(child, nn.Linear) and child.weight.requires_grad:
                deviation = child.in_features**-0.5
                child.weight.copy_(deviation * torch.randn(child.weight.shape, generator=generator))
                if child.bias is not None:
                    child.bias.zero_()
        for child in module.modules():
            if isinstance(child, GridMlp):  # four parts add up to one layer
                for part in (child.beam, child.row, child.column, child.whole):
                    part.weight.mul_(0.5)
