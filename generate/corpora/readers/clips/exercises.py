"""Exercises (free-exercise-db): two photos each of a person exercising, start and end, as a clip of two frames.

::

    ROOT/exercises.jsonl    {"frames": [2], "name", "equipment", "muscles": [...], "instructions": [...], "split"}
    ROOT/images/NAME.jpg    as the field frames says: the start and the end

The identity is the exercise. Its name is the caption (wording ``label``); outside training the instructions are another
one (``instructions``). Equipment and muscles are answers to a question each. A clip is written as an animated WebP.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from PIL import Image
from pydantic import Field

from sclmkb.common.artifacts.schemas import WORDING
from sclmkb.common.errors import first_line
from sclmkb.generate.corpora.readers.base import Entry, Problem, Reader, ReaderSettings
from sclmkb.generate.corpora.readers.entries import Broken, json_lines, read_text

EXERCISES = "exercises.jsonl"
EQUIPMENT, MUSCLES = "what equipment is used", "which muscles are trained"
"""What is asked of each exercise."""


class ExercisesSettings(ReaderSettings):
    """Settings of the reader of exercises."""

    media: Literal["embed", "none"] = Field(
        default="embed",
        description="embed: clips as WebP bytes in the artifact; none: texts alone. The clips have no files of their "
        "own",
    )


class Exercises(Reader):
    """Exercises as clips of two frames."""

    name = "exercises"
    title = "free-exercise-db"
    address = "https://github.com/yuhonas/free-exercise-db"
    licence = "Unlicense"
    modality = "video"
    settings_type = ExercisesSettings

    def annotation_files(self) -> Sequence[Path]:
        """Return the table of exercises."""
        return [self.require(self.root / EXERCISES)]

    def entries(self) -> Iterator[Entry | Problem]:
        """Go through the exercises."""
        for row, value in json_lines(read_text(self.root / EXERCISES, self.settings.encoding)):
            if isinstance(value, Broken):
                yield Problem(file=EXERCISES, row=row, reason=value.reason)
            elif not isinstance(value, dict) or not _are_two(value.get("frames")) or not value.get("name"):
                yield Problem(file=EXERCISES, row=row, reason="has no 'name' and two 'frames'")
            else:
                item = PurePosixPath(value["frames"][0]).stem.removesuffix("_0")
                self._frames.setdefault(item, value["frames"])
                yield _entry(row, item, value)

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


def _entry(row: int, item: str, value: Mapping[str, Any]) -> Entry:
    split = str(value.get("split"))
    texts = [("caption", "label", value["name"])]
    if split != "train" and value.get("instructions"):
        texts.append(("caption", "instructions", " ".join(str(step) for step in value["instructions"])))
    for question, answers in ((EQUIPMENT, [value.get("equipment")]), (MUSCLES, value.get("muscles") or [])):
        if given := [answer for answer in answers if answer]:
            texts += [("question", WORDING, question), *(("answer", WORDING, answer) for answer in given)]
    return Entry(
        file=EXERCISES,
        row=row,
        split=split,
        item_id=item,
        identity=item,
        group=item,
        captions=tuple((index, text) for index, (_, _, text) in enumerate(texts)),
        media=f"{item}.webp",
        wording={index: wording for index, (_, wording, _) in enumerate(texts)},
        role={index: role for index, (role, _, _) in enumerate(texts)},
    )
