from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sclmkb.generate.filter.encoder import TextEncoder
from sclmkb.generate.filter.filter import FilterSettings, HallucinationFilter, Sample
from sclmkb.generate.filter.index import CaptionIndex, IndexKind, embed_in_parts
from sclmkb.generate.filter.rules import Rules, RuleSettings
from sclmkb.generate.filter.text import words
from sclmkb.generate.prompts import load_prompt

SOURCE = "woman climbing with light skin tone"
PROMPT = load_prompt("rewrite-1")


def make_index(features: torch.Tensor, identities: Sequence[str], kind: IndexKind = "flat") -> CaptionIndex:
    """Index features whose texts are their numbers."""
    names = [str(i) for i in range(len(features))]
    return CaptionIndex(embed_in_parts(lambda texts: features[[int(t) for t in texts]], names), identities, kind)


def random_features(count: int, seed: int, width: int = 8) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, width, generator=draw), dim=-1)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 20), st.integers(1, 40), st.sampled_from(["flat", "ivf", "hnsw"]))
def test_scores_are_those_of_a_plain_search(
    seed: int, num_identities: int, captions_each: int, kind: IndexKind
) -> None:
    count = num_identities * captions_each
    features, queries = random_features(count, seed), random_features(7, seed + 1)
    identities = [str(i // captions_each) for i in range(count)]
    own = torch.randint(count, (7,), generator=torch.Generator().manual_seed(seed)).tolist()
    similarity, margin = make_index(features, identities, kind).score(queries, own)
    cosines = queries @ features.T
    for row, source in enumerate(own):
        others = [cosines[row, j].item() for j in range(count) if identities[j] != identities[source]]
        assert similarity[row] == pytest.approx(cosines[row, source].item(), abs=1e-5)
        expected = cosines[row, source].item() - max(others) if others else 2.0
        if kind == "flat" or not others:
            assert margin[row] == pytest.approx(expected, abs=1e-5)
        else:  # the nearest may be missed, never invented
            assert margin[row] >= expected - 1e-5


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_approximate_indices_find_nearly_every_nearest_other(kind: IndexKind) -> None:
    centres = random_features(200, 0, 32)
    draw = torch.Generator().manual_seed(1)
    points = centres.repeat_interleave(20, 0) + 0.15 * torch.randn(4000, 32, generator=draw)
    features = torch.nn.functional.normalize(points, dim=-1)
    queries = torch.nn.functional.normalize(features[::9] + 0.05 * torch.randn(445, 32, generator=draw), dim=-1)
    identities, own = [str(i // 2) for i in range(4000)], list(range(0, 4000, 9))
    exact = make_index(features, identities).score(queries, own)[1]
    found = make_index(features, identities, kind).score(queries, own)[1]
    assert (np.abs(found - exact) < 1e-5).mean() > 0.95


def test_an_identity_with_most_captions_still_meets_another() -> None:
    features = random_features(500, 3)
    features[:499] = torch.nn.functional.normalize(features[:1] + 0.01 * features[:499], dim=-1)
    margin = make_index(features, ["crowd"] * 499 + ["other"]).score(features[:1], [0])[1]
    assert margin[0] == pytest.approx(1 - float(features[0] @ features[499]), abs=1e-5)


@pytest.mark.parametrize(
    ("text", "finish_reason", "reason"),
    [
        ("A woman with light skin is climbing up.", "stop", ""),
        ("", "stop", "empty"),
        ("...", "stop", "empty"),
        ("A woman with light skin is climbing up and", "length", "cut off"),
        ("A woman climbs.\nShe has light skin.", "stop", "format"),
        ("Caption: a light skinned woman climbing", "stop", "format"),
        ("Here is a woman climbing, with light skin", "stop", "format"),
        ("A woman", "stop", "too short"),
        ("A woman climbing " + "very " * 90 + "high", "stop", "too long"),
        ("A woman with light skin, a woman climbing, a woman", "stop", "repetition"),
        ("A woman with light skin climbs a steep mountain of Spain in summer", "stop", "adds words"),
        ("A ship is sailing and its mast is high", "stop", "echo of the prompt"),
        ("A naked woman with light skin climbing", "stop", "word list"),
        ("The woman, climbing with a light skin tone.", "stop", "copy of the source"),
    ],
)
def test_rules(text: str, finish_reason: str, reason: str) -> None:
    rules = Rules(RuleSettings(), PROMPT.own_texts())
    assert rules.reason(text, SOURCE, finish_reason) == reason


def test_a_listed_word_of_the_source_is_allowed_and_only_whole_words_count() -> None:
    rules = Rules(RuleSettings(), ())
    assert rules.reason("one naked mole rat digs", "naked mole rat digging", "stop") == ""
    assert rules.reason("a woman of class dances", "woman dancing classically", "stop") == ""
    assert rules.reason("a cocktail that is held by a woman", "woman holding cocktail", "stop") == ""


@given(st.text(max_size=60), st.text(max_size=60))
def test_words_ignore_case_articles_and_punctuation(left: str, right: str) -> None:
    joined = words(f"The {left} ... {right}!")
    assert joined == words(left) + words(right)


@pytest.fixture(scope="module")
def real_filter(minilm: TextEncoder) -> HallucinationFilter:
    sources = [SOURCE, "woman climbing with dark skin tone", "man climbing with light skin tone", "judge"]
    return HallucinationFilter(FilterSettings(), minilm, sources, ["a", "b", "c", "d"], PROMPT.own_texts())


def test_filter_keeps_the_faithful_and_rejects_the_corrupted(real_filter: HallucinationFilter) -> None:
    def reasons(texts: Sequence[str]) -> list[str]:
        return [v.reason for v in real_filter.judge([Sample(source=0, text=t, finish_reason="stop") for t in texts])]

    assert reasons(["A woman of light skin tone is climbing", "Climbing woman, her skin tone is light"]) == ["", ""]
    corrupted = [
        "A woman of dark skin tone is climbing",
        "A man of light skin tone is climbing",
        "A judge with a wooden hammer in court",
        "A light meal on the table of the kitchen",
    ]
    assert all(reasons(corrupted))


def test_scores_come_with_every_verdict_and_bound_each_other(real_filter: HallucinationFilter) -> None:
    texts = ["", SOURCE, "A judge", "\n\n"]
    verdicts = real_filter.judge([Sample(source=0, text=t, finish_reason="stop") for t in texts])
    assert [v.reason for v in verdicts][1] == "copy of the source"
    assert verdicts[1].similarity == pytest.approx(1, abs=1e-5)
    assert all(np.isfinite([v.similarity, v.margin]).all() for v in verdicts)
    assert real_filter.judge([]) == []
