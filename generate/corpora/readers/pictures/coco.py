"""The photos of COCO, with questions (VQAv2) or with captions.

::

    ROOT/v2_OpenEnded_mscoco_{train,val}2014_questions.json      {"questions": [{"question_id", "image_id", ...}]}
    ROOT/v2_mscoco_{train,val}2014_annotations.json              {"annotations": [{"question_id", "answers": [...]}]}
    ROOT/annotations/captions_{train,val}{2014,2017}.json        {"images": [...], "annotations": [...]}
    ROOT/dataset_coco.json                                       captions with Karpathy's splits
    ROOT/{train,val}{2014,2017}/NAME.jpg                         the photos, at the top or below images/

The identity is the photo. The official val is test, for the answers and captions of the official test are not public.
Validation photos are cut out of the official train by their number in COCO: the same photos for questions and captions.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from sys import intern
from typing import Any

from sclmkb.common.errors import UserError
from sclmkb.generate.corpora.reader import Entry, Problem, Reader
from sclmkb.generate.corpora.readers.pictures.cut import CutSettings
from sclmkb.generate.corpora.records import json_list, read_text

KARPATHY = "dataset_coco.json"
_SPLITS_OF = {"train": ("train", "val"), "val": ("test",)}
_KARPATHY_SPLITS = {"restval": "train"}


class CocoReader(Reader):
    """What the readers of COCO's photos share."""

    modality = "pictures"
    settings_type = CutSettings
    settings: CutSettings

    @property
    def parts(self) -> list[str]:
        """The official splits that are needed."""
        return [part for part, splits in _SPLITS_OF.items() if set(splits) & set(self.settings.splits)]

    def split_of(self, part: str, image: object) -> str:
        """Return the split of a photo of an official split."""
        return self.settings.train_or_val(f"coco/{image}") if part == "train" else "test"

    def photos(self, folder: str) -> str:
        """Return where the photos of a folder such as ``train2014`` lie, relative to the data's folder."""
        return f"images/{folder}" if (self.root / "images" / folder).is_dir() else folder

    def list_of(self, path: Path, name: str) -> Iterator[tuple[int, dict[str, Any] | Problem]]:
        """Go through the objects of a list in a JSON file."""
        for row, value in json_list(read_text(path, self.settings.encoding), name):
            if isinstance(value, dict):
                yield row, value
            else:
                reason = value.reason if isinstance(value, Problem) else f"no object but {type(value).__name__}"
                yield row, Problem(file=self.relative(path), row=row, reason=reason)

    def require_photos(self, folders: Sequence[str]) -> None:
        """Check that the folders of the photos are there, if photos are asked for."""
        for folder in folders if self.settings.media != "none" else ():
            self.require(self.root / self.photos(folder), is_media=True)


class Vqav2(CocoReader):
    """VQAv2 with all answers to each question."""

    name = "vqav2"
    title = "VQAv2"
    address = "https://visualqa.org/download.html"
    licence = "questions and answers: CC BY 4.0; photos: those of their Flickr authors"
    merges_rows = True

    def annotation_files(self) -> Sequence[Path]:
        """Return questions and answers of each official split that is needed."""
        self.require_photos([f"{part}2014" for part in self.parts])
        return [self.require(path) for part in self.parts for path in (self._questions(part), self._answers(part))]

    def entries(self) -> Iterator[Entry | Problem]:
        """Go through the questions; each is an entry of its photo."""
        for part in self.parts:
            answers: dict[object, tuple[str, ...]] = {}
            for row, found in self.list_of(self._answers(part), "annotations"):
                if isinstance(found, Problem):
                    yield found
                elif (given := _answers_in(found)) is None:
                    file = self.relative(self._answers(part))
                    yield Problem(file=file, row=row, reason="has no 'question_id' and no list 'answers' of 'answer'")
                else:
                    answers[found["question_id"]] = given
            for row, found in self.list_of(self._questions(part), "questions"):
                yield found if isinstance(found, Problem) else self._entry(part, row, found, answers)

    def _entry(
        self, part: str, row: int, found: Mapping[str, Any], answers: Mapping[object, tuple[str, ...]]
    ) -> Entry | Problem:
        file, image, question = self.relative(self._questions(part)), found.get("image_id"), found.get("question_id")
        if not isinstance(image, int) or question is None:
            return Problem(file=file, row=row, reason="has no 'image_id' and 'question_id'")
        item = f"COCO_{part}2014_{image:012d}"
        if question not in answers:
            return Problem(file=file, row=row, item=item, reason=f"question {question} has no answers")
        texts = (found.get("question"), *answers[question])
        return Entry(
            file=file,
            row=row,
            split=self.split_of(part, image),
            item_id=item,
            identity=item,
            group=f"coco/{image}",
            captions=tuple(enumerate(texts)),
            role={place: "answer" if place else "question" for place in range(len(texts))},
            media=f"{self.photos(f'{part}2014')}/{item}.jpg",
        )

    def _questions(self, part: str) -> Path:
        return self.root / f"v2_OpenEnded_mscoco_{part}2014_questions.json"

    def _answers(self, part: str) -> Path:
        return self.root / f"v2_mscoco_{part}2014_annotations.json"


