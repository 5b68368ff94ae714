"""The multi-task transceiver: encoders and fusion at one end, a channel of counted uses, task decoders at the other.

::

    features of media ─► projection ─┐
    prompt            ─► embedding ──┴► language model's encoder ─► JSC encoder ─► channel ─► JSC decoder
                                              │ context                                        └► decoder ─► text
    picture ───────────────────────────► codec's encoder ───────► channel ─► codec's decoder ─► picture

Source: "Multi-Task Semantic Communications via Large Models", Fig. 1 and Fig. 4b. The codec of pictures stands beside
the language model and takes context from it; the paper sends pictures through the model itself.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor, nn

from sclmkb.common.models.lam.codecs.base import PictureCodec, build_picture_codec
from sclmkb.common.models.lam.language_model import LanguageModel
from sclmkb.common.models.lam.rate import LossPredictor
from sclmkb.common.models.lam.sender import JscDecoder, JscEncoder
from sclmkb.common.models.lam.settings import MtscModelSettings

RECONSTRUCT = "reconstruct"


class Item(NamedTuple):
    """What the transmitter has of B samples.

    Attributes:
        modality: kind of their media.
        features: of each one's medium, by the frozen encoder ``[B, F, f]``.
        prompt: numbers of the question or instruction ``[B, L]``.
        prompt_real: which of them are real ``[B, L]``.
    """

    modality: str
    features: Tensor
    prompt: Tensor
    prompt_real: Tensor

    def to(self, device: torch.device) -> "Item":
        """Return the samples on a device."""
        return Item(self.modality, *(values.to(device) for values in self[1:]))


class Fused(NamedTuple):
    """What the fusion center gives.

    Attributes:
        tokens: ``[B, L, d]``, those of media first.
        real: which of them are real ``[B, L]``.
        num_media: how many are those of media.
    """

    tokens: Tensor
    real: Tensor
    num_media: int

    def mean(self) -> Float[Tensor, "B d"]:
        """Return the mean over the real tokens of each sample."""
        weight = self.real[:, :, None] / self.real.sum(1)[:, None, None]
        return (self.tokens * weight).sum(1)


class Uses(NamedTuple):
    """Complex channel uses of B samples ``[B, n]``, and which are sent ``[B, n]``."""

    symbols: Tensor
    sent: Tensor

    def only(self, groups: Bool[Tensor, "B G"]) -> "Uses":
        """Return the same uses, of which those of some groups are sent; the groups are of equal length."""
        kept = groups.to(self.sent.device).repeat_interleave(self.sent.shape[1] // groups.shape[1], dim=1)
        return self._replace(sent=self.sent & kept)

    def power(self, groups: int) -> Float[Tensor, "B G"]:
        """Return the mean power of each group, before it is normalised."""
        power: Tensor = self.symbols.abs().square().reshape(len(self.symbols), groups, -1).mean(2)
        return power


class MediaProjection(nn.Module):
    """From features of one kind of media to tokens of the language model, of deviation 1.

    Args:
        num_features: F, tokens per medium.
        feature_width: f of the frozen encoder's tokens.
        width: of the language model.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, num_features: int, feature_width: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(feature_width))
        self.register_buffer("deviation", torch.ones(feature_width))
        self.projection = nn.Sequential(nn.Linear(feature_width, width), nn.LayerNorm(width, elementwise_affine=False))
        self.places = nn.Parameter(torch.randn(num_features, width) * 0.02)

    def standardise(self, features: Float[Tensor, "N F f"]) -> None:
        """Set the mean and deviation that features are standardised with to those of training media."""
        flat = features.float().flatten(0, 1)
        self.mean.copy_(flat.mean(0))
        self.deviation.copy_(flat.std(0, correction=0).clamp(min=1e-3))

    def forward(self, features: Float[Tensor, "B F f"]) -> Float[Tensor, "B F d"]:
        """Return tokens."""
        tokens: Tensor = self.projection((features.float() - self.mean) / self.deviation) + self.places
        return tokens


