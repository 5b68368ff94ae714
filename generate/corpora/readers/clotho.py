"""Clotho: sounds with five captions each, in one CSV file per split.

::

    ROOT/clotho_captions_{development,validation,evaluation}.csv    file_name,caption_1,...,caption_5
    ROOT/{development,validation,evaluation}/NAME.wav               or below audio/ or clotho_audio_files/

The identity is the sound. Version 1 has no validation split (``splits=[train, test]``). Files that are not UTF-8 are
read as latin-1; columns other than these are ignored.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from sclmkb.common.errors import UserError
from sclmkb.generate.corpora.reader import Entry
from sclmkb.generate.corpora.records import Place, RecordReader

PARTS = {"train": "development", "val": "validation", "test": "evaluation"}
_CAPTIONS = tuple(f"caption_{number}" for number in range(1, 6))
_FOLDERS = ("", "audio", "clotho_audio_files")


class Clotho(RecordReader):
    """Clotho, versions 1 and 2."""

    name = "clotho"
    title = "Clotho"
    address = "https://zenodo.org/records/4783391"
    licence = "captions: Tampere University, non-commercial with attribution; sounds: a Creative Commons licence each"
    modality = "audio"
    fallback = "latin-1"

    def tables(self) -> Sequence[tuple[Path, str]]:
        """Return the CSV file of each split."""
        return [(self._table(split), split) for split in self.settings.splits]

    def media_folders(self) -> Sequence[Path]:
        """Return the folder of each split."""
        return list(self._folders.values())

    def annotation_files(self) -> Sequence[Path]:
        """Return the CSV files."""
        path = self._table("val")
        if "val" in self.settings.splits and not path.exists() and self._table("train").exists():
            raise UserError(
                f"{path} is missing: get {self.title} 2.1 from {self.address}, or leave the split out, as version 1"
                " does, with --set 'splits=[train, test]'"
            )
        return super().annotation_files()

    def entry(self, record: dict[str, Any], place: Place) -> Entry:
        """Return a sound with its five captions."""
        if missing := [name for name in ("file_name", *_CAPTIONS) if name not in record]:
            path = self.root / place.file
            raise UserError(f"{path} has no column '{missing[0]}': it is not the caption table of {self.title}")
        name = record["file_name"].strip()
        item = f"{PARTS[place.split]}/{name}" if name else ""
        return Entry(
            item_id=item,
            identity=item,
            group=item,
            split=place.split,
            captions=tuple(enumerate(record[column] for column in _CAPTIONS)),
            media=f"{self.relative(self._folders[place.split])}/{name}",
        )

    def _table(self, split: str) -> Path:
        return self.root / f"clotho_captions_{PARTS[split]}.csv"

    @cached_property
    def _folders(self) -> dict[str, Path]:
        """The folder of each split's sounds: the first there is, or else where it should be."""
        folders = {split: [self.root / name / PARTS[split] for name in _FOLDERS] for split in self.settings.splits}
        return {split: next(filter(Path.is_dir, found), found[0]) for split, found in folders.items()}
