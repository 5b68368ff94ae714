"""Labelled pairs for calibration: faithful and corrupted texts of source captions, made without a language model.

Every corrupted text is a faithful rewording that was spoilt in one way, so that the two differ in nothing else.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

from sclmkb.common.seeds import derive_seed
from sclmkb.generate.filter.attributes import Attribute, Attributes
from sclmkb.generate.filter.text import FUNCTION_STEMS, stem, words

FAITHFUL = ("rewording", "other caption")
CORRUPTED = (
    "changed attribute",
    "exchanged attributes",
    "dropped attribute",
    "added attribute",
    "negation",
    "changed word",
    "dropped words",
    "added words",
    "other identity",
)
_ADDED_GROUPS = ("colour", "pattern", "material", "size")
_NEUTRAL = {"he": "they", "she": "they", "his": "their", "her": "their", "him": "them", "men": "people",
            "women": "people"}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A text that stands for a generated caption, the position of its source, and how it was made."""

    source: int
    text: str
    kind: str


class PairMaker:
    """Makes pairs from captions and their identities; the same ones for the same seed."""

    def __init__(self, captions: Sequence[str], identities: Sequence[str], attributes: Attributes, seed: int) -> None:
        """Take the captions that texts of other identities, and words, are drawn from."""
        self.captions, self.identities, self.attributes, self.seed = captions, identities, attributes, seed
        self._members: dict[str, list[int]] = {}
        for place, identity in enumerate(identities):
            self._members.setdefault(identity, []).append(place)
        text = (resources.files("sclmkb.generate.filter") / "rewordings.yaml").read_text("utf-8")
        loaded: Mapping[str, Any] = yaml.safe_load(text)
        self._frames: list[str] = loaded["frames"]
        self._synonyms: dict[str, list[str]] = {}
        for group in loaded["synonyms"]:
            for word in group:
                self._synonyms.setdefault(word, []).extend(other for other in group if other != word)
        self._spoil: dict[str, Callable[[int, str, random.Random], str]] = {
            "changed attribute": self._change_attribute,
            "exchanged attributes": self._exchange_attributes,
            "dropped attribute": self._drop_attribute,
            "added attribute": self._add_attribute,
            "negation": self._negate,
            "changed word": self._change_word,
            "dropped words": self._drop_words,
            "added words": self._add_words,
            "other identity": self._take_other,
        }

    def make(self, source: int) -> list[Pair]:
        """Return the pairs of a source caption: one of each kind that can be made of it."""
        caption = self.captions[source]
        pairs = []
        for kind in (*FAITHFUL, *CORRUPTED):
            draw = random.Random(derive_seed(self.seed, "pairs", source, kind))
            if kind == "other caption":
                text = self._caption_of_same(source, draw)
            else:
                text = self.reword(caption, draw)
                if kind != "rewording":
                    text = self._spoil[kind](source, text, draw)
            if text and words(text) != words(caption):
                pairs.append(Pair(source=source, text=text, kind=kind))
        return pairs

    def reword(self, text: str, draw: random.Random) -> str:
        """Return a text in other words that says the same: synonyms, another order, articles, a phrase around it."""
        text = " ".join(text.split()).rstrip(" .!")
        reworded = text
        for word, others in self._synonyms.items():
            if draw.random() < 0.5 and (found := _find(word, reworded)):
                reworded = reworded[: found.start()] + draw.choice(others) + reworded[found.end() :]
        if draw.random() < 0.4:
            head, separator, rest = reworded.partition(" with ")
            if separator and rest:
                reworded = f"with {rest}, {head}"
        if draw.random() < 0.3:
            reworded = re.sub(r"\b(?:a|an|the) ", "", reworded, flags=re.IGNORECASE)
        if draw.random() < 0.4 or words(reworded) == words(text):
            reworded = draw.choice(self._frames).format(reworded)
        return reworded

    def _caption_of_same(self, source: int, draw: random.Random) -> str:
        others = [i for i in self._members[self.identities[source]] if i != source]
        return self.captions[draw.choice(others)] if others else ""

    def _other(self, source: int, draw: random.Random) -> int | None:
        """Return the position of a caption of another identity that is worded differently."""
        own = set(words(self.captions[source]))
        for _ in range(20):
            place = draw.randrange(len(self.captions))
            if self.identities[place] != self.identities[source] and set(words(self.captions[place])) != own:
                return place
        return None

    def _phrases(self, text: str, among: Callable[[str], bool] = lambda group: True) -> list[tuple[Attribute, str]]:
        """Return the attributes of a text, each with the phrase that says it there."""
        return [
            (attribute, phrase)
            for attribute in sorted(self.attributes.find(text))
            if among(attribute[0])
            for phrase in self.attributes.groups[attribute[0]][attribute[1]]
            if _find(phrase, text)
        ]

    def _change_attribute(self, source: int, text: str, draw: random.Random) -> str:
        stated, groups = self.attributes.find(text), self.attributes.groups
        options = [
            (group, value, others)
            for (group, value), _ in self._phrases(text)
            if (others := sorted(v for v in groups[group] if (group, v) not in stated))
        ]
        if not options:
            return ""
        group, value, others = draw.choice(options)
        values, other = groups[group], draw.choice(others)
        changed = text
        for place, phrase in enumerate(values[value]):
            changed = _replace(phrase, values[other][min(place, len(values[other]) - 1)], changed)
        return changed

    def _exchange_attributes(self, source: int, text: str, draw: random.Random) -> str:
        found = self._phrases(text)
        places = [
            (match, other)
            for first, one in found
            for second, two in found
            if first[0] == second[0] and first[1] < second[1]
            if (match := _find(one, text)) and (other := _find(two, text))
        ]
        ordered = [sorted(pair, key=lambda match: match.start()) for pair in places]
        # "red and blue" exchanged says the same.
        chosen = [(one, two) for one, two in ordered if self._content(text[one.end() : two.start()])]
        if not chosen:
            return ""
        one, two = draw.choice(chosen)
        return text[: one.start()] + two[0] + text[one.end() : two.start()] + one[0] + text[two.end() :]

    def _drop_attribute(self, source: int, text: str, draw: random.Random) -> str:
        found = self._phrases(text, lambda group: group != "negation")
        if not found:
            return ""
        group, value = draw.choice(found)[0]
        for phrase in self.attributes.groups[group][value]:
            neutral = _NEUTRAL.get(phrase, "person") if group == "gender" else ""
            text = _replace(phrase, neutral, text)
        return " ".join(text.split())

    def _add_attribute(self, source: int, text: str, draw: random.Random) -> str:
        stated = {group for group, _ in self.attributes.find(text)}
        free = [g for g in _ADDED_GROUPS if g in self.attributes.groups and g not in stated]
        if not free:
            return ""
        values = self.attributes.groups[draw.choice(free)]
        added = values[draw.choice(sorted(values))][0]
        articles = list(re.finditer(r"\b(?:a|an|the) ", text, re.IGNORECASE))
        place = draw.choice(articles).end() if articles else 0
        return f"{text[:place]}{added} {text[place:]}"

    def _negate(self, source: int, text: str, draw: random.Random) -> str:
        for phrase, opposite in (("without", "with"), ("not", ""), ("no", "some"), ("never", "always")):
            if _find(phrase, text):
                return " ".join(_replace(phrase, opposite, text).split())
        options = [
            text[: found.start()] + opposite + text[found.end() :]
            for phrase, opposite in (("with", "without"), ("is", "is not"), ("are", "are not"), ("a", "no"))
            if (found := _find(phrase, text))
        ]
        return draw.choice(options) if options else f"no {text}"

    def _content(self, text: str) -> list[str]:
        taken = {p for _, phrase in self._phrases(text) for p in words(phrase)}
        return [w for w in words(text) if len(w) > 3 and stem(w) not in FUNCTION_STEMS and w not in taken]

    def _change_word(self, source: int, text: str, draw: random.Random) -> str:
        other = self._other(source, draw)
        own = self._content(self.captions[source])
        candidates = [w for w in own if _find(w, text)]
        if other is None or not candidates:
            return ""
        new = [w for w in self._content(self.captions[other]) if stem(w) not in {stem(o) for o in own}]
        return _replace(draw.choice(candidates), draw.choice(new), text) if new else ""

    def _drop_words(self, source: int, text: str, draw: random.Random) -> str:
        tokens = text.split()
        return " ".join(tokens[: -max(2, len(tokens) // 3)]) if len(tokens) > 5 else ""

    def _add_words(self, source: int, text: str, draw: random.Random) -> str:
        other = self._other(source, draw)
        if other is None:
            return ""
        piece = self.captions[other].rstrip(" .!").split()[-3:]
        if piece and piece[0].lower() in ("and", "with"):
            del piece[0]
        return f"{text} and {' '.join(piece)}" if self._content(" ".join(piece)) else ""

    def _take_other(self, source: int, text: str, draw: random.Random) -> str:
        other = self._other(source, draw)
        return "" if other is None else self.reword(self.captions[other], draw)


@cache
def _pattern(phrase: str) -> re.Pattern[str]:
    return re.compile(r"\b" + r"[\s-]+".join(map(re.escape, phrase.split())) + r"\b", re.IGNORECASE)


def _find(phrase: str, text: str) -> re.Match[str] | None:
    return _pattern(phrase).search(text)


def _replace(phrase: str, by: str, text: str) -> str:
    return _pattern(phrase).sub(lambda _: by, text)
