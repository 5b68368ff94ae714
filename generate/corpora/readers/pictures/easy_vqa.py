"""easy-VQA: drawn shapes of 64×64 pixels with questions of form and colour, from the PyPI package ``easy-vqa``.

::

    ROOT/{train,test}/questions.json    [[question, answer, number of the picture], ...]
    ROOT/{train,test}/images/N.png

ROOT is the package's folder ``data``, unless another is named. The identity is the picture. The official test is test.
Validation pictures, with all of their questions, are cut out of the official training split.
"""

from collections.abc import Iterator, Sequence
from importlib import util
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import Field

from sclmkb.common.errors import UserError
from sclmkb.generate.corpora.reader import Entry, Problem
from sclmkb.generate.corpora.readers.pictures.cut import CutSettings
from sclmkb.generate.corpora.records import Place, RecordReader


class EasyVqaSettings(CutSettings):
    """Settings of the reader of easy-VQA."""

    media: Literal["path", "embed", "none"] = Field(
        default="embed",
        description="embed: pictures as bytes in the artifact; path: by their path relative to the data's folder; "
        "none: texts alone",
    )
    shard_size: int | None = Field(default=1024, ge=1, description="pictures per shard")


class EasyVqa(RecordReader):
    """easy-VQA 1.0."""

    name = "easy-vqa"
    title = "easy-VQA"
    address = "the PyPI package easy-vqa (pip install easy-vqa)"
    licence = "MIT, Victor Zhou"
    modality = "pictures"
    merges_rows = True
    settings_type = EasyVqaSettings
    settings: EasyVqaSettings

    @classmethod
    def find_root(cls) -> Path:
        """Return the folder ``data`` of the installed package.

        Raises:
            UserError: if it is not installed.
        """
        spec = util.find_spec("easy_vqa")
        if spec is None or spec.origin is None:
            raise UserError(
                "corpus easy-vqa needs the package easy-vqa: pip install easy-vqa, or name its data by --root"
            )
        return Path(spec.origin).parent / "data"

    def tables(self) -> Sequence[tuple[Path, str]]:
        """Return the questions of each official split that is asked for; validation is part of the training one."""
        asked = set(self.settings.splits)
        parts = {"train": {"train", "val"}, "test": {"test"}}
        return [(self.root / part / "questions.json", "") for part, splits in parts.items() if splits & asked]

    def media_folders(self) -> Sequence[Path]:
        """Return the folder of each official split's pictures."""
        return [path.parent / "images" for path, _ in self.tables()]

    def records(self, path: Path) -> Iterator[tuple[int, Any]]:
        """Go through the questions, each a list of question, answer and number of the picture."""
        for row, record in super().records(path):
            if isinstance(record, list):
                yield row, dict(zip(("question", "answer", "number"), record, strict=False))
            else:
                yield row, record

    def entry(self, record: dict[str, Any], place: Place) -> Entry | Problem:
        """Return a question as an entry of its picture."""
        if "number" not in record:
            return Problem(reason="is no list of question, answer and number of the picture")
        part, number = PurePosixPath(place.file).parts[0], record["number"]
        item = f"{part}/{number}"
        return Entry(
            item_id=item,
            identity=item,
            group=item,
            split=self.settings.train_or_val(item) if part == "train" else part,
            captions=((0, record["question"]), (1, record["answer"])),
            role={0: "question", 1: "answer"},
            media=f"{part}/images/{number}.png",
        )