class MtscModel(nn.Module):
    """One model for all tasks.

    Args:
        settings: sizes.
        language_model: the model in the middle.
        features: of each kind of media, tokens per medium and their width.
        picture_size: of the pictures that are reconstructed; None: there are none.

    Attributes:
        projections: of each kind of media.
    """

    def __init__(
        self,
        settings: MtscModelSettings,
        language_model: LanguageModel,
        features: Mapping[str, tuple[int, int]],
        picture_size: int | None,
    ) -> None:
        super().__init__()
        self.settings, self.language_model = settings, language_model
        width = language_model.width
        self.entry_scale = settings.embedding_scale or language_model.embedding_scale
        self.projections = nn.ModuleDict({kind: MediaProjection(*sizes, width) for kind, sizes in features.items()})
        uses = {task: count for task, count in uses_of(settings).items() if task != RECONSTRUCT}
        self.jsc_encoder = JscEncoder(width, uses, settings.jsc)
        self.jsc_decoder = JscDecoder(width, uses, settings.jsc, scale=1.0)
        self.codec: PictureCodec | None = None
        self.context_norm = nn.LayerNorm(width)
        if picture_size is not None:
            self.codec = build_picture_codec(settings.codec, picture_size, settings.reconstruct_uses, width)
        self.loss_predictors = nn.ModuleDict()
        if settings.rate != "fixed":
            widths = dict.fromkeys(uses, width)
            if self.codec is not None:
                widths[RECONSTRUCT] = self.codec.context_width
            groups = groups_of(settings)
            self.loss_predictors.update({task: LossPredictor(w, groups[task]) for task, w in widths.items()})

    def projection_of(self, modality: str) -> MediaProjection:
        """Return the projection of a kind of media."""
        found = self.projections[modality]
        assert isinstance(found, MediaProjection)
        return found

    @torch.no_grad()
    def scale_memory(self, item: Item) -> None:
        """Give the receiver's memory the deviation of what the language model's decoder was trained to read."""
        self.jsc_decoder.scale.fill_(float(self.fuse(item).tokens.float().std()))

    def fuse(self, item: Item) -> Fused:
        """Return what the fusion center makes of media and prompts; all tasks of an item share it."""
        features = item.features if self.settings.sees_media else torch.zeros_like(item.features)
        media = self.projection_of(item.modality)(features) * self.entry_scale
        tokens = torch.cat([media, self.language_model.embed(item.prompt)], dim=1)
        real = torch.cat([item.prompt_real.new_ones(media.shape[:2]), item.prompt_real], dim=1)
        return Fused(self.language_model.fuse(tokens, real), real, media.shape[1])

    def read(self, fused: Fused, task: str) -> Float[Tensor, "B T d"]:
        """Return what the tokens of a text task read of the fusion center, whatever the SNR."""
        return self.jsc_encoder.read(fused.tokens, fused.real, task)

    def send(
        self, fused: Fused, snr_db: Float[Tensor, " B"], task: str, read: Float[Tensor, "B T d"] | None = None
    ) -> Uses:
        """Return the complex uses of a text task, power not yet normalised.

        Args:
            fused: of the fusion center.
            snr_db: per complex use.
            task: which.
            read: what :meth:`read` gave; None: it is read now.
        """
        symbols = self.jsc_encoder(self.read(fused, task) if read is None else read, snr_db, task).flatten(1)
        return Uses(symbols, torch.ones(symbols.shape, dtype=torch.bool, device=symbols.device))

    def receive(
        self, arrived: Complex[Tensor, "B n"], sent: Bool[Tensor, "B n"], snr_db: Float[Tensor, " B"], task: str
    ) -> tuple[Float[Tensor, "B T d"], Bool[Tensor, "B T"]]:
        """Return the memory of the language model's decoder, and which of its tokens were sent."""
        tokens = self.settings.jsc.num_tokens
        there = sent.reshape(len(sent), tokens, -1).any(2)
        return self.jsc_decoder(arrived.reshape(len(sent), tokens, -1), there, snr_db, task), there

    def send_pictures(
        self, pictures: Float[Tensor, "B 3 S S"], fused: Fused | None, snr_db: Float[Tensor, " B"]
    ) -> Uses:
        """Return the complex uses of pictures, power not yet normalised."""
        assert self.codec is not None
        context = None
        if fused is not None and self.codec.context_width:
            context = self.context_norm(fused.mean())
        symbols = self.codec.encode(pictures, snr_db, context)
        return Uses(symbols, torch.ones(symbols.shape, dtype=torch.bool, device=symbols.device))

    def receive_pictures(
        self, arrived: Complex[Tensor, "B n"], snr_db: Float[Tensor, " B"]
    ) -> Float[Tensor, "B 3 S S"]:
        """Return pictures, not yet limited to 0 to 1."""
        assert self.codec is not None
        return self.codec.decode(arrived, snr_db)

    def expected_losses(
        self, uses: Uses, fused: Fused | None, snr_db: Float[Tensor, " B"], task: str
    ) -> Float[Tensor, "B G"] | None:
        """Return what the transmitter expects each sample to lose if k = 1 … G groups are sent; None at fixed rate."""
        if task not in self.loss_predictors:
            return None
        power = uses.power(groups_of(self.settings)[task])
        found: Tensor = self.loss_predictors[task](power, fused.mean() if fused is not None else None, snr_db)
        return found

    def text_loss(self, memory: Tensor, there: Tensor, labels: Int[Tensor, "B L"]) -> Float[Tensor, " B"]:
        """Return the cross-entropy of each text, see :meth:`LanguageModel.loss`."""
        return self.language_model.loss(memory, there, labels)

    def write(self, memory: Tensor, there: Tensor) -> list[str]:
        """Return the text that the decoder writes of each memory."""
        numbers = self.language_model.generate(memory, there, self.settings.max_text_tokens)
        return self.language_model.vocabulary.write(numbers)


def uses_of(settings: MtscModelSettings) -> Mapping[str, int]:
    """Return the complex uses per sample of each task."""
    captions = dict.fromkeys(("caption", "caption_sound", "caption_video"), settings.caption_uses)
    return {"answer": settings.answer_uses, **captions, RECONSTRUCT: settings.reconstruct_uses}


def groups_of(settings: MtscModelSettings) -> Mapping[str, int]:
    """Return the number of groups of each task's uses that are sent or left out together."""
    return dict.fromkeys(uses_of(settings), settings.jsc.num_tokens) | {RECONSTRUCT: settings.codec.num_groups}
