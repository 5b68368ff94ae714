"""Bandai-Namco Research Motiondataset as joint positions: every clip one content in one style, without sentences.

::

    ROOT/meta.jsonl      {"id", "content", "style", "fps"}, one line per clip
    ROOT/joints.npz      id ─► joints [frames, J, 3]
    ROOT/skeleton.json   {"joints": names, "parents": of each joint, -1 for the root}

The identity is the pair of content and style. A pair's clips are near copies of each other, so a pair stays in one
split. Captions are made from the two labels: one caption per wording and pair.
"""

import hashlib
import io
import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from sclmkb.common.errors import UserError
from sclmkb.common.modalities.motion import read_motion
from sclmkb.generate.corpora.reader import Entry, Problem, ReaderSettings
from sclmkb.generate.corpora.records import Place, RecordReader, read_text

META, JOINTS, SKELETON = "meta.jsonl", "joints.npz", "skeleton.json"
WORDINGS = ("label", "sentence", "everyday")
"""How captions are worded; training knows the first one alone."""

_GERUNDS = {"raise": "raising", "run": "running", "walk": "walking", "wave": "waving", "dance": "dancing"}
_EVERYDAY = {
    "raise-up-both-hands": "puts two arms up",
    "raise-up-left-hand": "puts the left arm up",
    "raise-up-right-hand": "puts the right arm up",
    "run": "jogs along",
    "walk": "goes ahead step by step",
    "walk-turn-left": "goes ahead, then round to the left",
    "walk-turn-right": "goes ahead, then round to the right",
    "wave-both-hands": "greets with two arms",
    "wave-left-hand": "greets with the left arm",
    "wave-right-hand": "greets with the right arm",
}
_LIKE = {
    "active": "full of energy",
    "elderly": "as old people do",
    "exhausted": "worn out and tired",
    "feminine": "like a woman",
    "masculine": "like a man",
    "normal": "as one usually does",
    "youthful": "as young people do",
}


class BandaiMotionSettings(ReaderSettings):
    """Settings of the reader of Bandai-Namco motion."""

    media: Literal["embed", "none"] = Field(
        default="embed",
        description="embed: joints as `.npy` bytes in the artifact; none: captions alone. The clips have no files of "
        "their own",
    )
    seed: int = Field(default=0, description="seed of the split")
    val_share: float = Field(default=0.15, gt=0, lt=1, description="share of the pairs for validation")
    test_share: float = Field(default=0.25, gt=0, lt=1, description="share of the pairs for test")

    @model_validator(mode="after")
    def _some_training(self) -> "BandaiMotionSettings":
        if self.val_share + self.test_share >= 1:
            raise ValueError("val_share + test_share must leave something for training")
        return self


