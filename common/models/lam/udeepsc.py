"""U-DeepSC, rebuilt: the multi-task baseline without a language model.

::

    features of a medium ─► projection ─► encoder of that modality ─► JSC encoder, T/2 tokens ─┐
    question ─► words    ─► encoder of text ────────────────────────► JSC encoder, T/2 tokens ─┴► channel
    task's query, arrived ─► unified decoder ─► text

Each modality is encoded and sent apart; they meet at the receiver alone, in one decoder for all tasks, which reads a
query of the task beside what arrived. A task whose prompt is always the same sends the medium alone. Nothing is
pre-trained but the frozen encoders of media, the same as those of our system.

Source: Zhang et al., "A Unified Multi-Task Semantic Communication System for Multimodal Data", IEEE TCOM 2024,
Section III. Theirs classifies answers and writes no captions: here the decoder writes both.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor, nn

from sclmkb.common.models.lam.language_model import LanguageModel
from sclmkb.common.models.lam.sender import transformer_blocks
from sclmkb.common.models.lam.settings import MtscModelSettings
from sclmkb.common.models.lam.system import Fused, Item, MtscModel

_WITH_QUESTIONS = ("answer",)
"""Tasks whose prompt differs from sample to sample."""


class UDeepSc(MtscModel):
    """The baseline in the shape of :class:`MtscModel`; its language model is ``scratch``, with random weights.

    Args:
        settings: sizes.
        language_model: its encoder is that of text, its decoder the unified one.
        features: of each kind of media, tokens per medium and their width.
        picture_size: of the pictures that are reconstructed; None: there are none.
    """

    def __init__(
        self,
        settings: MtscModelSettings,
        language_model: LanguageModel,
        features: Mapping[str, tuple[int, int]],
        picture_size: int | None,
    ) -> None:
        super().__init__(settings, language_model, features, picture_size)
        width = language_model.width
        self.media_encoders = nn.ModuleDict({kind: transformer_blocks(width, settings.jsc) for kind in features})
        self.task_queries = nn.ParameterDict(
            {task: nn.Parameter(torch.randn(1, width)) for task in self.jsc_encoder.queries}
        )

    def fuse(self, item: Item) -> Fused:
        """Return the encoded tokens of the medium, then those of the prompt; neither has seen the other."""
        media = self.media_encoders[item.modality](self.projection_of(item.modality)(item.features))
        prompt = self.language_model.fuse(self.language_model.embed(item.prompt), item.prompt_real)
        real = torch.cat([item.prompt_real.new_ones(media.shape[:2]), item.prompt_real], dim=1)
        return Fused(torch.cat([media, prompt], dim=1), real, media.shape[1])

    def read(self, fused: Fused, task: str) -> Float[Tensor, "B T d"]:
        """Return what tokens read of the medium or the question, half of them each, or all of the medium."""
        count, length = self.settings.jsc.num_tokens, fused.tokens.shape[1]
        is_medium = torch.arange(length, device=fused.real.device) < fused.num_media
        asks = torch.arange(count, device=fused.real.device) >= (count + 1) // 2 if task in _WITH_QUESTIONS else None
        reads = is_medium.expand(count, length) if asks is None else is_medium[None] != asks[:, None]
        return self.jsc_encoder.read(fused.tokens, fused.real[:, None] & reads, task)

    def receive(
        self, arrived: Complex[Tensor, "B n"], sent: Bool[Tensor, "B n"], snr_db: Float[Tensor, " B"], task: str
    ) -> tuple[Float[Tensor, "B T d"], Bool[Tensor, "B T"]]:
        """Return the query of the task and what the unified decoder reads beside it, and which of it was sent."""
        memory, there = super().receive(arrived, sent, snr_db, task)
        query = (self.task_queries[task] * self.jsc_decoder.scale).expand(len(memory), 1, -1)
        return torch.cat([query, memory], dim=1), torch.cat([there.new_ones(len(there), 1), there], dim=1)
