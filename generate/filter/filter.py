"""The hallucination filter of Algorithm 1.

::

    source ────► E_α ─► F_s ─┐
                             ├─► cosine (24) ≥ min_similarity ─┐
    generated ─► E_α ─► F_g ─┤                                 ├─► keep, or reject with the reason
                             └─► margin ≥ min_margin ──────────┤
    generated ─► rules (form, echo, copy, words) ──────────────┘
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from sclmkb.common.config import Settings
from sclmkb.common.models.pretrained import EMBEDDED_ENCODER
from sclmkb.generate.filter.encoder import TextEncoder
from sclmkb.generate.filter.index import CaptionIndex
from sclmkb.generate.filter.rules import Rules, RuleSettings


class FilterSettings(Settings):
    """What a generated caption must pass.

    The thresholds come from a study on labelled faithful and corrupted pairs, none of them test captions: there, .80
    and -.02 had a balanced accuracy of .87 with MiniLM.
    """

    encoder: str = EMBEDDED_ENCODER
    """Sentence encoder E_α: ``minilm``, a folder or a hub name."""
    encoder_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the encoder's matrix products; bfloat16 is faster where the processor has it."""
    min_similarity: float = Field(default=0.80, ge=-1, le=1)
    """Least cosine to the source caption, equation (24)."""
    min_margin: float = Field(default=-0.02, ge=-2, le=2)
    """Least difference between the similarity to the source and that to the nearest caption of another identity."""
    rules: RuleSettings = RuleSettings()


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A generated caption and the position of its source caption."""

    source: int
    text: str
    finish_reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the filter says: similarity (24), margin, and why it rejects (empty: it keeps)."""

    similarity: float
    margin: float
    reason: str


class HallucinationFilter:
    """Judges generated captions against their source captions."""

    def __init__(
        self,
        settings: FilterSettings,
        encoder: TextEncoder,
        sources: Sequence[str],
        identities: Sequence[str],
        own_texts: Sequence[str] = (),
    ) -> None:
        """Embed the source captions, equation (22), and build the index over them.

        Args:
            settings: thresholds and bounds.
            encoder: E_α.
            sources: the source captions.
            identities: identity of each source caption.
            own_texts: texts of the prompt, which an answer must not repeat.
        """
        self.settings, self._encoder, self._sources = settings, encoder, sources
        self._index = CaptionIndex(encoder.encode(sources), identities)
        self._rules = Rules(settings.rules, own_texts)

    def judge(self, candidates: Sequence[Candidate]) -> list[Verdict]:
        """Judge each candidate by itself; every one gets its scores, also those that break a rule.

        Equality with other kept captions of the same source is looked at by :meth:`repeats`.
        """
        if not candidates:
            return []
        features = self._encoder.encode([c.text for c in candidates])
        similarity, margin = self._index.score(features, [c.source for c in candidates])
        verdicts = []
        for candidate, s, m in zip(candidates, similarity.tolist(), margin.tolist(), strict=True):
            reason = self._rules.reason(candidate.text, self._sources[candidate.source], candidate.finish_reason)
            if not reason and s < self.settings.min_similarity:
                reason = "low similarity"
            if not reason and m < self.settings.min_margin:
                reason = "nearer to another"
            verdicts.append(Verdict(similarity=s, margin=m, reason=reason))
        return verdicts

    def repeats(self, text: str, kept: Sequence[str]) -> bool:
        """Return whether a text is nearly one that was kept for the same source."""
        return self._rules.repeats(text, kept)
