"""Near copies among the kept captions of one identity.

What counts is the wording, by the share of words in common. A cosine is no measure here: all kept captions of an
identity mean the same, and the best paraphrases of one source are the nearest to each other.
"""

from collections.abc import Sequence

from sclmkb.generate.filter.text import words


def is_near_copy(one: frozenset[str], other: frozenset[str], max_overlap: float) -> bool:
    """Return whether two sets of words are equal or share more than ``max_overlap`` of them (Jaccard index)."""
    return one == other or len(one & other) > max_overlap * len(one | other)


def find_near_copies(identities: Sequence[str], texts: Sequence[str], max_overlap: float) -> list[bool]:
    """Return which texts are near copies of an earlier text of the same identity that is none itself.

    Args:
        identities: whose each text is.
        texts: the texts, in the order of their claim to be kept.
        max_overlap: two texts share at most this part of their words.

    Example:
        >>> find_near_copies(["x", "x", "y"], ["a red boat", "The red boat!", "a red boat"], 0.9)
        [False, True, False]
    """
    members: dict[str, list[int]] = {}
    for place, identity in enumerate(identities):
        members.setdefault(identity, []).append(place)
    copies = [False] * len(texts)
    for places in members.values():
        if len(places) > 1:
            kept = _Kept(max_overlap)
            for place in places:
                copies[place] = not kept.add(frozenset(words(texts[place])))
    return copies


class _Kept:
    """Sets of words, found again by their rarest ones.

    Two sets with a Jaccard index above t share one of the first ``|s| - floor(t |s|) + 1`` words of each in any common
    order. Longer words are taken for the rarer ones. So an identity with many captions is not compared all with all.
    """

    def __init__(self, max_overlap: float) -> None:
        self._max_overlap = max_overlap
        self._by_word: dict[str, list[frozenset[str]]] = {}

    def add(self, tokens: frozenset[str]) -> bool:
        """Keep a set and return true, or return false if it is a near copy of one that was kept."""
        least = int(self._max_overlap * len(tokens))
        prefix = sorted(tokens, key=lambda w: (-len(w), w))[: len(tokens) - least + 1] or [""]
        for word in prefix:
            if any(is_near_copy(tokens, other, self._max_overlap) for other in self._by_word.get(word, ())):
                return False
        for word in prefix:
            self._by_word.setdefault(word, []).append(tokens)
        return True
