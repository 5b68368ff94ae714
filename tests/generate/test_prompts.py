from pathlib import Path

import pytest

from sclmkb.common.errors import UserError
from sclmkb.generate.prompts import load_prompt

GOOD = "system: Rewrite.\nuser: 'Say {caption}'\nexamples:\n- {caption: a boat, answer: one boat}\n"


def test_messages_end_with_the_caption_and_start_the_same_for_all() -> None:
    prompt = load_prompt("rewrite-1")
    first, second = prompt.messages("a {caption} in braces"), prompt.messages("a cat")
    assert first[:-1] == second[:-1]
    assert first[-1].content.endswith("a {caption} in braces")
    assert [m.role for m in first] == ["system", *["user", "assistant"] * len(prompt.examples), "user"]


def test_shipped_examples_are_from_another_domain() -> None:
    people = {"man", "woman", "person", "people", "skin", "hair", "boy", "girl", "face", "hand"}
    prompt = load_prompt("rewrite-1")
    for text in (text for pair in prompt.examples for text in pair):
        assert not people & set(text.lower().strip(".").split())


def test_a_file_is_a_prompt_too(tmp_path: Path) -> None:
    (tmp_path / "mine-2.yaml").write_text(GOOD)
    prompt = load_prompt(str(tmp_path / "mine-2.yaml"))
    assert (prompt.name, prompt.messages("x")[-1].content) == ("mine-2", "Say x")
    (tmp_path / "other.yaml").write_text(GOOD.replace("one boat", "two boats"))
    assert load_prompt(str(tmp_path / "other.yaml")).fingerprint() != prompt.fingerprint()


@pytest.mark.parametrize("text", ["- a list", "system: x", GOOD.replace("{caption}'", "it'"), "{"])
def test_a_bad_prompt_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UserError, match="bad"):
        load_prompt(str(tmp_path / "bad.yaml"))


def test_an_unknown_prompt_names_those_there_are() -> None:
    with pytest.raises(UserError, match="rewrite-1"):
        load_prompt("nothing")
