"""KIT Motion-Language: human motion with descriptions, in TMR's annotation file or in Text2Motion's text files.

::

    ROOT/annotations.json       {id: {"annotations": [{"text", ...}], ...}}      TMR, with ROOT/splits/SPLIT.txt
    ROOT/texts/ID.txt           text#word/POS word/POS#from#to, one line per text  Text2Motion, with ROOT/SPLIT.txt
    ROOT/new_joint_vecs/ID.npy  features [frames, 251]

The identity is the motion. An id that begins with M is the mirrored copy of another one: it stays in the split of its
original, whose id is their common group.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from sclmkb.common.artifacts.schemas import SPLITS
from sclmkb.common.modalities.motion import motion_problem
from sclmkb.generate.corpora.reader import Entry, Problem, Reader, ReaderSettings
from sclmkb.generate.corpora.records import Place, json_entries, read_text

ANNOTATIONS = "annotations.json"
TEXTS = "texts"
FEATURES = "new_joint_vecs"
NUM_FEATURES = 251
FRAMES_PER_SECOND = 12.5


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
        listed: dict[str, Place] = {}
        for item, place in self._listed():
            if item in listed:
                yield _problem(f"listed in {listed[item].split} already", item, place)
            else:
                listed[item] = place
        # A mirrored copy shares its original's motion, so it has to share its split.
        places = {
            item: place._replace(split=listed.get(item.removeprefix("M"), place).split)
            for item, place in listed.items()
        }
        for found in self._from_json(places) if self._has_json else self._from_texts(places):
            copy = isinstance(found, Entry) and found.item_id.startswith("M")
            if self.settings.mirrored or not copy:
                yield found

    @property
    def _has_json(self) -> bool:
        return (self.root / ANNOTATIONS).exists()

    def _list(self, split: str) -> Path:
        in_folder, beside = self.root / "splits" / f"{split}.txt", self.root / f"{split}.txt"
        return beside if beside.exists() and not in_folder.exists() else in_folder

    def _listed(self) -> Iterator[tuple[str, Place]]:
        """Go through the lists that are there."""
        for split in SPLITS:
            path = self._list(split)
            if path.exists():
                for row, line in enumerate(read_text(path, self.settings.encoding).splitlines(), start=1):
                    if item := line.strip():
                        yield item, Place(self.relative(path), row, split)

    def _from_json(self, places: Mapping[str, Place]) -> Iterator[Entry | Problem]:
        text = read_text(self.root / ANNOTATIONS, self.settings.encoding)
        listed_all = all(self._list(split).exists() for split in SPLITS)
        seen = set()
        for row, item, value in json_entries(text):
            seen.add(item)
            place = Place(ANNOTATIONS, row, places[item].split if item in places else "")
            if isinstance(value, Problem):
                yield _problem(value.reason, item, place)
            elif not place.split:
                if listed_all:
                    yield _problem("in no list of a split", item, place)
            elif not isinstance(value, dict) or not isinstance(value.get("annotations"), list):
                yield _problem("'annotations' is missing or no list", item, place)
            else:
                texts = [note.get("text") if isinstance(note, dict) else None for note in value["annotations"]]
                yield _entry(item, place, enumerate(texts))
        for item, place in places.items():
            if item not in seen:
                yield _problem(f"not in {ANNOTATIONS}", item, place)

    def _from_texts(self, places: Mapping[str, Place]) -> Iterator[Entry | Problem]:
        for item, place in places.items():
            path = self.root / TEXTS / f"{item}.txt"
            if not path.exists():
                yield _problem(f"{self.relative(path)} is missing", item, place)
                continue
            lines = read_text(path, self.settings.encoding).splitlines()
            texts = [(i, line.rsplit("#", 3)[0]) for i, line in enumerate(lines) if line.strip()]
            yield _entry(item, Place(self.relative(path), 1, place.split), texts)

    def media_problem(self, entry: Entry, data: bytes) -> str:
        """Return what is wrong with the features of a motion."""
        return motion_problem(data, NUM_FEATURES)


def _entry(item: str, place: Place, texts: Iterable[tuple[int, object]]) -> Entry:
    return Entry(
        item_id=item,
        identity=item,
        group=item.removeprefix("M"),
        captions=tuple(texts),
        source="mirrored" if item.startswith("M") else "recorded",
        media=f"{FEATURES}/{item}.npy",
        **place._asdict(),
    )


def _problem(reason: str, item: str, place: Place) -> Problem:
    return Problem(reason=reason, item=item, **place._asdict())
