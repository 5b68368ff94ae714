"""Rules that need no encoder: form, echoes, copies, attributes, and unwanted words."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path

from pydantic import Field

from sclmkb.common.config import Settings
from sclmkb.generate.filter.attributes import load_attributes
from sclmkb.generate.filter.text import FUNCTION_STEMS, read_own, stem, words

_MARKUP = re.compile(r"<\||https?:|[{}<>\[\]\\|#*_=`]|\b(caption|assistant|user)\s*:", re.IGNORECASE)
_REFUSAL = re.compile(
    r"\b(i am|i'm|i can|i cannot|sorry|as an ai|here is|here's|this caption|the caption)\b", re.IGNORECASE
)
_ECHO_WORDS = 5


class RuleSettings(Settings):
    """Bounds of the form of a generated caption, and what it must and must not say."""

    min_words: int = Field(default=2, ge=1, description="least words per caption")
    max_words: int = Field(default=80, ge=1, description="most words per caption")
    max_growth: float = Field(
        default=2.5, gt=0, description="most words per word of the source; five words more are allowed"
    )
    min_shrink: float = Field(default=0.5, ge=0, le=1, description="least words per word of the source")
    max_new_words: int = Field(
        default=3,
        ge=0,
        description="most content words that have no form in the source; small models add whole stories, which a "
        "cosine hardly sees",
    )
    max_new_share: float = Field(
        default=0.35,
        ge=0,
        description="new words per word of the source that are always allowed, since long captions offer more to "
        "reword",
    )
    max_overlap: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="most overlap of the words of two kept captions of an identity (Jaccard index)",
    )
    check_attributes: bool = Field(
        default=True, description="whether colours, numbers, sides, negations and so on must be those of the source"
    )
    attributes: Path | None = Field(
        default=None, description="your own YAML file of attributes, in the form of `attributes.yaml`"
    )
    word_list: Path | None = Field(
        default=None, description="your own text file of further unwanted words, in the form of `words.txt`"
    )


class Rules:
    """Checks a text without looking at what it means."""

    def __init__(self, settings: RuleSettings, own_texts: Sequence[str]) -> None:
        """Prepare the rules.

        Args:
            settings: the bounds.
            own_texts: texts of the prompt, which an answer must not repeat.

        Raises:
            UserError: if a file of one's own cannot be read.
        """
        self.settings = settings
        self._attributes = load_attributes(settings.attributes)
        self._unwanted = _word_list(settings.word_list)
        self._own = {gram for text in own_texts for gram in _grams(words(text))}

    def reason(self, text: str, source: str, finish_reason: str) -> str:
        """Return why a text is rejected by form alone: a few words, empty if it is not."""
        found, from_source = words(text), words(source)
        if not found:
            return "empty"
        if finish_reason == "length":
            return "cut off"
        limit = min(self.settings.max_words, self.settings.max_growth * len(from_source) + 5)
        if "\n" in text or _MARKUP.search(text) or _REFUSAL.search(text):
            return "format"
        if not self._own.isdisjoint(_grams(found)):
            return "echo of the prompt"
        if len(found) < max(self.settings.min_words, self.settings.min_shrink * len(from_source)):
            return "too short"
        if len(found) > limit:
            return "too long"
        if _repetitive(found, from_source):
            return "repetition"
        allowed = max(self.settings.max_new_words, self.settings.max_new_share * len(from_source))
        if len(_new_words(found, from_source)) > allowed:
            return "adds words"
        if (unwanted := self._unwanted_in(text)) and not unwanted.issubset(self._unwanted_in(source)):
            return "word list"
        if found == from_source:
            return "copy of the source"
        if self.settings.check_attributes and (difference := self._attributes.difference(source, text)):
            return f"attribute: {difference}"
        return ""

    def _unwanted_in(self, text: str) -> set[str]:
        return {match.lower() for match in self._unwanted.findall(text)}


def _repetitive(found: Sequence[str], from_source: Sequence[str]) -> bool:
    """Return whether a content word is there twice or more, and more often than in the source."""
    counts, allowed = Counter(map(stem, found)), Counter(map(stem, from_source))
    return any(count > max(1, allowed[s]) for s, count in counts.items() if s not in FUNCTION_STEMS)


def _new_words(found: Sequence[str], from_source: Sequence[str]) -> set[str]:
    """Return the stems of content words that the source has no form of."""
    return {stem(w) for w in found} - {stem(w) for w in from_source} - FUNCTION_STEMS


def _grams(tokens: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(tokens[i : i + _ECHO_WORDS]) for i in range(len(tokens) - _ECHO_WORDS + 1)}


@cache
def _word_list(own: Path | None) -> re.Pattern[str]:
    lines = (resources.files("sclmkb.generate.filter") / "words.txt").read_text("utf-8").splitlines()
    if own is not None:
        lines += read_own(own, "word list").splitlines()
    entries = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    patterns = [re.escape(e[1:]) + r"\b" if e.startswith("=") else re.escape(e) for e in entries]
    return re.compile(r"\b(?:" + "|".join(patterns) + ")", re.IGNORECASE)
