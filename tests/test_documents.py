"""The documents are plain: short sentences, and every file that they name exists."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"), ROOT / "deploy/README.md"]
)
PROSE = [page for page in PAGES if "adr" not in page.parts]
MOST_WORDS = 40
ROOMS = ("common", "generate", "train", "evaluate", "tests", "docs", "deploy")


def paragraphs(text: str) -> Iterator[str]:
    """Yield paragraphs and items of lists, without code, tables, headings and markup."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for block in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )", text):
        lines = [line for line in block.splitlines() if not line.startswith(("|", "#", "    ", "<"))]
        joined = re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", " ".join(lines))
        yield re.sub(r"`[^`]*`", "CODE", joined)


def sentences(text: str) -> Iterator[str]:
    for paragraph in paragraphs(text):
        yield from re.split(r"(?<=[.!?])[\"')*]*\s+(?=[\"'(*]*[A-Z0-9.])", paragraph)


def long_sentences(text: str) -> list[str]:
    return [s for s in sentences(text) if sum(any(map(str.isalnum, word)) for word in s.split()) > MOST_WORDS]


@pytest.mark.parametrize("page", PROSE, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_sentence_is_long(page: Path) -> None:
    assert long_sentences(page.read_text("utf-8")) == []


def test_a_long_sentence_is_found() -> None:
    sentence = "A" + " word" * 40 + "."
    assert long_sentences(f"Short one. {sentence} `Another` one.\n\n| " + "cell " * 50) == [sentence]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_file_that_is_named_exists(page: Path) -> None:
    text = page.read_text("utf-8")
    named = set(re.findall(rf"(?<![\w/.-])((?:{'|'.join(ROOMS)})/[\w/.-]*\.(?:py|md|yaml|txt|sh|j2|json))\b", text))
    linked = {link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link}
    missing = {name for name in named if not (ROOT / name).exists()}
    assert missing | {link for link in linked if not (page.parent / link).exists()} == set()
