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
        features: of each one's medium, by the frozen encoder ``[B, F, f]``.
        prompt: numbers of the question or instruction ``[B, L]``.
        prompt_real: which of them are real ``[B, L]``.
    """

    features: Tensor
    prompt: Tensor
    prompt_real: Tensor


class Fused(NamedTuple):
    """What the fusion center gives: ``[B, L, d]``, and which tokens are real ``[B, L]``."""

    tokens: Tensor
    real: Tensor


class Uses(NamedTuple):
    """Complex channel uses of B samples ``[B, n]``, and which are sent ``[B, n]``."""

    symbols: Tensor
    sent: Tensor


class MtscModel(nn.Module):
    """One model for all tasks.

    Args:
        settings: sizes.
        language_model: the model in the middle.
        feature_width: f of the frozen encoder's tokens.
        num_features: F, tokens per medium.
        picture_size: of the pictures that are reconstructed; None: there are none.
    """

    feature_mean: Tensor
    feature_deviation: Tensor

    def __init__(
        self,
        settings: MtscModelSettings,
        language_model: LanguageModel,
        feature_width: int,
        num_features: int,
        picture_size: int | None,
    ) -> None:
        super().__init__()
        self.settings, self.language_model = settings, language_model
        width = language_model.width
        self.entry_scale = settings.embedding_scale or language_model.embedding_scale
        self.register_buffer("feature_mean", torch.zeros(feature_width))
        self.register_buffer("feature_deviation", torch.ones(feature_width))
        self.projection = nn.Sequential(nn.Linear(feature_width, width), nn.LayerNorm(width, elementwise_affine=False))
        self.places = nn.Parameter(torch.randn(num_features, width) * 0.02)
        uses = {"answer": settings.answer_uses, "caption": settings.caption_uses}
        self.jsc_encoder = JscEncoder(width, uses, settings.jsc)
        self.jsc_decoder = JscDecoder(width, uses, settings.jsc, scale=1.0)
        self.codec: PictureCodec | None = None
        self.context_norm = nn.LayerNorm(width)
        if picture_size is not None:
            context = width if settings.codec.context else 0
            self.codec = PictureCodec(picture_size, settings.reconstruct_uses, context, settings.codec)

    def standardise(self, features: Float[Tensor, "N F f"]) -> None:
        """Set the mean and deviation that features are standardised with to those of training media."""
        flat = features.float().flatten(0, 1)
        self.feature_mean.copy_(flat.mean(0))
        self.feature_deviation.copy_(flat.std(0, correction=0).clamp(min=1e-3))

    @torch.no_grad()
    def scale_memory(self, item: Item) -> None:
        """Give the receiver's memory the deviation of what the language model's decoder was trained to read."""
        self.jsc_decoder.scale.fill_(float(self.fuse(item).tokens.float().std()))

    def fuse(self, item: Item) -> Fused:
        """Return what the fusion center makes of media and prompts; all tasks of an item share it."""
        features = (item.features.float() - self.feature_mean) / self.feature_deviation
        if not self.settings.sees_media:
            features = torch.zeros_like(features)
        media = (self.projection(features) + self.places) * self.entry_scale
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
    settings: MtscModelSettings, vocabulary: Vocabulary, features: tuple[int, int], picture_size: int | None
) -> MtscModel:
    """Build the transceiver with fresh weights around the language model.

    Args:
        settings: sizes.
        vocabulary: what it writes.
        features: tokens per medium and their width.
        picture_size: of the pictures that are reconstructed.

    Raises:
        UserError: if the language model is not there or of another kind.
    """
    language_model = load_language_model(settings.language_model, vocabulary)
    num_features, feature_width = features
    return MtscModel(settings, language_model, feature_width, num_features, picture_size)


def uses_of(settings: MtscModelSettings) -> Mapping[str, int]:
    """Return the complex uses per sample of each task."""
    return {"answer": settings.answer_uses, "caption": settings.caption_uses, RECONSTRUCT: settings.reconstruct_uses}
