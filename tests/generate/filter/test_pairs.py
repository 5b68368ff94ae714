from collections import defaultdict

import pytest

from sclmkb.generate.filter.attributes import load_attributes
from sclmkb.generate.filter.pairs import CORRUPTED, FAITHFUL, Pair, PairMaker
from sclmkb.generate.filter.text import words

CAPTIONS = [
    "A woman in a red coat walks slowly beside two dogs",
    "A lady with a red coat and a green umbrella",
    "Two men with black jackets carry a wooden ladder to the left",
    "Loud thunder rolls while a small bird sings without pause",
    "A person kicks a ball forward with the right foot",
    "somebody climbs stairs",
]
IDENTITIES = ["a", "a", "b", "c", "d", "e"]
ATTRIBUTES = load_attributes()
ONCE = PairMaker(CAPTIONS, IDENTITIES, ATTRIBUTES, 0)


def make_many() -> dict[tuple[int, str], list[Pair]]:
    """Return the pairs of several seeds by source and kind."""
    many: dict[tuple[int, str], list[Pair]] = defaultdict(list)
    for seed in range(20):
        maker = PairMaker(CAPTIONS, IDENTITIES, ATTRIBUTES, seed)
        for source in range(len(CAPTIONS)):
            for pair in maker.make(source):
                many[source, pair.kind].append(pair)
    return many


MANY = make_many()


def test_every_kind_is_made_somewhere_and_the_same_again() -> None:
    for kind in (*FAITHFUL, *CORRUPTED):
        assert any(MANY[source, kind] for source in range(len(CAPTIONS))), kind
    assert ONCE.make(0) == PairMaker(CAPTIONS, IDENTITIES, ATTRIBUTES, 0).make(0)


def test_no_text_is_a_copy_of_its_source() -> None:
    for pairs in MANY.values():
        assert all(words(p.text) != words(CAPTIONS[p.source]) for p in pairs)


@pytest.mark.parametrize("source", range(len(CAPTIONS)))
def test_rewordings_state_what_the_source_states(source: int) -> None:
    for pair in MANY[source, "rewording"]:
        assert ATTRIBUTES.find(pair.text) == ATTRIBUTES.find(CAPTIONS[source])
        assert ATTRIBUTES.difference(CAPTIONS[source], pair.text) == ""


@pytest.mark.parametrize(
    ("kind", "sees"),
    [("changed attribute", "changes"), ("dropped attribute", "loses"), ("added attribute", "adds")],
)
@pytest.mark.parametrize("source", range(len(CAPTIONS)))
def test_corrupted_attributes_differ_as_they_should(source: int, kind: str, sees: str) -> None:
    for pair in MANY[source, kind]:
        assert ATTRIBUTES.difference(CAPTIONS[source], pair.text).startswith(sees), pair


def test_negation_turns_round() -> None:
    for source in range(len(CAPTIONS)):
        negated = ("negation", "negated") in ATTRIBUTES.find(CAPTIONS[source])
        for pair in MANY[source, "negation"]:
            assert (("negation", "negated") in ATTRIBUTES.find(pair.text)) != negated, pair


def test_exchanged_attributes_are_all_there_in_another_order() -> None:
    pairs = MANY[1, "exchanged attributes"]
    assert pairs
    for pair in pairs:
        assert ATTRIBUTES.find(pair.text) == ATTRIBUTES.find(CAPTIONS[1])
        assert ATTRIBUTES.difference(CAPTIONS[1], pair.text) == "exchanges colour", pair


def test_other_captions_are_of_the_same_identity_and_other_identities_are_not() -> None:
    assert {p.text for p in MANY[0, "other caption"]} == {CAPTIONS[1]}
    assert MANY[2, "other caption"] == []
    for pair in MANY[0, "other identity"]:
        assert "umbrella" not in pair.text
        assert "dogs" not in pair.text
