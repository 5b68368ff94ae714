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

How this reads the paper. Flattened into the frozen model as the text has it, CDG hardly beats stale CSI, so what
enters the tokens and what the last projection means differ, and the equations between stay:

- A token is a receive or transmit direction instead of a time patch; its features cover all T samples.
- The vocabulary of (20) is the V' prototypes E' and not the V words: a softmax over 49,152 words costs more than
  everything else together, and E' spans what the tokens can attend to. With ``num_prototypes`` = V the two agree
  but for W_c.
- W_c in (17) reads the ``num_words`` first words of the vocabulary, which byte-pair encodings number by frequency; 0
  reads all of them.
- The last projection of (21) gives, for each beam, a correction to a classical filter instead of the CSI itself. Its
  last layer starts at zero, so that training starts at the classical predictor.

- In (32), L = L_NMSE + λ L_CE, the first part is the mean of each sample's NMSE (31) times its weight, over that of the
  classical filters on training drops, so that 1 means no better than classical; the cross-entropy is divided by ln V'.
  Its targets are k-means codes of features of the clean future window (:func:`future_features`).

Predictions turn with the phase of the history and scale with it, since features do not and filters do.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Complex64, Float
from pydantic import Field, model_validator
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn
from torch.nn import functional as F

from sclmkb.common.channel.csi import CsiShape, EigenBeams, add_pilot_noise, normalise_power
from sclmkb.common.channel.noise import estimate_noise_power
from sclmkb.common.config import Settings
from sclmkb.common.metrics import nmse
from sclmkb.common.models.backbone import Backbone, BackboneKind
from sclmkb.common.models.csi.ar import AutoRegression
from sclmkb.common.models.csi.base import FittedPredictor
from sclmkb.common.models.csi.cdg_layers import Aligner, GridMlp
from sclmkb.common.models.csi.features import direction_features, future_features
from sclmkb.common.models.csi.lmmse import WienerBank


class CdgSettings(Settings):
    """What decides the shape, meaning and loss of a CDG model.

    Attributes:
        kind: what tells it from the settings of other predictors.
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
        ce_weight: λ of (32).
    """

    kind: Literal["cdg"] = "cdg"
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
    ce_weight: float = Field(default=0.1, ge=0)

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


