"""Any Parquet, JSON lines, JSON, CSV or Hugging Face dataset, with a mapping of its columns.

::

    --root FILE | FOLDER | OWNER/NAME
      *.parquet *.jsonl *.json *.csv   one row per caption, or a list or several columns of captions
      save_to_disk folder, hub name    through the datasets library

The split of a row is, in this order: the mapped column, the split of the dataset, a word in the file's path (``train``,
``valid``, ``test`` and their like), and last a hash of its group.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sclmkb.common.artifacts.schemas import WORDING
from sclmkb.common.errors import UserError, first_line
from sclmkb.generate.corpora.readers.base import SPLITS, Entry, Problem, Reader
from sclmkb.generate.corpora.readers.entries import Broken, csv_rows, json_entries, json_lines, read_text
from sclmkb.generate.corpora.readers.parquet import read_cell
from sclmkb.generate.corpora.readers.table_settings import SPLIT_NAMES, TableSettings

SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".json", ".csv")
_ON_DISK = ("dataset_dict.json", "dataset_info.json")


class TableReader(Reader):
    """Captions in a table with any columns."""

    name = "table"
    title = "a table of captions"
    address = "wherever it is published"
    licence = "that of the data"
    settings_type = TableSettings
    settings: TableSettings
    merges_rows = True

    def annotation_files(self) -> Sequence[Path]:
        """Return the files of the table; none for a dataset on the hub."""
        if self._on_hub:
            if self.settings.media == "path":
                raise UserError(f"{self.root} is a dataset on the hub, without paths: --set media=embed")
            return []
        if self.root.is_file():
            return [self.root]
        if not self.root.exists():
            raise UserError(f"{self.root}: no such file or folder, and no name of a dataset (owner/name)")
        suffixes = (".arrow",) if self._on_disk else SUFFIXES
        found = sorted(path for path in self.root.rglob("*") if path.suffix.lower() in suffixes)
        if not found:
            raise UserError(f"{self.root} holds no {', '.join(s[1:] for s in SUFFIXES)} file and no saved dataset")
        return found

    def inputs(self) -> dict[str, str]:
        """Return a hash of every file, or the library's fingerprints of a dataset on the hub."""
        if self._on_hub:
            return {f"{self.root} {name}": str(dataset._fingerprint) for name, dataset in self._datasets.items()}
        return super().inputs()

    def notes(self) -> dict[str, Any]:
        """Return the frames per second of motion, as set."""
        rate = self.settings.frames_per_second
        return {} if rate is None else {"frames_per_second": rate}

    def entries(self) -> Iterator[Entry | Problem]:
        """Go through the rows."""
        if self._on_hub or self._on_disk:
            for name, dataset in self._datasets.items():
                self._check_columns(name, dataset.column_names)
                media = self.settings.columns.media
                with_media = media is not None and getattr(dataset.features[media], "dtype", "") == "string"
                rows = dataset.select_columns(self._columns(with_media))
                yield from (self._entry(name, name, row, value) for row, value in enumerate(rows, start=1))
            return
        for path in self.annotation_files():
            file = path.relative_to(self.data_folder).as_posix()
            checked = False
            for row, value in self._rows(path):
                if isinstance(value, Broken):
                    yield Problem(file=file, row=row, split=self._split_of_path(file), reason=value.reason)
                elif not isinstance(value, dict):
                    yield Problem(file=file, row=row, reason=f"no object but {type(value).__name__}")
                else:
                    if not checked and path.suffix != ".parquet":
                        self._check_columns(file, list(value))
                    checked = True
                    yield self._entry(file, self._split_of_path(file), row, value)

    def read_media(self, entry: Entry) -> bytes:
        """Return the bytes of an item: out of the table, or of the file that it names."""
        column = self.settings.columns.media
        if self._on_hub or self._on_disk:
            value = self._datasets[entry.file][entry.row - 1][column]
        elif (table := self.data_folder / entry.file).suffix == ".parquet":
            value = read_cell(table, str(column), entry.row - 1)
        else:
            value = entry.media
        if isinstance(value, bytes):
            return value
        if isinstance(value, dict) and value.get("bytes"):
            return bytes(value["bytes"])
        name = value.get("path") if isinstance(value, dict) else value
        if not name:
            raise FileNotFoundError("no media")
        path = (self.data_folder / str(name)).resolve()
        if not path.is_relative_to(self.data_folder.resolve()):
            raise PermissionError(f"{name} lies outside the data's folder")
        return path.read_bytes()

    def _rows(self, path: Path) -> Iterator[tuple[int, Any]]:
        suffix = path.suffix.lower()
        if suffix == ".parquet":
            yield from self._parquet_rows(path)
        elif suffix == ".csv":
            yield from csv_rows(read_text(path, self.settings.encoding))
        elif suffix == ".json":
            entries = json_entries(read_text(path, self.settings.encoding))
            yield from ((row, value) for row, _, value in entries)
        else:
            yield from json_lines(read_text(path, self.settings.encoding))

    def _parquet_rows(self, path: Path) -> Iterator[tuple[int, Any]]:
        """Go through a Parquet file without reading what it embeds."""
        try:
            file = pq.ParquetFile(path)
            self._check_columns(path.name, file.schema_arrow.names)
            media = self.settings.columns.media
            kind = file.schema_arrow.field(media).type if media is not None else None
            with_media = kind is not None and (pa.types.is_string(kind) or pa.types.is_large_string(kind))
            if kind is not None and not with_media:
                self._check_embedded(path.name)
            row = 0
            for batch in file.iter_batches(columns=self._columns(with_media)):
                for value in batch.to_pylist():
                    row += 1
                    yield row, value
        except (pa.ArrowInvalid, OSError) as error:
            yield 0, Broken(f"no readable Parquet file: {first_line(error)}")

    def _columns(self, with_media: bool) -> list[str]:
        """Return the mapped columns; that of the media only if it holds paths."""
        columns = self.settings.columns
        return [*columns.named(), *([columns.media] if with_media and columns.media else [])]

    def _entry(self, file: str, split: str, row: int, value: Mapping[str, Any]) -> Entry | Problem:
        columns = self.settings.columns

        def text(column: str | None, default: str) -> str:
            found = value.get(column) if column is not None else None
            return default if found is None else str(found).strip()

        item = text(columns.item, f"{file}:{row}")
        identity = text(columns.identity, item)
        group = text(columns.group, identity)
        named = text(columns.split, split)
        split = self._split(named) if named else self._hashed_split(group)
        if split not in SPLITS:
            reason = f"split '{split}' is none of {', '.join(SPLITS)}: say which, e.g. --set split_names.{split}=train"
            return Problem(file=file, row=row, item=item, reason=reason)
        captions: list[object] = []
        for column in columns.captions:
            found = value.get(column)
            captions += found if isinstance(found, list) else [found]
        return Entry(
            file=file,
            row=row,
            split=split,
            item_id=item,
            identity=identity,
            group=group,
            source=text(columns.source, ""),
            captions=tuple(enumerate(captions)),
            media=self._media_name(value, item),
            wording=text(columns.wording, WORDING),
        )

    def _media_name(self, value: Mapping[str, Any], item: str) -> str:
        column = self.settings.columns.media
        if column is None:
            return ""
        found = value.get(column, item)  # what a table embeds is not read here; the item names it
        return str(found or "")

    @cached_property
    def _names(self) -> dict[str, str]:
        return {**SPLIT_NAMES, **self.settings.split_names}

    def _split(self, name: str) -> str:
        return self._names.get(name, self._names.get(name.lower(), name))

    def _split_of_path(self, file: str) -> str:
        """Return the name of a split that stands in a path, the last one if there are several."""
        names = self._names
        words = [word for word in re.split(r"[^A-Za-z0-9]+", file) if word in names or word.lower() in names]
        return words[-1] if words else ""

    def _hashed_split(self, group: str) -> str:
        digest = hashlib.sha256(f"{self.settings.seed}\x1f{group}".encode("utf-8", "surrogateescape")).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        if place < self.settings.test_share:
            return "test"
        return "val" if place < self.settings.test_share + self.settings.val_share else "train"

    def _check_embedded(self, file: str) -> None:
        if self.settings.media == "path":
            raise UserError(
                f"column '{self.settings.columns.media}' of {file} holds no paths but the media: --set media=embed"
            )

    def _check_columns(self, file: str, there: Sequence[str]) -> None:
        columns = self.settings.columns
        wanted = [*columns.named(), *([columns.media] if columns.media else [])]
        if missing := [name for name in wanted if name not in there]:
            raise UserError(
                f"{file} has no column '{missing[0]}': it has {', '.join(there)}; map them, e.g."
                f" --set columns.caption={there[0] if there else 'text'}"
            )

    @property
    def dataset(self) -> str:
        """Name of the corpus, as set."""
        return self.settings.dataset

    @property
    def data_folder(self) -> Path:
        """The folder of the table's file, or the folder itself."""
        return self.root.parent if self.root.is_file() else self.root

    @property
    def _on_disk(self) -> bool:
        return any((self.root / name).exists() for name in _ON_DISK)

    @property
    def _on_hub(self) -> bool:
        return not self.root.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", str(self.root)) is not None

    @cached_property
    def _datasets(self) -> dict[str, Any]:
        """Return the splits of a Hugging Face dataset, pictures and sounds left undecoded."""
        import datasets

        try:
            if self._on_disk:
                loaded = datasets.load_from_disk(str(self.root))
            else:
                loaded = datasets.load_dataset(str(self.root), self.settings.config)
        except (OSError, ValueError, ConnectionError, datasets.exceptions.DatasetsError) as error:
            raise UserError(f"cannot load the dataset {self.root}: {first_line(error)}") from None
        found = dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {str(loaded.split or ""): loaded}
        column = self.settings.columns.media
        for name, dataset in found.items():
            kind = dataset.features.get(column) if column else None
            if isinstance(kind, datasets.Image | datasets.Audio):
                self._check_embedded(name)
                found[name] = dataset.cast_column(column, type(kind)(decode=False))
        return found