class BandaiMotion(RecordReader):
    """Bandai-Namco motion as joints with a content and a style."""

    name = "bandai-motion"
    title = "Bandai-Namco Research Motiondataset"
    table = META
    address = "https://github.com/BandaiNamcoResearchInc/Bandai-Namco-Research-Motiondataset (joints made of its BVH)"
    licence = "CC BY-NC 4.0, Bandai Namco Research Inc."
    shares_captions = True
    modality = "motion"
    settings_type = BandaiMotionSettings
    settings: BandaiMotionSettings

    def annotation_files(self) -> Sequence[Path]:
        """Return the labels, and with media the skeleton and the joints."""
        names = (META,) if self.settings.media == "none" else (META, SKELETON, JOINTS)
        return [self.require(self.root / name, is_media=name == JOINTS) for name in names]

    def notes(self) -> dict[str, Any]:
        """Return the frames per second and the skeleton."""
        if self.settings.media == "none":
            return {}
        return {"frames_per_second": self._frames_per_second, "skeleton": self._skeleton}

    def entry(self, record: dict[str, Any], place: Place) -> Entry | Problem:
        """Return a clip with the captions of its pair."""
        clip, pair = str(record.get("id") or ""), _pair(record)
        if not clip or not pair:
            return Problem(reason="has no 'id', 'content' and 'style'", item=clip)
        if record.get("fps") != self._frames_per_second:
            reason = f"has {record.get('fps')} frames a second where others have {self._frames_per_second}"
            return Problem(reason=reason, item=clip)
        split = self._split_of[pair]
        captions = write_captions(str(record["content"]), str(record["style"]))
        return Entry(
            item_id=clip,
            identity=pair,
            group=pair,
            split=split,
            captions=tuple(enumerate(captions[:1] if split == "train" else captions)),
            source=str(record.get("dataset") or ""),
            media=f"{clip}.npy",
            wording=dict(enumerate(WORDINGS)),
        )

    def read_media(self, entry: Entry) -> bytes:
        """Return the joints of a clip as a ``.npy`` file."""
        if entry.item_id not in self._joints:
            raise FileNotFoundError(f"not in {JOINTS}")
        buffer = io.BytesIO()
        try:
            np.save(buffer, self._joints[entry.item_id], allow_pickle=False)
        except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise OSError(f"cannot be read from {JOINTS} ({error})") from None
        return buffer.getvalue()

    def media_problem(self, entry: Entry, data: bytes) -> str:
        """Return what is wrong with the joints of a clip."""
        try:
            shape, joints = read_motion(data).shape, len(self._skeleton["parents"])
        except ValueError as error:
            return str(error)
        return "" if shape[1:] == (joints, 3) else f"joints have shape {list(shape)}, not [frames, {joints}, 3]"

    @cached_property
    def _records(self) -> list[dict[str, Any]]:
        return [record for _, record in self.records(self.root / META) if isinstance(record, dict)]

    @cached_property
    def _frames_per_second(self) -> float:
        rates = [record.get("fps") for record in self._records]
        counts = Counter(float(rate) for rate in rates if isinstance(rate, int | float) and rate > 0)
        if not counts:
            raise UserError(f"{self.root / META} says nowhere how many frames a second ('fps') there are")
        return counts.most_common(1)[0][0]

    @cached_property
    def _skeleton(self) -> dict[str, Any]:
        text = read_text(self.root / SKELETON, self.settings.encoding)
        try:
            found = json.loads(text)
            parents = [int(parent) for parent in found["parents"]]
            return {"joints": [str(name) for name in found.get("joints", ())], "parents": parents}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{self.root / SKELETON} does not say the 'parents' of the joints") from None

    @cached_property
    def _joints(self) -> Mapping[str, Any]:
        try:
            found = np.load(self.root / JOINTS, allow_pickle=False)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            found = None
        if not isinstance(found, np.lib.npyio.NpzFile):
            raise UserError(f"{self.root / JOINTS} is no NumPy archive")
        return found

    @cached_property
    def _split_of(self) -> dict[str, str]:
        """Put the pairs in an order that is a hash of seed and pair: the first go to test, the next to val."""
        pairs = {pair for record in self._records if (pair := _pair(record))}
        seed = self.settings.seed
        order = sorted(pairs, key=lambda pair: hashlib.sha256(f"{seed}\x1f{pair}".encode()).digest())
        num_test = round(len(order) * self.settings.test_share)
        num_val = round(len(order) * self.settings.val_share)
        if not 0 < num_test + num_val < len(order):
            raise UserError(f"{len(order)} pairs of content and style in {self.root / META} are too few to split")
        named = ["test"] * num_test + ["val"] * num_val + ["train"] * (len(order) - num_test - num_val)
        return dict(zip(order, named, strict=True))


def _pair(record: Mapping[str, Any]) -> str:
    """Return content and style, empty if one is missing."""
    content, style = record.get("content"), record.get("style")
    return f"{content}/{style}" if content and style else ""


def write_captions(content: str, style: str) -> list[str]:
    """Return a caption of each of :data:`WORDINGS`.

    Example:
        >>> write_captions("walk-turn-left", "elderly")[0]
        'a person walks and turns left in an elderly manner'
        >>> write_captions("walk-turn-left", "elderly")[1]
        'in an elderly way, someone is walking and turning left'
        >>> write_captions("walk-turn-left", "elderly")[2]
        'somebody goes ahead, then round to the left, as old people do'
    """
    styled = f"{'an' if style[:1] in 'aeiou' else 'a'} {style}"
    does, doing = _phrase(content, _third_person), _phrase(content, _gerund)
    return [
        f"a person {does} in {styled} manner",
        f"in {styled} way, someone is {doing}",
        f"somebody {_EVERYDAY.get(content, does)}, {_LIKE.get(style, f'in {styled} mood')}",
    ]


def _phrase(content: str, inflect: Callable[[str], str]) -> str:
    """Turn a label such as ``raise-up-left-hand`` into words, its verbs inflected."""
    verb, *rest = content.split("-")
    if rest[:1] == ["turn"]:
        return " ".join([inflect(verb), "and", inflect("turn"), *rest[1:]])
    if rest[-2:] in (["left", "hand"], ["right", "hand"]):
        rest.insert(len(rest) - 2, "the")
    return " ".join([inflect(verb), *rest])


def _third_person(verb: str) -> str:
    return f"{verb}es" if verb.endswith(("s", "sh", "ch", "x")) else f"{verb}s"


def _gerund(verb: str) -> str:
    return _GERUNDS.get(verb, f"{verb}ing")
