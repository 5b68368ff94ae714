"""Exercises (free-exercise-db): two photos each of a person exercising, start and end, as a clip of two frames.

::

    ROOT/exercises.jsonl    {"frames": [2], "name", "equipment", "muscles": [...], "instructions": [...], "split"}
    ROOT/images/NAME.jpg    as the field frames says: the start and the end

The identity is the exercise. Its name is the caption (wording ``label``); outside training the instructions are another
one (``instructions``). Equipment and muscles are answers to a question each. A clip is written as an animated WebP.
"""

import io
from collections.abc import Mapping
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, Literal

from PIL import Image
from pydantic import Field

from sclmkb.common.artifacts.schemas import WORDING
from sclmkb.common.errors import first_line
from sclmkb.generate.corpora.reader import Entry, Problem, ReaderSettings
from sclmkb.generate.corpora.records import Place, RecordReader

EQUIPMENT, MUSCLES = "what equipment is used", "which muscles are trained"
"""What is asked of each exercise."""


class ExercisesSettings(ReaderSettings):
    """Settings of the reader of exercises."""

    media: Literal["embed", "none"] = Field(
        default="embed",
        description="embed: clips as WebP bytes in the artifact; none: texts alone. The clips have no files of their "
        "own",
    )


class Exercises(RecordReader):
    """Exercises as clips of two frames."""

    name = "exercises"
    title = "free-exercise-db"
    table = "exercises.jsonl"
    address = "https://github.com/yuhonas/free-exercise-db"
    licence = "Unlicense"
    modality = "video"
    settings_type = ExercisesSettings

    def entry(self, record: dict[str, Any], place: Place) -> Entry | Problem:
        """Return an exercise."""
        if not record.get("name") or not _are_two(record.get("frames")):
            return Problem(reason="has no 'name' and two 'frames'")
        item = PurePosixPath(record["frames"][0]).stem.removesuffix("_0")
        self._frames.setdefault(item, record["frames"])
        texts = _texts(record, str(record.get("split")))
        return Entry(
            item_id=item,
            identity=item,
            group=item,
            split=str(record.get("split")),
            captions=tuple((index, text) for index, (_, _, text) in enumerate(texts)),
            media=f"{item}.webp",
            wording={index: wording for index, (_, wording, _) in enumerate(texts)},
            role={index: role for index, (role, _, _) in enumerate(texts)},
        )

    def read_media(self, entry: Entry) -> bytes:
        """Return both photos as one animated WebP; the second one is scaled to the size of the first."""
        try:
            start, end = (self._photo(name) for name in self._frames[entry.item_id])
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise OSError(f"cannot be made of its photos ({first_line(error)})") from None
        file = io.BytesIO()
        start.save(file, "WEBP", save_all=True, append_images=[end.resize(start.size)], duration=1000, quality=90)
        return file.getvalue()

    def _photo(self, name: str) -> Image.Image:
        if not (path := (self.root / name).resolve()).is_relative_to(self.root.resolve()):
            raise PermissionError(f"{name} lies outside the data's folder")
        with Image.open(path) as photo:
            return photo.convert("RGB")

    @cached_property
    def _frames(self) -> dict[str, list[str]]:
        """The two photos of each exercise, as far as the table was read."""
        return {}


def _are_two(frames: object) -> bool:
    return isinstance(frames, list) and len(frames) == 2 and all(isinstance(name, str) for name in frames)


def _texts(record: Mapping[str, Any], split: str) -> list[tuple[str, str, object]]:
    """Return role, wording and text of all that is said of an exercise."""
    texts: list[tuple[str, str, object]] = [("caption", "label", record["name"])]
    if split != "train" and record.get("instructions"):
        texts.append(("caption", "instructions", " ".join(str(step) for step in record["instructions"])))
    for question, answers in ((EQUIPMENT, [record.get("equipment")]), (MUSCLES, record.get("muscles") or [])):
        if given := [answer for answer in answers if answer]:
            texts += [("question", WORDING, question), *(("answer", WORDING, answer) for answer in given)]
    return texts
