from hypothesis import given
from hypothesis import strategies as st

from sclmkb.generate.filter.duplicates import find_near_copies
from sclmkb.generate.filter.text import words

TEXTS = st.lists(
    st.sampled_from(["boat", "red", "tall", "tower", "lantern", "beside", "glows", "on", "dark", "sea"]), max_size=8
).map(" ".join)


def plain(identities: list[str], texts: list[str], max_overlap: float) -> list[bool]:
    """All with all."""
    kept: list[tuple[str, set[str]]] = []
    copies = []
    for identity, text in zip(identities, texts, strict=True):
        own = set(words(text))
        copy = any(
            identity == other_identity and (own == other or len(own & other) > max_overlap * len(own | other))
            for other_identity, other in kept
        )
        copies.append(copy)
        if not copy:
            kept.append((identity, own))
    return copies


@given(
    st.lists(st.tuples(st.sampled_from("xyz"), TEXTS), max_size=30),
    st.sampled_from([0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]) | st.floats(0.01, 1),
)
def test_near_copies_are_those_of_comparing_all_with_all(pairs: list[tuple[str, str]], max_overlap: float) -> None:
    identities, texts = [i for i, _ in pairs], [t for _, t in pairs]
    assert find_near_copies(identities, texts, max_overlap) == plain(identities, texts, max_overlap)


def test_the_first_is_kept_also_of_captions_from_different_sources() -> None:
    texts = ["A tall tower glows.", "the TALL tower, glows", "a tower, tall and dark", "A tall tower glows."]
    assert find_near_copies(["x", "x", "x", "y"], texts, 0.9) == [False, True, False, False]
    assert find_near_copies([], [], 0.9) == []
