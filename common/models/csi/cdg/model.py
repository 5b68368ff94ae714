"""CDG: channel data generation with a frozen language model, the paper's second capability, eqs. (17)-(21).

::

    history [B,T,Nr,Nt] ─► unit power, noise estimated ─► Doppler beams b [B,T,Nr,Nt] ◄─ beams of the receive array
                                           │
        ┌──────────────────────────────────┼───────────────────────────────────┐
        │                                  ▼                                   │
        │        statistics of each beam, receive row, transmit column         │
        │        and of all: autocorrelations around a central frequency, SNR  │
        │                                  │                                   │
        │            directions: rows and columns, mixed with one another      │
        │                                  │                                   │
        │            tokens: the strongest of them                             │
        │                                  ▼                                   │
        │   words E ─► E' = W_c E (17) ─► cross-attention (18) ─► A [B,N,D]    │
        │                 │                ▼                                   │
        │                 │      frozen backbone O = LLM(A) (19)               │
        │                 │                ▼                                   │
        │                 │      y^ = softmax(W_o o + b) (20) ──► CE (30)      │
        │                 └──────────────► ▼                                   │
        │                        soft tokens y^ᵀE' (21) ─► added to directions │
        │                                  ▼                                   │
        │                 head: spectrum of each beam over Doppler words       │
        ▼                                  ▼                                   │
    Wiener filter of that spectrum ──► what it leaves unexplained ─► second head ─► refined spectrum
        │                                                                      │
        └─────────────► Wiener filter of the refined spectrum ◄────────────────┘
                            │
                            ▼
                back to antennas and scale ─► future [B,P,Nr,Nt]

The equations of the paper::

    E'   = W_c E                                                   (17)
    A    = [head_1, head_2, …] W + b,
           head_i = softmax(Q_i K_i^T / √d) V_i                    (18)
    O    = LLM(A)                                                  (19)
    y^_i = softmax(W_o o_i + b)                                    (20)
    H^   = linear(y^ᵀ E)                                           (21)

E holds the word embeddings, E' the compressed ones. In (18) the queries Q come from the CSI embedding, the keys K and
values V from E', and d is the width of a head. o_i is token i of O.

How this reads the paper. With the CSI flattened into the frozen model, as the text has it, CDG hardly beats stale CSI.
So the contents of the tokens and the meaning of the last projection differ here. The equations between them stay:

- A token is a receive or transmit direction instead of a time patch; its features cover all T samples.
- The vocabulary of (20) is the V' prototypes E' and not the V words. A softmax over 49,152 words costs more than
  everything else together, and E' spans what the tokens can attend to. With ``num_prototypes`` = V the two agree but
  for W_c.
- W_c in (17) reads the ``num_words`` first words of the vocabulary, which byte-pair encodings number by frequency; 0
  reads all of them.
- The last projection of (21) gives a Doppler spectrum for each beam instead of the CSI itself. The best linear
  predictor of a process with that spectrum and the estimated noise makes the CSI. Training starts at a spectrum of one
  fixed shape around each beam's central frequency.
- (31) enters the loss as log(1 + NMSE), the same to first order, so that no single sample that fails outweighs a batch.
- Targets of (30) are k-means codes of features of the clean future window (see
  :func:`~sclmkb.common.models.csi.cdg.features.future_features`); the cross-entropy is divided by ln V'.

Predictions turn with the phase of the history and scale with it, since statistics do not and filters do.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Complex64, Float, Int64
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn
from torch.nn import functional as F

from sclmkb.common.csi.beams import array_beams, doppler_beams
from sclmkb.common.csi.noise import estimate_beam_noise_power, estimate_noise_power
from sclmkb.common.csi.sets import CsiShape
from sclmkb.common.csi.tensors import EigenBeams, add_pilot_noise, normalise_power
from sclmkb.common.metrics import nmse
from sclmkb.common.models.backbone import Backbone
from sclmkb.common.models.csi.base import PREDICTORS, FittedPredictor, predict_in_batches
from sclmkb.common.models.csi.cdg.features import BeamStatistics, future_features
from sclmkb.common.models.csi.cdg.layers import Aligner, Mixer, SpectrumHead, draw_weights
from sclmkb.common.models.csi.cdg.settings import CdgSettings
from sclmkb.common.models.csi.cdg.spectral import Evidence, SpectralWiener

_STAGES_WEIGHT = 0.5
_LEAST_NOISE = 3e-5
_MOST_SHIFT = 0.05
_SHIFT_RATE = 0.1
"""The narrower the spectra, the more a shift of their centre costs. At a rate of 1 the first training steps throw it
to and fro: gradients of 10^3, NMSE above 1 on quantised histories. Some trainings never recover."""
_MOST_GROWTH = 1.5
_FIRST_SPREAD = 0.055
_MOST_ARRAY = 64


@dataclass(frozen=True, kw_only=True)
class CdgOutput:
    """What :meth:`Cdg.forward` returns, in the Doppler beams and at unit power of the noisy history.

    Attributes:
        predicted: predicted beams.
        stages: what the spectra before the last refinement predict.
        logits: of (20), before the softmax; of zero width if the head is ``direct``.
        beams: the transform, to bring labels into the same beams.
        scale: of the history.
    """

    predicted: Complex64[Tensor, "B P Nr Nt"]
    stages: tuple[Complex64[Tensor, "B P Nr Nt"], ...]
    logits: Float[Tensor, "B N V"]
    beams: EigenBeams
    scale: Float[Tensor, "B 1 1 1"]


@PREDICTORS.register(CdgSettings)
class Cdg(FittedPredictor):
    """The model drawn at the top of this module.

    Raises:
        ValueError: if the histories are of a single sample.

    Attributes:
        array: Doppler beams of the receive array, real and imaginary parts.
        codes: centres of the targets of (30), one for each prototype.
        reference: mean NMSE on training drops of what training starts from, which scales the loss.
    """

    name = "cdg"
    learning_rate = 1.5e-3
    array: Tensor
    codes: Tensor
    reference: Tensor

    def __init__(
        self, settings: CdgSettings, shape: CsiShape, *, generator: torch.Generator, backbone: Backbone
    ) -> None:
        super().__init__(shape)
        if shape.num_history < 2:
            raise ValueError(f"it needs 2 history samples, there is {shape.num_history}")
        self.settings, self.backbone = settings, backbone
        self.num_rx, self.num_tx = (min(size, settings.max_beams) for size in (shape.num_rx, shape.num_tx))
        self.num_lags = min(settings.num_lags, shape.num_history - 1)
        self.num_directions = min(settings.num_directions, self.num_rx, self.num_tx)
        self._has_array = settings.array_weight > 0 and shape.num_rx <= _MOST_ARRAY
        self._has_codes = settings.head == "soft_token" and settings.ce_weight > 0
        width, hidden, words = settings.width, settings.hidden, settings.num_doppler_words
        beam, direction = 8 * self.num_lags + 4, 4 * self.num_lags + 2
        self.wiener = SpectralWiener(shape.num_history, shape.num_future, words)
        self.embed_beam = nn.Sequential(nn.Linear(beam, width), nn.GELU(), nn.Linear(width, width), nn.GELU())
        self.embed_direction = nn.Sequential(nn.Linear(direction + width, width), nn.GELU())
        self.place = nn.Parameter(torch.zeros(self.num_rx + self.num_tx, width))
        self.mixer = Mixer(width, settings.num_heads, settings.num_mixers)
        self.aligner = Aligner(
            backbone,
            width=width,
            num_heads=settings.num_heads,
            num_prototypes=settings.num_prototypes,
            num_words=settings.num_words,
            soft_token=settings.head == "soft_token",
            cross_attention=settings.cross_attention,
        )
        self.head = SpectrumHead(beam=beam + width, row=width, column=width, hidden=hidden, num_words=words)
        self.refiner = (
            SpectrumHead(beam=hidden + 2 * words, row=words, column=0, hidden=hidden, num_words=words)
            if settings.num_refinements
            else None
        )
        draw_weights(self, generator)
        with torch.no_grad():
            for head in filter(None, (self.head, self.refiner)):
                head.last.weight.zero_()
            self.aligner.context.weight.mul_(0.1)  # what the language model says is added to what is known
            self.head.last.bias[:words] = -0.5 * (self.wiener.frequencies / _FIRST_SPREAD).square()
        self.register_buffer("array", torch.view_as_real(torch.eye(shape.num_rx, dtype=torch.complex64)))
        self.register_buffer("codes", torch.zeros(settings.num_prototypes, 2 * shape.num_future - 1))
        self.register_buffer("reference", torch.ones(()))

    def fit_statistics(
        self, clean: Complex64[Tensor, "N S Nr Nt"], pilot_snr_db: tuple[float, float], generator: torch.Generator
    ) -> None:
        """Fit the beams of the array, the scale of the loss and the codes of the cross-entropy."""
        num_history, (low, high) = self.shape.num_history, pilot_snr_db
        if self._has_array:
            self.array.copy_(torch.view_as_real(array_beams(clean[:, :num_history])))
        chosen = clean[torch.randint(len(clean), (min(256, 4 * len(clean)),), generator=generator)]
        snr_db = low + (high - low) * torch.rand(len(chosen), generator=generator)
        history = add_pilot_noise(chosen[:, :num_history], snr_db, generator)
        predicted = predict_in_batches(self, history, self.shape.num_future, batch_size=32)
        self.reference.copy_(nmse(chosen[:, num_history:], predicted).mean())
        if not self._has_codes:
            return
        features = []
        for part in torch.split(clean, 200):
            unit, scale = normalise_power(part[:, :num_history])
            beams = self._beams(unit).to_beams(part[:, num_history:] / scale)
            features.append(future_features(beams, self.num_directions).flatten(0, 1))
        seed = int(torch.randint(2**31, (), generator=generator))
        centres, _ = kmeans2(torch.cat(features).numpy(), len(self.codes), minit="++", iter=15, seed=seed)
        self.codes.copy_(torch.from_numpy(centres))

    def losses(
        self,
        history: Complex64[Tensor, "B T Nr Nt"],
        future: Complex64[Tensor, "B P Nr Nt"],
        weight: Float[Tensor, " B"],
        draws: Int64[Tensor, " B"],
    ) -> Mapping[str, Tensor]:
        """Return the joint loss (32) and its parts; the errors of earlier spectra count by a half in all."""
        output = self(history)
        wanted = output.beams.to_beams(future / output.scale)
        ratios = nmse(wanted, output.predicted)  # the same in beams as in antennas
        found = {"nmse": ratios.mean(), "loss": self._loss(ratios, weight)}
        for stage in output.stages:
            share = _STAGES_WEIGHT / len(output.stages)
            found["loss"] = found["loss"] + share * self._loss(nmse(wanted, stage), weight)
        if self._has_codes:
            target = torch.cdist(future_features(wanted, self.num_directions), self.codes).argmin(-1)
            entropy = F.cross_entropy(output.logits.flatten(0, 1), target.flatten())
            found["ce"] = entropy / math.log(self.settings.num_prototypes)
            found["loss"] = found["loss"] + self.settings.ce_weight * found["ce"]
        return found

    def _loss(self, ratios: Tensor, weight: Tensor) -> Tensor:
        """Return the weighted mean of log(1 + NMSE) over the mean NMSE of what training starts from."""
        return (weight * torch.log1p(ratios)).mean() / self.reference

    def _beams(self, history: Tensor) -> EigenBeams:
        array = torch.view_as_complex(self.array) if self._has_array else None
        return doppler_beams(history, array, self.settings.array_weight)

    def forward(self, history: Complex64[Tensor, "B T Nr Nt"]) -> CdgOutput:
        """Predict the future of noisy histories; see :class:`CdgOutput`."""
        with torch.no_grad():
            unit, scale = normalise_power(history)
            transform = self._beams(unit)
            beams = transform.to_beams(unit)[:, :, : self.num_rx, : self.num_tx]
            noise = estimate_beam_noise_power(beams, estimate_noise_power(unit))
            statistics = BeamStatistics.of(beams, noise, self.num_lags)
            features = statistics.around_the_centre()
        embedded = self.embed_beam(features)  # [B, Nr, Nt, width]
        directions, logits = self._directions(statistics, embedded)
        hidden, raw = self.head(
            torch.cat([features, embedded], -1), directions[:, : self.num_rx], directions[:, self.num_rx :]
        )
        stages, beyond = [], (0, self.shape.num_tx - self.num_tx, 0, self.shape.num_rx - self.num_rx)
        for left in range(self.settings.num_refinements, -1, -1):
            predicted, evidence = self._filter(beams, noise, statistics, raw, evidence=left > 0)
            stages.append(F.pad(predicted, beyond))
            if self.refiner is not None and evidence is not None:
                _, correction = self.refiner(*_surprise(evidence, hidden))
                raw = raw.detach() + correction
        return CdgOutput(predicted=stages[-1], stages=tuple(stages[:-1]), logits=logits, beams=transform, scale=scale)

    def _directions(self, statistics: BeamStatistics, embedded: Tensor) -> tuple[Tensor, Tensor]:
        """Return the embedding of each row and column, after the language model has seen the strongest; and (20)."""
        trust = torch.sigmoid(2 * statistics.beam_snr).unsqueeze(-1)
        own = [(embedded * trust).sum(axis) / trust.sum(axis) for axis in (2, 1)]
        parts = [torch.cat(pair, -1) for pair in zip(statistics.of_directions(), own, strict=True)]
        directions = self.mixer(self.embed_direction(torch.cat(parts, 1)) + self.place)
        n = self.num_directions
        # strongest last, since the backbone is causal: the last tokens see all
        chosen = torch.arange(n).flip(0).repeat_interleave(2) + torch.tensor([0, self.num_rx]).repeat(n)
        context, logits = self.aligner(directions[:, chosen])
        directions = directions.index_add(1, chosen.to(directions.device), context.to(directions.dtype))
        return directions, logits[:, chosen.argsort()]

    def _filter(
        self, beams: Tensor, noise: Tensor, statistics: BeamStatistics, raw: Tensor, *, evidence: bool
    ) -> tuple[Tensor, Evidence | None]:
        """Predict each beam by the Wiener filter of its spectrum; see :class:`SpectralWiener`.

        No sample comes out larger than :data:`_MOST_GROWTH` times the largest of the beam's history.
        """
        words = self.settings.num_doppler_words
        with torch.autocast(beams.device.type, enabled=False):
            spectrum = raw[..., :words].softmax(-1)
            correction = torch.exp(-2 * torch.tanh(raw[..., words] / 2))
            power = statistics.power
            relative = (noise[:, None, None] / power * correction).clamp(min=_LEAST_NOISE)
            centre = statistics.centre.unsqueeze(2) + _MOST_SHIFT * torch.tanh(_SHIFT_RATE * raw[..., words + 1])
            amplitude = power.sqrt().unsqueeze(1)
            series = (beams / amplitude).permute(0, 2, 3, 1).flatten(0, 2)
            predicted, found = self.wiener(
                series, spectrum.flatten(0, 2), relative.flatten(), centre.flatten(), evidence=evidence
            )
            ahead = predicted.view(*power.shape, -1).permute(0, 3, 1, 2) * amplitude
            most = _MOST_GROWTH * beams.abs().amax(1, keepdim=True)
            return ahead * (most / torch.maximum(ahead.abs(), most).clamp(min=1e-30)), found

    def predict(
        self, history: Complex64[Tensor, "B T Nr Nt"], num_future: int
    ) -> Complex64[Tensor, "B num_future Nr Nt"]:
        """See :class:`~sclmkb.common.models.csi.base.CsiPredictor`."""
        self.check(history, num_future)
        output: CdgOutput = self(history)
        return output.beams.from_beams(output.predicted) * output.scale


def _surprise(evidence: Evidence, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Return features of each beam, ``hidden`` among them, and of each row, for the refiner."""
    shape = hidden.shape[:3]
    found, expected, share = (x.view(*shape, -1) for x in (evidence.found, evidence.expected, evidence.share))
    beam = [(found / expected).clamp(1e-3, 1e3).log(), 0.3 * share.clamp(1e-6, 1e3).log()]
    row = (found.sum(2) / expected.sum(2)).clamp(1e-3, 1e3).log()
    return torch.cat([hidden, *beam], -1), row
