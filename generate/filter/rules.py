"""Rules that need no encoder: form, echoes, copies, and words that nobody should read."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib import resources

from pydantic import Field

from sclmkb.common.config import Settings

_ARTICLES = {"a", "an", "the"}
_MARKUP = re.compile(r"<\||https?:|[{}<>\[\]\\|#*_=`]|\b(caption|assistant|user)\s*:", re.IGNORECASE)
_REFUSAL = re.compile(
    r"\b(i am|i'm|i can|i cannot|sorry|as an ai|here is|here's|this caption|the caption)\b", re.IGNORECASE
)
_ECHO_WORDS = 5
_FUNCTION_WORDS = """
about across also and are as at be been being both by each for from has have having he her hers his in into is it its
itself made of on one onto other over she shown seen some that their them there these they this those through to two
under up upon was were what where which while who whose with without
"""
_FUNCTION_STEMS = {word[:4] for word in _FUNCTION_WORDS.split()}


class RuleSettings(Settings):
    """Bounds of the form of a generated caption."""

    min_words: int = Field(default=2, ge=1)
    max_words: int = Field(default=30, ge=1)
    max_growth: float = Field(default=2.5, gt=0)
    """Longest a caption may be, in lengths of its source plus five words."""
    min_shrink: float = Field(default=0.5, ge=0, le=1)
    """Shortest a caption may be, in lengths of its source."""
    max_new_words: int = Field(default=3, ge=0)
    """Content words that the source has no form of; small models add whole stories, which a cosine hardly sees."""
    max_overlap: float = Field(default=0.9, gt=0, le=1)
    """Two kept captions of a row share at most this part of their words (Jaccard index)."""


def words(text: str) -> list[str]:
    """Return the words of a text, lower case, without articles and punctuation.

    Example:
        >>> words("A woman, climbing the rock-face.")
        ['woman', 'climbing', 'rock', 'face']
    """
    return [w for w in re.findall(r"[a-z0-9]+", text.lower().replace("'", "")) if w not in _ARTICLES]


class Rules:
    """Checks a text without looking at what it means."""

    def __init__(self, settings: RuleSettings, own_texts: Sequence[str]) -> None:
        """Prepare the rules.

        Args:
            settings: the bounds.
            own_texts: texts of the prompt, which an answer must not repeat.
        """
        self.settings = settings
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
        if len(_new_words(found, from_source)) > self.settings.max_new_words:
            return "adds words"
        if not _unwanted(text).issubset(_unwanted(source)):
            return "word list"
        if found == from_source:
            return "copy of the source"
        return ""

    def repeats(self, text: str, kept: Sequence[str]) -> bool:
        """Return whether a text is nearly one that was kept."""
        own = set(words(text))
        return any(
            len(own & other) > self.settings.max_overlap * len(own | other) or own == other
            for other in (set(words(k)) for k in kept)
        )


def _repetitive(found: Sequence[str], from_source: Sequence[str]) -> bool:
    """Return whether a content word is there twice or more, and more often than in the source."""
    counts, allowed = Counter(map(_stem, found)), Counter(map(_stem, from_source))
    return any(count > max(1, allowed[stem]) for stem, count in counts.items() if stem not in _FUNCTION_STEMS)


def _new_words(found: Sequence[str], from_source: Sequence[str]) -> set[str]:
    """Return the stems of content words that the source has no form of."""
    return {_stem(w) for w in found} - {_stem(w) for w in from_source} - _FUNCTION_STEMS


def _stem(word: str) -> str:
    """Return the first four letters: enough to see that "climbs" and "climbing" are the same."""
    return word[:4]


def _grams(tokens: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(tokens[i : i + _ECHO_WORDS]) for i in range(len(tokens) - _ECHO_WORDS + 1)}


def _unwanted(text: str) -> set[str]:
    return {match.lower() for match in _word_list().findall(text)}


@cache
def _word_list() -> re.Pattern[str]:
    lines = (resources.files("sclmkb.generate.filter") / "words.txt").read_text("utf-8").splitlines()
    entries = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    patterns = [re.escape(e[1:]) + r"\b" if e.startswith("=") else re.escape(e) for e in entries]
    return re.compile(r"\b(?:" + "|".join(patterns) + ")", re.IGNORECASE)
