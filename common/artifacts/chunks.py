"""The finished part of a shard under way: chunks, each of which counts once its small JSON file is there."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sclmkb.common.artifacts.files import (
    checked_file,
    create_json,
    keep,
    read_json,
    read_parquet,
    remove_folder,
    sha256_file,
    sync_file,
    temporary_beside,
)
from sclmkb.common.artifacts.storage import ObjectPath
from sclmkb.common.errors import UserError


class ShardCommittedError(Exception):
    """Another process finished the shard meanwhile: leave it and go on with the next."""


class Chunks:
    """The chunks of one shard, written by this process and perhaps by others; who commits the shard deletes them."""

    def __init__(self, folder: Path, schemas: Mapping[str, pa.Schema], is_committed: Callable[[], bool]) -> None:
        """Take the folder, the schemas of the tables by name, and what says whether the shard is committed."""
        self._folder, self._schemas, self._is_committed = folder, schemas, is_committed

    def indices(self) -> list[int]:
        """Return the indices of the committed chunks: 0, 1, 2 and so on.

        Raises:
            UserError: if one is missing.
            ShardCommittedError: if another process committed the whole shard.
        """
        if isinstance(self._folder, ObjectPath):  # asked for by name: a listing may be late
            return list(itertools.takewhile(lambda index: self._record(index).exists(), itertools.count()))
        try:
            indices = sorted(int(p.stem.removeprefix("chunk-")) for p in self._folder.glob("chunk-*.json"))
        except FileNotFoundError:
            self._leave_if_committed()
            raise
        if indices != list(range(len(indices))):  # they are deleted one by one
            self._leave_if_committed()
            raise UserError(f"{self._folder} lacks a chunk, it has {indices}: {self._mend}")
        return indices

    def commit(self, index: int, tables: Mapping[str, pa.Table], figures: Mapping[str, Any] | None = None) -> bool:
        """Keep part of the shard's work, so that a crash loses at most the chunk under way.

        Its index is one more than the last one's. The figures are for those who watch the run.

        Returns:
            False if another process committed this chunk first: then that one counts, read it.

        Raises:
            ShardCommittedError: if another process committed the whole shard.
        """
        files, won = {}, False
        try:
            for name, table in tables.items():
                path, entry = store_table(self._folder, f"{name}-{index:05d}", table.cast(self._schemas[name]))
                files[path.name] = {"table": name, **entry}
            won = let_count(self._record(index), {"files": files, "figures": dict(figures or {})}, self._folder)
        except (FileNotFoundError, UserError):
            if not self._is_committed():
                raise
        if self._is_committed():
            remove_folder(self._folder)
            raise ShardCommittedError(self._folder.name)
        return won

    def read(self, index: int, table: str) -> pa.Table:
        """Return the rows of one table from a committed chunk.

        Raises:
            UserError: if a file is missing or corrupt.
            ShardCommittedError: if another process committed the whole shard.
        """
        parts = [self._schemas[table].empty_table()]
        try:
            for name, entry in read_json(self._record(index))["files"].items():
                if entry["table"] == table:
                    local = checked_file(self._folder / name, entry["sha256"], self._mend)
                    parts.append(read_parquet(local).cast(self._schemas[table]))
        except (UserError, FileNotFoundError):  # it may go between two looks
            self._leave_if_committed()
            raise
        return pa.concat_tables(parts)

    def read_all(self, table: str, indices: Sequence[int]) -> pa.Table:
        """Return the rows of one table from the chunks that :meth:`indices` gave: another process may add more.

        Raises:
            UserError: if a file is missing or corrupt.
            ShardCommittedError: if another process committed the whole shard.
        """
        return pa.concat_tables([self._schemas[table].empty_table(), *(self.read(index, table) for index in indices)])

    def figures(self) -> list[dict[str, Any]]:
        """Return the figures of each committed chunk.

        Raises:
            ShardCommittedError: if another process committed the whole shard.
        """
        try:
            return [read_json(self._record(index))["figures"] for index in self.indices()]
        except UserError:
            self._leave_if_committed()
            raise

    @property
    def _mend(self) -> str:
        return f"delete the folder {self._folder}: what it holds is made again"

    def _record(self, index: int) -> Path:
        return self._folder / f"chunk-{index:05d}.json"

    def _leave_if_committed(self) -> None:
        if self._is_committed():
            raise ShardCommittedError(self._folder.name) from None


def store_table(folder: Path, stem: str, table: pa.Table) -> tuple[Path, dict[str, Any]]:
    """Write a table to ``folder/STEM-HASH.parquet``, named after its contents, and look at what was written.

    Returns:
        The file, and its entry in a manifest: number of rows, sha256.
    """
    with temporary_beside(folder / stem) as temporary:
        pq.write_table(table, temporary, compression="zstd")
        num_rows = pq.read_metadata(temporary).num_rows
        if num_rows != table.num_rows:
            raise OSError(f"{temporary}: wrote {table.num_rows} rows but read back {num_rows}")
        sync_file(temporary)
        digest = sha256_file(temporary)
        path = folder / f"{stem}-{digest[:8]}.parquet"
        keep(temporary, path, digest)
    return path, {"num_rows": table.num_rows, "sha256": digest}


def let_count(record: Path, content: Mapping[str, Any], folder: Path) -> bool:
    """Write the JSON file that makes the ``files`` below a folder count that it names.

    Returns:
        False if another process was first: then its files count, and those of this process are deleted.
    """
    won = create_json(record, content)
    if not won:
        for name in content["files"].keys() - read_json(record)["files"].keys():
            (folder / name).unlink(missing_ok=True)
    return won