def _answers_in(found: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the answers of an annotation; None if it is not one."""
    try:
        hash(found["question_id"])
        return tuple(intern(str(one["answer"])) for one in found["answers"])
    except (KeyError, TypeError):
        return None


class CocoCaptions(CocoReader):
    """COCO captions: the official files, or Karpathy's one, with his splits."""

    name = "coco-captions"
    title = "COCO captions"
    address = (
        "https://cocodataset.org/#download (Karpathy's splits: https://cs.stanford.edu/people/karpathy/deepimagesent)"
    )
    licence = "captions: CC BY 4.0; photos: those of their Flickr authors"

    def annotation_files(self) -> Sequence[Path]:
        """Return Karpathy's file if it is there, or else those of each official split that is needed."""
        if (self.root / KARPATHY).exists():
            return [self.root / KARPATHY]
        self.require_photos([f"{part}{self._year}" for part in self.parts])
        return [self.require(self._captions(part)) for part in self.parts]

    def entries(self) -> Iterator[Entry | Problem]:
        """Go through the photos."""
        if (self.root / KARPATHY).exists():
            for row, found in self.list_of(self.root / KARPATHY, "images"):
                yield found if isinstance(found, Problem) else self._karpathy(row, found)
            return
        for part in self.parts:
            captions: dict[object, list[object]] = {}
            for row, found in self.list_of(self._captions(part), "annotations"):
                if isinstance(found, Problem):
                    yield found
                elif not isinstance(found.get("image_id"), int):
                    yield Problem(file=self.relative(self._captions(part)), row=row, reason="has no 'image_id'")
                else:
                    captions.setdefault(found["image_id"], []).append(found.get("caption"))
            for row, found in self.list_of(self._captions(part), "images"):
                yield found if isinstance(found, Problem) else self._official(part, row, found, captions)

    def _official(
        self, part: str, row: int, found: Mapping[str, Any], captions: Mapping[object, list[object]]
    ) -> Entry | Problem:
        file, image, name = self.relative(self._captions(part)), found.get("id"), found.get("file_name")
        if not isinstance(image, int) or not isinstance(name, str):
            return Problem(file=file, row=row, reason="has no 'id' and 'file_name'")
        media = f"{self.photos(f'{part}{self._year}')}/{name}"
        return _photo(file, row, self.split_of(part, image), image, captions.get(image, []), media)

    def _karpathy(self, row: int, found: Mapping[str, Any]) -> Entry | Problem:
        try:
            split, folder, name, image = (found[key] for key in ("split", "filepath", "filename", "cocoid"))
            captions = [sentence["raw"] for sentence in found["sentences"]]
        except (KeyError, TypeError):
            return Problem(
                file=KARPATHY, row=row, reason="has no 'split', 'filepath', 'filename', 'cocoid' and 'sentences'"
            )
        return _photo(
            KARPATHY,
            row,
            _KARPATHY_SPLITS.get(split, str(split)),
            image,
            captions,
            f"{self.photos(str(folder))}/{name}",
        )

    @cached_property
    def _year(self) -> int:
        years = [year for year in (2014, 2017) if any(self._captions(part, year).exists() for part in self.parts)]
        if not years:
            first = self._captions(self.parts[0], 2014)
            raise UserError(f"{first} is missing, and {KARPATHY} too: get {self.title} from {self.address}")
        return years[0]

    def _captions(self, part: str, year: int | None = None) -> Path:
        return self.root / "annotations" / f"captions_{part}{year or self._year}.json"


def _photo(file: str, row: int, split: str, image: object, captions: Sequence[object], media: str) -> Entry:
    return Entry(
        file=file,
        row=row,
        split=split,
        item_id=Path(media).stem,
        identity=Path(media).stem,
        group=f"coco/{image}",
        captions=tuple(enumerate(captions)),
        media=media,
    )
