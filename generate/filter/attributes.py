"""The attribute rule: what a source caption states must survive, and nothing may be stated beside it."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path

import yaml

from sclmkb.common.errors import UserError
from sclmkb.generate.filter.text import FUNCTION_STEMS, read_own, stem, words

Groups = Mapping[str, Mapping[str, Sequence[str]]]
Attribute = tuple[str, str]
"""Group and value, such as ``("colour", "red")``."""

_NOUNS = ("gender", "age", "material")
"""Groups whose words are things rather than properties of things, so that nothing is bound to them."""
_CLAUSES = re.compile(r"[,.;:]|\b(?:and|with|while|but|then|who|whose)\b", re.IGNORECASE)


class Attributes:
    """Closed vocabularies of attributes, found in texts word by word.

    A text is a set of (group, value). Where a group has several values in a text ("red shirt, blue trousers"), each
    value is also bound to the word it stands with, so that an exchange is seen.
    """

    def __init__(self, groups: Groups) -> None:
        """Prepare the look-up of ``groups``: group → value → words and phrases."""
        self.groups = groups
        self._phrases: dict[str, list[tuple[tuple[str, ...], Attribute]]] = {}
        for group, values in groups.items():
            for value, phrases in values.items():
                for phrase in phrases:
                    tokens = tuple(words(phrase))
                    self._phrases.setdefault(tokens[0], []).append((tokens, (group, value)))
        # Sources come again with each of their samples.
        self._find = lru_cache(maxsize=4096)(self._find_all)
        self._bound = lru_cache(maxsize=4096)(self._bind)

    def find(self, text: str) -> frozenset[Attribute]:
        """Return what a text states.

        Example:
            >>> sorted(load_attributes().find("A lady in navy jeans, without a hat"))
            [('colour', 'blue'), ('gender', 'female'), ('material', 'denim'), ('negation', 'negated')]
        """
        return self._find(text)

    def difference(self, source: str, text: str) -> str:
        """Return how a text's attributes differ from its source's: a few words, empty if they do not.

        Example:
            >>> load_attributes().difference("woman in a red coat", "a lady who wears a coat")
            'loses colour'
        """
        stated, found = self._find(source), self._find(text)
        if stated != found:
            lost, added = ({group for group, _ in side} for side in (stated - found, found - stated))
            if changed := lost & added:
                return f"changes {min(changed)}"
            return f"loses {min(lost)}" if lost else f"adds {min(added)}"
        groups = Counter(group for group, _ in stated if group not in _NOUNS)
        several = {group for group, count in groups.items() if count > 1}
        if not several:
            return ""
        before, after = self._bound(source), self._bound(text)
        for (group, value), nouns in after.items():
            own = before.get((group, value), set())
            others = set().union(*(n for (g, v), n in before.items() if g == group and v != value))
            if group in several and nouns & (others - own) and not nouns & own:
                return f"exchanges {group}"
        return ""

    def occurrences(self, tokens: Sequence[str]) -> list[tuple[int, int, Attribute]]:
        """Return where attributes stand among :func:`words`: first token, number of tokens, attribute.

        The longest phrase that begins at a token counts, and hides what begins within it.
        """
        found: list[tuple[int, int, Attribute]] = []
        place = 0
        while place < len(tokens):
            phrases = self._phrases.get(tokens[place])
            if phrases is None:
                place += 1
                continue
            starting = [
                (len(phrase), attribute)
                for phrase, attribute in phrases
                if tuple(tokens[place : place + len(phrase)]) == phrase
            ]
            longest = max((length for length, _ in starting), default=1)
            found += [(place, length, attribute) for length, attribute in starting if length == longest]
            place += longest
        return found

    def _find_all(self, text: str) -> frozenset[Attribute]:
        return frozenset(attribute for _, _, attribute in self.occurrences(words(text)))

    def _bind(self, text: str) -> dict[Attribute, set[str]]:
        """Return the stems that each attribute stands with: the next content word of its clause, else the last."""
        bound: dict[Attribute, set[str]] = {}
        for clause in _CLAUSES.split(text):
            tokens = words(clause)
            found = self.occurrences(tokens)
            for place, length, attribute in found:
                same = {p + i for p, n, a in found if a[0] == attribute[0] for i in range(n)}
                nouns = [i for i, token in enumerate(tokens) if i not in same and stem(token) not in FUNCTION_STEMS]
                after = next((i for i in nouns if i >= place + length), None)
                nearest = after if after is not None else next((i for i in reversed(nouns) if i < place), None)
                if nearest is not None:
                    bound.setdefault(attribute, set()).add(stem(tokens[nearest]))
        return bound


def load_attributes(own: Path | None = None) -> Attributes:
    """Load the vocabularies shipped with the program, and groups of one's own over them.

    Args:
        own: YAML file in the form of ``attributes.yaml``; a group named as there replaces it, an empty one removes it.

    Raises:
        UserError: if the file cannot be read or has another form.
    """
    groups = _parse((resources.files("sclmkb.generate.filter") / "attributes.yaml").read_text("utf-8"), "attributes")
    if own is not None:
        groups = {**groups, **_parse(read_own(own, "attributes"), str(own))}
    return Attributes(groups)


def _parse(text: str, where: str) -> dict[str, dict[str, list[str]]]:
    try:
        loaded = yaml.safe_load(text) or {}
        groups = {
            str(group): {str(value): list(phrases) for value, phrases in (values or {}).items()}
            for group, values in loaded.items()
        }
    except (yaml.YAMLError, AttributeError, TypeError):
        raise UserError(f"{where} is not in the form 'group: {{value: [words]}}' of attributes.yaml") from None
    for group, values in groups.items():
        for value, phrases in values.items():
            for phrase in phrases:
                if not isinstance(phrase, str) or not words(phrase):
                    raise UserError(f"{where}: {phrase!r} in {group}, {value} is no word: put it in quotes")
    return groups
