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

from sclmkb.common.models.lam.codec import PictureCodec
from sclmkb.common.models.lam.language_model import LanguageModel, load_language_model
from sclmkb.common.models.lam.sender import JscDecoder, JscEncoder
from sclmkb.common.models.lam.settings import MtscModelSettings
from sclmkb.common.models.lam.texts import Vocabulary

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
    """What the fusion center gives: ``[B, L, d]``, and which tokens are real ``[B, L]``."""

    tokens: Tensor
    real: Tensor


class Uses(NamedTuple):
    """Complex channel uses of B samples ``[B, n]``, and which are sent ``[B, n]``."""

    symbols: Tensor
    sent: Tensor


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
            context = width if settings.codec.context else 0
            self.codec = PictureCodec(picture_size, settings.reconstruct_uses, context, settings.codec)

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
        return Fused(self.language_model.fuse(tokens, real), real)

    def send(self, fused: Fused, snr_db: Float[Tensor, " B"], task: str) -> Uses:
        """Return the complex uses of a text task, power not yet normalised."""
        tokens = self.jsc_encoder(fused.tokens, fused.real, snr_db, task)
        symbols = tokens.flatten(1)
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
        if fused is not None and self.settings.codec.context:
            weight = fused.real[:, :, None] / fused.real.sum(1)[:, None, None]
            context = self.context_norm((fused.tokens * weight).sum(1))
        symbols = self.codec.encode(pictures, snr_db, context)
        return Uses(symbols, torch.ones(symbols.shape, dtype=torch.bool, device=symbols.device))

    def receive_pictures(
        self, arrived: Complex[Tensor, "B n"], snr_db: Float[Tensor, " B"]
    ) -> Float[Tensor, "B 3 S S"]:
        """Return pictures, not yet limited to 0 to 1."""
        assert self.codec is not None
        return self.codec.decode(arrived, snr_db)

    def text_loss(self, memory: Tensor, there: Tensor, labels: Int[Tensor, "B L"]) -> Float[Tensor, " B"]:
        """Return the cross-entropy of each text, see :meth:`LanguageModel.loss`."""
        return self.language_model.loss(memory, there, labels)

    def write(self, memory: Tensor, there: Tensor) -> list[str]:
        """Return the text that the decoder writes of each memory."""
        numbers = self.language_model.generate(memory, there, self.settings.max_text_tokens)
        return self.language_model.vocabulary.write(numbers)


def build_mtsc(
    settings: MtscModelSettings,
    vocabulary: Vocabulary,
    features: Mapping[str, tuple[int, int]],
    picture_size: int | None,
) -> MtscModel:
    """Build the transceiver with fresh weights around the language model.

    Args:
        settings: sizes.
        vocabulary: what it writes.
        features: of each kind of media, tokens per medium and their width.
        picture_size: of the pictures that are reconstructed.

    Raises:
        UserError: if the language model is not there or of another kind.
    """
    language_model = load_language_model(settings.language_model, vocabulary)
    return MtscModel(settings, language_model, features, picture_size)


def uses_of(settings: MtscModelSettings) -> Mapping[str, int]:
    """Return the complex uses per sample of each task."""
    captions = dict.fromkeys(("caption", "caption_sound", "caption_video"), settings.caption_uses)
    return {"answer": settings.answer_uses, **captions, RECONSTRUCT: settings.reconstruct_uses}
