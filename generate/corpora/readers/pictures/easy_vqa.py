"""easy-VQA: drawn shapes of 64×64 pixels with questions of form and colour, from the PyPI package ``easy-vqa``.

::

    ROOT/{train,test}/questions.json    [[question, answer, number of the picture], ...]
    ROOT/{train,test}/images/N.png

ROOT is the package's folder ``data``, unless another is named. The identity is the picture. The official test is test.
Validation pictures, with all of their questions, are cut out of the official training split.
"""

from collections.abc import Iterator, Sequence
from importlib import util
from pathlib import Path
from typing import Literal

from pydantic import Field

from sclmkb.common.errors import UserError
from sclmkb.generate.corpora.readers.base import Entry, Problem, Reader
from sclmkb.generate.corpora.readers.entries import Broken, json_entries, read_text
from sclmkb.generate.corpora.readers.pictures.cut import CutSettings


class EasyVqaSettings(CutSettings):
    """Settings of the reader of easy-VQA."""

    media: Literal["path", "embed", "none"] = Field(
        default="embed",
        description="embed: pictures as bytes in the artifact; path: by their path relative to the data's folder; "
        "none: texts alone",
    )
    shard_size: int | None = Field(default=1024, ge=1, description="pictures per shard")


class EasyVqa(Reader):
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

    def annotation_files(self) -> Sequence[Path]:
        """Return the questions of each official split that is asked for."""
        found = [self.require(self.root / part / "questions.json") for part in self._parts()]
        for part in self._parts() if self.settings.media != "none" else ():
            self.require(self.root / part / "images", is_media=True)
        return found

    def entries(self) -> Iterator[Entry | Problem]:
        """Go through the questions; each is an entry of its picture."""
        for part in self._parts():
            file = f"{part}/questions.json"
            for row, _, value in json_entries(read_text(self.root / file, self.settings.encoding)):
                if isinstance(value, Broken):
                    yield Problem(file=file, row=row, reason=value.reason)
                elif not isinstance(value, list) or len(value) != 3:
                    yield Problem(file=file, row=row, reason="is no list of question, answer and picture")
                else:
                    question, answer, number = value
                    item = f"{part}/{number}"
                    yield Entry(
                        file=file,
                        row=row,
                        split=self.settings.train_or_val(item) if part == "train" else part,
                        item_id=item,
                        identity=item,
                        group=item,
                        captions=((0, question), (1, answer)),
                        role={0: "question", 1: "answer"},
                        media=f"{part}/images/{number}.png",
                    )

    def _parts(self) -> list[str]:
        asked = self.settings.splits
        return [part for part, splits in (("train", ("train", "val")), ("test", ("test",))) if set(splits) & set(asked)]