class Cdg(FittedPredictor):
    """The model drawn at the top of this module.

    Args:
        settings: shape and options.
        shape: sizes of the CSI.
        generator: of the initial weights.
        backbone: the frozen language model.

    Attributes:
        codes: centres of the targets of (30), one for each prototype.
        reference: mean NMSE of the classical filters on training drops.

    Raises:
        ValueError: if the history is too short for the AR expert.
    """

    name = "cdg"
    codes: Tensor
    reference: Tensor

    def __init__(
        self, settings: CdgSettings, shape: CsiShape, *, generator: torch.Generator, backbone: Backbone
    ) -> None:
        super().__init__(shape)
        num_history, num_future, num_rx, num_tx = shape.num_history, shape.num_future, shape.num_rx, shape.num_tx
        least = settings.ar_order + num_future
        if settings.ar_order and num_history < least:
            raise ValueError(
                f"the AR({settings.ar_order}) expert needs {least} history samples, there are {num_history}:"
                " ar_order=0 leaves it out"
            )
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
        self.aligner = Aligner(
            backbone,
            width=width,
            num_heads=settings.num_heads,
            num_prototypes=settings.num_prototypes,
            num_words=settings.num_words,
            soft_token=settings.head == "soft_token",
        )
        self.head = GridMlp(features + width, features + 2 * width, features + width, hidden)
        self.ar = AutoRegression(settings.ar_order) if settings.ar_order else None
        self.taps = nn.Linear(hidden, 2 * num_history * num_future + (num_future if self.ar else 0))
        _initialise(self, generator)
        nn.init.zeros_(self.taps.weight)
        nn.init.zeros_(self.taps.bias)
        self.register_buffer("codes", torch.zeros(settings.num_prototypes, 2 * num_future - 1))
        self.register_buffer("reference", torch.ones(()))

    def fit_statistics(
        self, clean: Complex64[Tensor, "N S Nr Nt"], pilot_snr_db: tuple[float, float], generator: torch.Generator
    ) -> None:
        """Fit the filter bank, the scale of the loss, and the codes of the cross-entropy."""
        self.bank.fit(clean, pilot_snr_db, generator)
        num_history, (low, high) = self.shape.num_history, pilot_snr_db
        chosen = clean[torch.randint(len(clean), (min(256, 4 * len(clean)),), generator=generator)]
        snr_db = low + (high - low) * torch.rand(len(chosen), generator=generator)
        unit, scale = normalise_power(add_pilot_noise(chosen[:, :num_history], snr_db, generator))
        transform = EigenBeams.of(unit)
        base = self.bank(transform.to_beams(unit), estimate_noise_power(unit))
        self.reference.copy_(nmse(transform.to_beams(chosen[:, num_history:] / scale), base).mean())
        if not self._has_codes:
            return
        features = []
        for part in (clean[i : i + 200] for i in range(0, len(clean), 200)):
            unit, scale = normalise_power(part[:, :num_history])
            beams = EigenBeams.of(unit).to_beams(part[:, num_history:] / scale)
            features.append(future_features(beams, self.num_directions).flatten(0, 1))
        seed = int(torch.randint(2**31, (), generator=generator))
        centres, _ = kmeans2(torch.cat(features).numpy(), len(self.codes), minit="++", iter=15, seed=seed)
        self.codes.copy_(torch.from_numpy(centres))

    def losses(
        self,
        history: Complex64[Tensor, "B T Nr Nt"],
        future: Complex64[Tensor, "B P Nr Nt"],
        weight: Float[Tensor, " B"],
    ) -> Mapping[str, Tensor]:
        """Return the joint loss (32) and its parts."""
        output = self(history)
        wanted = output.beams.to_beams(future / output.scale)
        ratios = nmse(wanted, output.predicted)  # the same in beams as in antennas
        found = {"nmse": ratios.mean(), "loss": (weight * ratios).mean() / self.reference}
        if self._has_codes:
            target = torch.cdist(future_features(wanted, self.num_directions), self.codes).argmin(-1)
            entropy = F.cross_entropy(output.logits.flatten(0, 1), target.flatten())
            found["ce"] = entropy / math.log(self.settings.num_prototypes)
            found["loss"] = found["loss"] + self.settings.ce_weight * found["ce"]
        return found

    @property
    def _has_codes(self) -> bool:
        return self.settings.head == "soft_token" and self.settings.ce_weight > 0

    def forward(self, history: Complex64[Tensor, "B T Nr Nt"]) -> CdgOutput:
        """Predict the future of noisy histories; see :class:`CdgOutput`."""
        with torch.no_grad():
            unit, scale = normalise_power(history)
            transform = EigenBeams.of(unit)
            beams = transform.to_beams(unit)
            noise = estimate_noise_power(unit)
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
        raw = self.taps(hidden).float()
        predicted = base + self._correct(beams, base, raw)
        return CdgOutput(predicted=predicted, base=base, logits=logits, beams=transform, scale=scale)

    def _correct(self, beams: Tensor, base: Tensor, raw: Tensor) -> Tensor:
        num_history = beams.shape[1]
        size = num_history * self.num_future
        taps = torch.complex(raw[..., :size], raw[..., size : 2 * size])
        taps = taps.reshape(*taps.shape[:-1], num_history, self.num_future)
        correction = torch.einsum("btij,bijtp->bpij", beams, taps)
        if self.ar is not None:
            with torch.no_grad():
                expert = self.ar.predict(beams, self.num_future)
            correction = correction + raw[..., 2 * size :].movedim(-1, 1) * (expert - base)
        return correction

    def predict(
        self, history: Complex64[Tensor, "B T Nr Nt"], num_future: int
    ) -> Complex64[Tensor, "B num_future Nr Nt"]:
        """See :class:`~sclmkb.common.models.csi.base.CsiPredictor`."""
        self.check(history, num_future)
        output = self(history)
        future: Tensor = output.beams.from_beams(output.predicted) * output.scale
        return future


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
