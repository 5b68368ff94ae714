"""Words of a text, as every rule of the filter sees them."""

import re
from pathlib import Path

from sclmkb.common.errors import UserError

_ARTICLES = {"a", "an", "the"}
_FUNCTION_WORDS = """
about across also and are as at be been being both by each for from has have having he her hers his in into is it its
itself made of on one onto other over she shown seen some that their them there these they this those through to two
under up upon was were what where which while who whose with without
"""
FUNCTION_STEMS = {word[:4] for word in _FUNCTION_WORDS.split()}
_WORD = re.compile(r"[a-z0-9]+")


def words(text: str) -> list[str]:
    """Return the words of a text, lower case, without articles and punctuation.

    Example:
        >>> words("A woman, climbing the rock-face.")
        ['woman', 'climbing', 'rock', 'face']
    """
    return [w for w in _WORD.findall(text.lower().replace("'", "").replace("’", "")) if w not in _ARTICLES]


def stem(word: str) -> str:
    """Return the first four letters: enough to see that "climbs" and "climbing" are the same."""
    return word[:4]


def read_own(path: Path, what: str) -> str:
    """Return the text of a file of one's own.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the {what} {path}: {error}") from None
