from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sclmkb.common.errors import UserError
from sclmkb.generate.filter.attributes import load_attributes
from sclmkb.generate.filter.rules import Rules, RuleSettings

ATTRIBUTES = load_attributes()
COLOURS = sorted(ATTRIBUTES.groups["colour"])
EVERY_WORD = [
    (group, value, phrase)
    for group, values in ATTRIBUTES.groups.items()
    for value, phrases in values.items()
    for phrase in phrases
]


@pytest.mark.parametrize(
    ("source", "text", "expected"),
    [
        ("woman in a red coat", "a lady wearing a scarlet coat", ""),
        ("woman in a red coat", "a woman wearing a blue coat", "changes colour"),
        ("woman in a red coat", "a woman wearing a coat", "loses colour"),
        ("woman in a coat", "a woman wearing a red coat", "adds colour"),
        ("woman climbing", "man climbing", "changes gender"),
        ("person climbing", "a man who climbs", "adds gender"),
        ("a person walks without a stick", "somebody walks with a stick", "loses negation"),
        ("a person walks with a stick", "somebody doesn't walk with a stick", "adds negation"),
        ("turns left", "a turn to the right", "changes side"),
        ("walks counter-clockwise", "goes round anticlockwise", ""),
        ("walks counter-clockwise", "goes round clockwise", "changes turn"),
        ("three dogs bark", "4 dogs bark", "changes number"),
        ("he jumps two times", "he jumps twice", ""),
        ("he jumps two times", "he jumps", "loses times"),
        ("a wooden door closes", "a door of wood shuts", ""),
        ("a wooden door closes", "a metal door closes", "changes material"),
        ("red shirt and blue trousers", "trousers that are blue, with a red shirt", ""),
        ("red shirt and blue trousers", "blue shirt and red trousers", "exchanges colour"),
        ("red shirt and blue trousers", "shirt that is blue, trousers that are red", "exchanges colour"),
        ("raises the right hand and the left foot", "lifts his left hand and the right foot", "adds gender"),
        ("raises the right hand and the left foot", "lifts the left hand and the right foot", "exchanges side"),
        ("a white shirt and black jeans", "black jeans with a white shirt", ""),
    ],
)
def test_what_is_stated_must_survive_and_nothing_may_be_added(source: str, text: str, expected: str) -> None:
    assert ATTRIBUTES.difference(source, text) == expected


@given(st.sampled_from(EVERY_WORD))
def test_every_word_of_the_vocabulary_says_what_it_stands_for(entry: tuple[str, str, str]) -> None:
    group, value, phrase = entry
    assert (group, value) in ATTRIBUTES.find(f"There, {phrase.upper()}!")
    assert ATTRIBUTES.difference(f"it {phrase} it", "it is it").startswith("loses")


@given(st.lists(st.sampled_from([p for _, _, p in EVERY_WORD]), max_size=6), st.randoms())
def test_the_order_of_words_does_not_matter_to_what_is_found(phrases: list[str], random: object) -> None:
    shuffled = list(phrases)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert ATTRIBUTES.find(". it ".join(phrases)) == ATTRIBUTES.find(". it ".join(shuffled))
    assert ATTRIBUTES.difference(" it ".join(phrases), " it ".join(phrases)) == ""


@given(st.sampled_from(COLOURS), st.sampled_from(COLOURS), st.sampled_from(["boat", "lamp", "door", "chair"]))
def test_every_swap_of_a_value_is_seen(before: str, after: str, noun: str) -> None:
    changed = ATTRIBUTES.difference(f"{before} {noun} beside it", f"beside it a {noun} that is {after}")
    assert changed == ("" if before == after else "changes colour")


def test_own_groups_are_added_replace_or_remove(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("colour: {}\nbreed:\n  poodle: [poodle]\n  beagle: [beagle]\n")
    own = load_attributes(file)
    assert own.difference("red poodle", "blue poodle") == ""
    assert own.difference("red poodle", "red beagle") == "changes breed"
    rules = Rules(RuleSettings(attributes=file), ())
    assert rules.reason("here is one poodle that runs", "beagle running", "stop") == "format"
    assert rules.reason("one poodle that runs", "beagle running", "stop") == "attribute: changes breed"
    off = Rules(RuleSettings(attributes=file, check_attributes=False), ())
    assert off.reason("one poodle that runs", "beagle running", "stop") == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [("negation: {negated: [no]}", "quotes"), ("- a list", "not in the form"), ("a: {b", "not in the form")],
)
def test_bad_files_of_attributes_are_named(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=expected) as caught:
        load_attributes(file)
    assert str(file) in str(caught.value)
    with pytest.raises(UserError, match="nothing"):
        load_attributes(tmp_path / "nothing.yaml")


def test_own_unwanted_words_are_added(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("# mine\n=banana\nkumquat\n")
    rules = Rules(RuleSettings(word_list=file), ())
    assert rules.reason("one kumquats stand", "fruit stand", "stop") == "word list"
    assert rules.reason("one bananas stand", "fruit stand", "stop") == ""
    assert rules.reason("one naked stand", "fruit stand", "stop") == "word list"
    with pytest.raises(UserError, match="no-such"):
        Rules(RuleSettings(word_list=tmp_path / "no-such.txt"), ())
