from collections import Counter
from pathlib import Path

import pytest

from sclmkb.common.errors import UserError
from sclmkb.generate.filter.text import FUNCTION_STEMS, words
from sclmkb.generate.prompts import load_prompt, shipped_prompts

GOOD = "system: Rewrite.\nuser: 'Say {caption}'\nexamples:\n- {caption: a boat, answer: one boat}\n"


def test_messages_end_with_the_caption_and_start_the_same_for_all() -> None:
    prompt = load_prompt("rewrite-1")
    first, second = prompt.messages("a {caption} in braces"), prompt.messages("a cat")
    assert first[:-1] == second[:-1]
    assert first[-1].content.endswith("a {caption} in braces")
    assert [m.role for m in first] == ["system", *["user", "assistant"] * len(prompt.examples), "user"]


ATTRIBUTES = (
    "red orange yellow green blue purple pink brown black white grey gray dark light bright colored striped plain"
    " one two three four five once twice several many left right front back up down upper lower forward backward"
    " big small large little tall short long young old not without no wooden metal leather cotton"
)
PEOPLE = (
    "  man woman person people human male female boy girl lady guy someone somebody child he she his her"
    " face hair skin head hand arm leg foot body beard"
)
GARMENTS = (
    "  shirt jacket coat dress skirt trousers pants jeans shorts shoes boots sneakers bag backpack purse"
    " hat cap glasses umbrella phone bicycle"
)
MOTION = (
    "  walk run jump turn kick wave dance throw step stand sit kneel crawl climb swim lift raise bend"
    " stretch fast slow circle move push pull"
)
SOUNDS = (
    "  rain wind water bird engine car train traffic door bell music voice talk speak sing dog cat insect"
    " machine footstep hum buzz ring knock crash loud quiet noise sound"
)


def content_words(text: str) -> list[str]:
    """The words of a text that a caption could be about; function words and forms of "be" and "have" are not."""
    return [w for w in words(text) if w.isalpha() and w[:4] not in FUNCTION_STEMS]


TASKS = {
    "rewrite-1": PEOPLE,
    "person-1": PEOPLE + GARMENTS,
    "motion-1": PEOPLE + MOTION,
    "audio-1": PEOPLE + SOUNDS,
}


@pytest.mark.parametrize("name", shipped_prompts())
def test_shipped_examples_are_from_another_domain(name: str) -> None:
    """What the examples hold turns up in answers: it must not be what a caption of the task could say."""
    of_the_task = {w + end for w in (TASKS[name] + ATTRIBUTES).split() for end in ("", "s", "es", "ed", "ing")}
    assert not of_the_task & {w for pair in load_prompt(name).examples for text in pair for w in content_words(text)}


@pytest.mark.parametrize(
    ("name", "pattern"), [("motion-1", "kit_ml/annotations.json"), ("audio-1", "clotho/clotho_captions_*.csv")]
)
def test_examples_share_hardly_a_word_with_real_captions(name: str, pattern: str) -> None:
    files = sorted((Path(__file__).parents[3] / "shared" / "data").glob(pattern))
    if not files:
        pytest.skip("no real captions in ../shared/data")
    counts = Counter(w for path in files for w in content_words(path.read_text("latin-1")))
    total = counts.total()
    for word in {w for pair in load_prompt(name).examples for text in pair for w in content_words(text)}:
        assert counts[word] < 3e-4 * total, word


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
    with pytest.raises(UserError, match="rewrite-1"):
        load_prompt("nothing")
