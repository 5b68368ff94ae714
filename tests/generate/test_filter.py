from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sclmkb.common.errors import UserError
from sclmkb.generate.filter.encoder import load_text_encoder
from sclmkb.generate.filter.filter import Candidate, FilterSettings, HallucinationFilter
from sclmkb.generate.filter.index import CaptionIndex
from sclmkb.generate.filter.rules import Rules, RuleSettings, words
from sclmkb.generate.prompts import load_prompt

SOURCE = "woman climbing with light skin tone"
PROMPT = load_prompt("rewrite-1")


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 20), st.integers(1, 4))
def test_scores_are_those_of_a_plain_search(seed: int, num_identities: int, captions_each: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    count = num_identities * captions_each
    features = torch.nn.functional.normalize(torch.randn(count, 8, generator=draw), dim=-1)
    queries = torch.nn.functional.normalize(torch.randn(7, 8, generator=draw), dim=-1)
    identities = [str(i // captions_each) for i in range(count)]
    own = torch.randint(count, (7,), generator=draw).tolist()
    similarity, margin = CaptionIndex(features, identities).score(queries, own)
    cosines = queries @ features.T
    for row, source in enumerate(own):
        others = [cosines[row, j].item() for j in range(count) if identities[j] != identities[source]]
        assert similarity[row] == pytest.approx(cosines[row, source].item(), abs=1e-5)
        assert margin[row] == pytest.approx(cosines[row, source].item() - max(others), abs=1e-5)


def test_margin_without_another_identity_is_the_largest_there_is() -> None:
    features = torch.eye(3)[:1]
    _, margin = CaptionIndex(features, ["only"]).score(features, [0])
    assert margin.tolist() == [2.0]


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
        ("A woman climbing " + "very " * 30 + "high", "stop", "too long"),
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


def test_near_duplicates_of_what_was_kept_are_found() -> None:
    rules = Rules(RuleSettings(), ())
    kept = ["A woman with light skin climbs."]
    assert rules.repeats("a woman climbs, with light skin", kept)
    assert not rules.repeats("A climbing woman whose skin tone is light", kept)
    assert not rules.repeats("anything", [])


@pytest.fixture(scope="module")
def real_filter() -> HallucinationFilter:
    try:
        encoder = load_text_encoder("minilm")
    except UserError:
        pytest.skip("the embedded sentence encoder is not installed")
    sources = [SOURCE, "woman climbing with dark skin tone", "man climbing with light skin tone", "judge"]
    return HallucinationFilter(FilterSettings(), encoder, sources, ["a", "b", "c", "d"], PROMPT.own_texts())


def test_filter_keeps_the_faithful_and_rejects_the_corrupted(real_filter: HallucinationFilter) -> None:
    def reasons(texts: Sequence[str]) -> list[str]:
        return [v.reason for v in real_filter.judge([Candidate(source=0, text=t, finish_reason="stop") for t in texts])]

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
    verdicts = real_filter.judge([Candidate(source=0, text=t, finish_reason="stop") for t in texts])
    assert [v.reason for v in verdicts][1] == "copy of the source"
    assert verdicts[1].similarity == pytest.approx(1, abs=1e-5)
    assert all(np.isfinite([v.similarity, v.margin]).all() for v in verdicts)
    assert real_filter.judge([]) == []


def test_an_unknown_encoder_is_named() -> None:
    with pytest.raises(UserError, match="nothing-here"):
        load_text_encoder("./nothing-here")
