"""ESC-10: environmental sounds of ten classes in folds, with the titles that their authors gave them on Freesound.

::

    ROOT/captions.jsonl             {"file", "label", "title", "author", "licence", "fold"}, one line per sound
    ROOT/001-Dog_bark/1-30226-A.ogg fold, number of the recording on Freesound, part of it

The identity is the class within a split: a caption matches every sound of its class. Folds keep the parts of one
recording together, which are one ``group``. The label, worded as in training, and a sentence are told once per class.
The words of a recording's title are told outside training only, if they are not just the label or another's title.
"""

import re
from pathlib import PurePosixPath
from typing import Any

from pydantic import Field, model_validator

from sclmkb.generate.corpora.reader import Entry, Problem, ReaderSettings
from sclmkb.generate.corpora.records import Place, RecordReader

WORDINGS = ("label", "sentence", "title")
"""How captions are worded; training knows the first one alone."""

_SENTENCES = {
    "dog bark": "a dog is barking",
    "rain": "rain falls steadily on the ground",
    "sea waves": "the sea rolls onto a beach",
    "baby cry": "an infant is crying",
    "clock tick": "an old clock goes tick tock",
    "person sneeze": "somebody has to sneeze",
    "helicopter": "the rotor of a helicopter flying overhead",
    "chainsaw": "somebody saws wood with a motor saw",
    "rooster": "a cock crows in the morning",
    "fire crackling": "a log fire burns and crackles",
}
_SUFFIX = re.compile(r"\.(wav|aiff?|mp3|flac|ogg)$", re.IGNORECASE)
_ESCAPE = re.compile(r"\\u[0-9a-fA-F]{4}")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_WORD = re.compile(r"[^\W\d_]+(?:'[a-z]+)?")


class Esc10Settings(ReaderSettings):
    """Settings of the reader of ESC-10."""

    val_fold: int = Field(default=2, ge=1, description="fold for validation")
    test_fold: int = Field(default=3, ge=1, description="fold for test; all other folds are for training")

    @model_validator(mode="after")
    def _two_folds(self) -> "Esc10Settings":
        if self.val_fold == self.test_fold:
            raise ValueError("val_fold and test_fold must differ")
        return self


class Esc10(RecordReader):
    """ESC-10 with titles."""

    name = "esc10"
    title = "ESC-10"
    table = "captions.jsonl"
    address = "https://github.com/karolpiczak/ESC-10 (sounds), freesound.org (titles)"
    licence = "Creative Commons Attribution 3.0 as a set (Karol J. Piczak); each sound that of its author"
    shares_captions = True
    modality = "audio"
    settings_type = Esc10Settings
    settings: Esc10Settings

    def entry(self, record: dict[str, Any], place: Place) -> Entry | Problem:
        """Return a sound with the captions of its class and its recording."""
        if not all(record.get(name) for name in ("file", "label", "fold")):
            return Problem(reason="has no 'file', 'label' and 'fold'")
        file, label = str(record["file"]), str(record["label"]).lower()
        split = {self.settings.val_fold: "val", self.settings.test_fold: "test"}.get(record["fold"], "train")
        captions: list[tuple[int, object]] = [(0, label)]
        if split != "train":
            captions.append((1, _SENTENCES.get(label, f"the sound of {label}")))
            if words := title_words(str(record.get("title") or "")):
                captions.append((2, words))
        return Entry(
            item_id=PurePosixPath(file).stem,
            identity=f"{split}/{label}",
            group=_recording(file),
            split=split,
            captions=tuple(captions),
            source=f"{record.get('author', '')} ({record.get('licence', '')})",
            media=file,
            wording=dict(enumerate(WORDINGS)),
        )


def _recording(file: str) -> str:
    """Return the recording of ``FOLD-RECORDING-PART``; another name stands for itself."""
    parts = PurePosixPath(file).stem.split("-")
    return f"freesound {parts[1]}" if len(parts) == 3 else PurePosixPath(file).stem


def title_words(title: str) -> str:
    """Return the words of a Freesound title, in lower case; empty if it holds none of three letters.

    Example:
        >>> title_words("20091211.barking.stairs.wav")
        'barking stairs'
        >>> title_words("Fire_Crackles(No Room).wav")
        'fire crackles no room'
        >>> title_words("FireBurning_v2.wav")
        'fire burning'
        >>> title_words("002.wav")
        ''
    """
    plain = _ESCAPE.sub("", _SUFFIX.sub("", title.strip()))
    words = [word.lower() for word in _WORD.findall(_CAMEL.sub(" ", plain))]
    words = [word for word in words if len(word) > 1 or word == "a"]
    return " ".join(words) if any(len(word) > 2 for word in words) else ""
