"""KIT Motion-Language: human motion with descriptions, in TMR's annotation file or in Text2Motion's text files.

::

    ROOT/annotations.json       {id: {"annotations": [{"text", ...}], ...}}      TMR, with ROOT/splits/SPLIT.txt
    ROOT/texts/ID.txt           text#word/POS word/POS#from#to, one line per text  Text2Motion, with ROOT/SPLIT.txt
    ROOT/new_joint_vecs/ID.npy  features [frames, 251]

The identity is the motion. An id that begins with M is the mirrored copy of another one: it stays in the split of its
original, whose id is their common group.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from sclmkb.common.modalities.motion import motion_problem
from sclmkb.generate.corpora.readers.base import SPLITS, Entry, Problem, Reader, ReaderSettings
from sclmkb.generate.corpora.readers.entries import Broken, json_entries, read_text

ANNOTATIONS = "annotations.json"
TEXTS = "texts"
FEATURES = "new_joint_vecs"
NUM_FEATURES = 251
FRAMES_PER_SECOND = 12.5

Place = tuple[str, int]
"""A file and a line in it."""


class KitMlSettings(ReaderSettings):
    """Settings of the KIT-ML reader."""

    mirrored: bool = Field(
        default=True,
        description="whether mirrored copies are read, as in the protocol; their texts are often the originals'",
    )


class KitMl(Reader):
    """KIT-ML as TMR and Text2Motion use it."""

    name = "kit-ml"
    title = "KIT Motion-Language"
    address = (
        "https://github.com/Mathux/TMR (annotations, splits) and https://github.com/EricGuo5513/HumanML3D (motion)"
    )
    licence = "research use, cite Plappert et al. 2016"
    modality = "motion"
    settings_type = KitMlSettings
    settings: KitMlSettings

    def annotation_files(self) -> Sequence[Path]:
        """Return the split lists and the annotation file, or the split lists alone beside the folder of texts."""
        lists = [self.require(self._list(split)) for split in self.settings.splits]
        if not self._has_json:
            if not (self.root / TEXTS).is_dir():
                self.require(self.root / ANNOTATIONS)
            lists += sorted((self.root / TEXTS).glob("*.txt"))
        else:
            lists.append(self.root / ANNOTATIONS)
        if self.settings.media != "none":
            self.require(self.root / FEATURES, is_media=True)
        return lists

    def notes(self) -> dict[str, Any]:
        """Return the frames per second of the features."""
        return {"frames_per_second": FRAMES_PER_SECOND} if self.settings.media != "none" else {}

    def entries(self) -> Iterator[Entry | Problem]:
        """Go through the annotation file, or through the split lists where every motion has a file of its own."""
        splits: dict[str, str] = {}
        places: dict[str, Place] = {}
        for split, item, file, row in self._listed():
            if item in splits:
                yield Problem(file=file, row=row, split=split, item=item, reason=f"listed in {splits[item]} already")
            else:
                splits[item], places[item] = split, (file, row)
        # A mirrored copy shares its original's motion, so it has to share its split.
        splits = {item: splits.get(item.removeprefix("M"), split) for item, split in splits.items()}
        for found in self._from_json(splits, places) if self._has_json else self._from_texts(splits, places):
            copy = isinstance(found, Entry) and found.item_id.startswith("M")
            if self.settings.mirrored or not copy:
                yield found

    @property
    def _has_json(self) -> bool:
        return (self.root / ANNOTATIONS).exists()

    def _list(self, split: str) -> Path:
        in_folder, beside = self.root / "splits" / f"{split}.txt", self.root / f"{split}.txt"
        return beside if beside.exists() and not in_folder.exists() else in_folder

    def _listed(self) -> Iterator[tuple[str, str, str, int]]:
        """Go through the lists that are there: split, id, file and line."""
        for split in SPLITS:
            path = self._list(split)
            if path.exists():
                for row, line in enumerate(read_text(path, self.settings.encoding).splitlines(), start=1):
                    if item := line.strip():
                        yield split, item, self.relative(path), row

    def _from_json(self, splits: dict[str, str], places: dict[str, Place]) -> Iterator[Entry | Problem]:
        text = read_text(self.root / ANNOTATIONS, self.settings.encoding)
        listed_all = all(self._list(split).exists() for split in SPLITS)
        seen = set()
        for row, item, value in json_entries(text):
            seen.add(item)
            split = splits.get(item, "")
            reason = ""
            if isinstance(value, Broken):
                reason = value.reason
            elif not split:
                reason = "in no list of a split" if listed_all else ""
            elif not isinstance(value, dict) or not isinstance(value.get("annotations"), list):
                reason = "'annotations' is missing or no list"
            else:
                texts = [note.get("text") if isinstance(note, dict) else None for note in value["annotations"]]
                yield self._entry(ANNOTATIONS, row, item, split, enumerate(texts))
            if reason:
                yield Problem(file=ANNOTATIONS, row=row, split=split, item=item, reason=reason)
        for item in (i for i in splits if i not in seen):
            file, row = places[item]
            yield Problem(file=file, row=row, split=splits[item], item=item, reason=f"not in {ANNOTATIONS}")

    def _from_texts(self, splits: dict[str, str], places: dict[str, Place]) -> Iterator[Entry | Problem]:
        for item, split in splits.items():
            file, row = places[item]
            path = self.root / TEXTS / f"{item}.txt"
            if not path.exists():
                reason = f"{self.relative(path)} is missing"
                yield Problem(file=file, row=row, split=split, item=item, reason=reason)
                continue
            lines = read_text(path, self.settings.encoding).splitlines()
            texts = [(i, line.rsplit("#", 3)[0]) for i, line in enumerate(lines) if line.strip()]
            yield self._entry(self.relative(path), 1, item, split, texts)

    def _entry(self, file: str, row: int, item: str, split: str, texts: Iterable[tuple[int, object]]) -> Entry:
        return Entry(
            file=file,
            row=row,
            split=split,
            item_id=item,
            identity=item,
            group=item.removeprefix("M"),
            source="mirrored" if item.startswith("M") else "recorded",
            captions=tuple(texts),
            media=f"{FEATURES}/{item}.npy",
        )

    def media_problem(self, entry: Entry, data: bytes) -> str:
        """Return what is wrong with the features of a motion."""
        return motion_problem(data, NUM_FEATURES)
