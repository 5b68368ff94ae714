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
from bisect import bisect
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sclmkb.common.artifacts.schemas import SPLITS, WORDING
from sclmkb.common.errors import UserError, first_line
from sclmkb.generate.corpora.reader import Entry, Problem
from sclmkb.generate.corpora.readers.table_settings import SPLIT_NAMES, TableSettings
from sclmkb.generate.corpora.records import Place, RecordReader

SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".json", ".csv")
_ON_DISK = ("dataset_dict.json", "dataset_info.json")


class TableReader(RecordReader):
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

    def tables(self) -> Sequence[tuple[Path, str]]:
        """Return the files of the table, each with the word of its path that names a split."""
        return [(path, self._split_of_path(self.relative(path))) for path in self.annotation_files()]

    def records(self, path: Path) -> Iterator[tuple[int, Any]]:
        """Go through the rows of a file."""
        if path.suffix.lower() == ".parquet":
            yield from self._parquet_rows(path)
            return
        checked = False
        for row, record in super().records(path):
            if isinstance(record, dict) and not checked:
                self._check_columns(self.relative(path), list(record))
                checked = True
            yield row, record

    def entries(self) -> Iterator[Entry | Problem]:
        """Go through the rows of all files, or of all splits of a dataset."""
        if not (self._on_hub or self._on_disk):
            yield from super().entries()
            return
        for name, dataset in self._datasets.items():
            self._check_columns(name, dataset.column_names)
            media = self.settings.columns.media
            with_media = media is not None and getattr(dataset.features[media], "dtype", "") == "string"
            for row, record in enumerate(dataset.select_columns(self._columns(with_media)), start=1):
                yield self.placed(record, Place(name, row, name))

    def read_media(self, entry: Entry) -> bytes:
        """Return the bytes of an item: out of the table, or of the file that it names."""
        column = self.settings.columns.media
        if self._on_hub or self._on_disk:
            value = self._datasets[entry.file][entry.row - 1][column]
        elif (table := self.data_folder / entry.file).suffix == ".parquet":
            value = _cell(table, str(column), entry.row - 1)
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
            batches = file.iter_batches(columns=self._columns(with_media))
            yield from enumerate((record for batch in batches for record in batch.to_pylist()), start=1)
        except (pa.ArrowInvalid, OSError) as error:
            yield 0, Problem(reason=f"no readable Parquet file: {first_line(error)}")

    def _columns(self, with_media: bool) -> list[str]:
        """Return the mapped columns; that of the media only if it holds paths."""
        columns = self.settings.columns
        return [*columns.named(), *([columns.media] if with_media and columns.media else [])]

    def entry(self, record: dict[str, Any], place: Place) -> Entry | Problem:
        """Return the item of a row with its captions."""
        columns = self.settings.columns

        def text(column: str | None, default: str) -> str:
            found = record.get(column) if column is not None else None
            return default if found is None else str(found).strip()

        item = text(columns.item, f"{place.file}:{place.row}")
        identity = text(columns.identity, item)
        group = text(columns.group, identity)
        named = text(columns.split, place.split)
        split = self._split(named) if named else self._hashed_split(group)
        if split not in SPLITS:
            reason = f"split '{split}' is none of {', '.join(SPLITS)}: say which, e.g. --set split_names.{split}=train"
            return Problem(reason=reason, item=item)
        captions: list[object] = []
        for column in columns.captions:
            found = record.get(column)
            captions += found if isinstance(found, list) else [found]
        # What a table embeds is not read here; the item names it.
        media = str(record.get(columns.media, item) or "") if columns.media is not None else ""
        return Entry(
            item_id=item,
            identity=identity,
            group=group,
            split=split,
            captions=tuple(enumerate(captions)),
            source=text(columns.source, ""),
            media=media,
            wording=text(columns.wording, WORDING),
        )

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


def _cell(path: Path, column: str, row: int) -> Any:
    """Return the value of a column in a row of a Parquet file, counted from 0; its row group stays in memory."""
    starts = _group_starts(path)
    group = bisect(starts, row) - 1
    return _row_group(path, column, group)[row - starts[group]].as_py()


@lru_cache(maxsize=2)
def _row_group(path: Path, column: str, group: int) -> pa.ChunkedArray:
    return pq.ParquetFile(path).read_row_group(group, columns=[column]).column(0)


@lru_cache(maxsize=64)
def _group_starts(path: Path) -> tuple[int, ...]:
    metadata = pq.read_metadata(path)
    return tuple(accumulate((metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)), initial=0))
