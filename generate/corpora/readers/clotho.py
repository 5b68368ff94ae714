"""Clotho: sounds with five captions each, in one CSV file per split.

::

    ROOT/clotho_captions_{development,validation,evaluation}.csv    file_name,caption_1,...,caption_5
    ROOT/{development,validation,evaluation}/NAME.wav               or below audio/ or clotho_audio_files/

The identity is the sound. Version 1 has no validation split (``splits=[train, test]``). Files that are not UTF-8 are
read as latin-1; columns other than these are ignored.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from sclmkb.common.errors import UserError
from sclmkb.generate.corpora.readers.base import Entry, Problem, Reader
from sclmkb.generate.corpora.readers.entries import Broken, csv_rows, read_text

PARTS = {"train": "development", "val": "validation", "test": "evaluation"}
NUM_CAPTIONS = 5
_FOLDERS = ("", "audio", "clotho_audio_files")


class Clotho(Reader):
    """Clotho, versions 1 and 2."""

    name = "clotho"
    title = "Clotho"
    address = "https://zenodo.org/records/4783391"
    licence = "captions: Tampere University, non-commercial with attribution; sounds: a Creative Commons licence each"
    modality = "audio"

    def annotation_files(self) -> Sequence[Path]:
        """Return the CSV file of each split."""
        found = []
        for split in self.settings.splits:
            path = self._table(split)
            if split == "val" and not path.exists() and self._table("train").exists():
                raise UserError(
                    f"{path} is missing: get {self.title} 2.1 from {self.address}, or leave the split out, as version 1"
                    " does, with --set 'splits=[train, test]'"
                )
            found.append(self.require(path))
            if self.settings.media != "none" and self._folder(split) is None:
                self.require(self.root / PARTS[split], is_media=True)
        return found

    def entries(self) -> Iterator[Entry | Problem]:
        """Go through the tables."""
        for split in self.settings.splits:
            path = self._table(split)
            folder = self._folder(split)
            columns = [f"caption_{i + 1}" for i in range(NUM_CAPTIONS)]
            for row, record in csv_rows(read_text(path, self.settings.encoding, fallback="latin-1")):
                if isinstance(record, Broken):
                    yield Problem(file=path.name, row=row, split=split, reason=record.reason)
                    continue
                if missing := [name for name in ("file_name", *columns) if name not in record]:
                    raise UserError(f"{path} has no column '{missing[0]}': it is not the caption table of {self.title}")
                name = record["file_name"].strip()
                yield Entry(
                    file=path.name,
                    row=row,
                    split=split,
                    item_id=f"{PARTS[split]}/{name}" if name else "",
                    identity=f"{PARTS[split]}/{name}" if name else "",
                    group=f"{PARTS[split]}/{name}",
                    captions=tuple((i, record[column]) for i, column in enumerate(columns)),
                    media=f"{self.relative(folder) if folder else PARTS[split]}/{name}",
                )

    def _table(self, split: str) -> Path:
        return self.root / f"clotho_captions_{PARTS[split]}.csv"

    def _folder(self, split: str) -> Path | None:
        folders = [self.root / name / PARTS[split] for name in _FOLDERS]
        return next((folder for folder in folders if folder.is_dir()), None)
