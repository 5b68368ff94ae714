"""The contract between the stages: an artifact is a folder that is planned, committed in shards, and verified.

::

    DIR/plan.json                        frozen first: settings, inputs, versions, row ids per shard
    DIR/TABLE/SPLIT-00000-of-00004-1a2b3c4d.parquet    named after its contents, never overwritten
    DIR/manifests/SPLIT-00000-of-00004.json   counts, sha256, seconds: the only completion marker
    DIR/manifests/retried/...            manifests of shards that were opened again, for the record
    DIR/work/SPLIT-00000-of-00004/...    chunks of a shard that is under way
    DIR/work/shared/...                  what all processes need (:mod:`sclmkb.generate.captions.shared_arrays`)
    DIR/logs/...                         one file a process start
    DIR/README.md                        dataset card, loadable with ``datasets.load_dataset(DIR, TABLE)``

A writer asks :meth:`Run.open` with a :class:`Plan`; the same plan resumes, another plan is refused with the
fields that differ. Every file is written beside its place, synced and renamed, so that whatever has its final
name is whole.

Several processes may work on one run without locks. Data files are named after their contents, so nobody overwrites
anybody's; the small JSON file that makes them count (of a chunk, or of a shard) is created only if there is none. The
first one wins, the others drop their own and go on from the winner's.

The folder may be a place in object storage (:class:`~sclmkb.common.artifacts.storage.ObjectPath`). There the same order holds,
data first and what makes them count last, each put as one object; what is there is asked for by the names that plan and
manifests give. Three things are left undone there: a run cannot be set aside, a committed shard cannot be opened again,
and files that no manifest names stay (docs/object-storage.md).
"""

import contextlib
import itertools
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sclmkb.common.errors import UserError
from sclmkb.common.artifacts import storage
from sclmkb.common.artifacts.artifact import Artifact, UnfinishedError, read_plan
from sclmkb.common.artifacts.files import (
    checked_file,
    create_json,
    is_in_use,
    keep,
    list_folder,
    read_json,
    read_parquet,
    remove_folder,
    set_aside,
    sha256_file,
    sweep_temporaries,
    sync_file,
    sync_folder,
    temporary_beside,
)
from sclmkb.common.artifacts.plan import Plan, Shard, plan_differences
from sclmkb.common.artifacts.storage import ObjectPath

_log = logging.getLogger(__name__)


def holds_run(
    root: Path,
    name: str,
    wanted: Mapping[str, Any],
    *,
    new_run: bool = False,
    join: bool = False,
    processes: int = 1,
    differences: Callable[[Mapping[str, Any], Mapping[str, Any]], list[str]] = plan_differences,
) -> bool:
    """Return whether a folder holds this very run already, to go on with; if not, it is free to start the run in.

    Every command that resumes asks this one, whatever it makes: an artifact, a training or a measurement.

    Args:
        root: the folder.
        name: of the JSON file in it that says what the run is: ``plan.json`` or ``config.json``.
        wanted: what that file says of this run.
        new_run: move another run to ``root.old-N``, so that the folder is free.
        join: only resume, never start or set aside anything.
        processes: of this command that ask at the same time: several cannot set a run aside.
        differences: what differs between the run that is there and the wanted one, each in a few words.

    Raises:
        UserError: if the folder holds another run, or something that is none; or if there is nothing to join.
    """
    # Looked at before that file: another process of this command may be about to write it.
    occupied, path = is_in_use(root), root / name
    there = path.exists()
    if join and (new_run or not there):
        raise UserError(f"{root} holds no run to join: start it first, with the same command without --join")
    if not there:
        if occupied:
            raise UserError(f"{root} is not empty and holds no {name}: choose another --out")
        return False
    found = differences(read_json(path), json.loads(json.dumps(dict(wanted))))
    if not found:
        return True
    if not new_run:
        raise UserError(
            f"{root} holds a run with other settings ({'; '.join(found)}): use the same settings to resume it,"
            " another --out, or --new-run to set it aside"
        )
    if processes > 1:
        raise UserError(f"{processes} processes cannot set {root} aside together: rename it, or choose another --out")
    set_aside(root)
    return False


class ShardCommittedError(Exception):
    """Another process finished the shard meanwhile: leave it and go on with the next."""


class Run:
    """An artifact folder that is being written, by this process and perhaps by others."""

    def __init__(self, root: Path, plan: Plan) -> None:
        """Use :meth:`open`."""
        self.root, self.plan = root, plan
        self._retries: dict[str, int] = {}  # of each shard, when this process began to work on it

    @classmethod
    def open(cls, root: Path, plan: Plan, *, new_run: bool = False, join: bool = False) -> "Run":
        """Start a run in ``root``, or resume the run of the same plan that is there.

        Args:
            root: the artifact's folder.
            plan: what to do.
            new_run: if another plan is there, move that run to ``root.old-N`` and start afresh.
            join: only resume, never start or set aside anything.

        Raises:
            UserError: if the folder holds a run of another plan, or something that is no artifact, or if there is
                nothing to join.
        """
        path, wanted = root / "plan.json", plan.to_json()
        while not holds_run(root, path.name, wanted, new_run=new_run, join=join):
            if create_json(path, wanted):  # if not, another process was first: is its run the same?
                if isinstance(path, ObjectPath) and not storage.keeps_the_first(path):
                    _log.warning(
                        "%s: this store overwrites what is there: let no two processes work on one shard at a time",
                        root,
                    )
                break
        return cls(root, plan)

    @property
    def shared(self) -> Path:
        """Folder of what all processes of the run need and make once; it goes with the last step."""
        return self.root / "work" / "shared"

    @classmethod
    def look(cls, root: Path, kind: str) -> "Run":
        """Return the run in a folder, finished or not, for looking at how far it is; nothing can be written.

        Raises:
            UserError: if there is none, or one of another kind or schema version.
        """
        saved = read_plan(root, kind)
        shards = [Shard(name=s["name"], split=s["split"], row_ids=tuple(s["row_ids"])) for s in saved["shards"]]
        return cls(root, Plan(kind=kind, tables={}, settings=saved["settings"], shards=shards, inputs=saved["inputs"]))

    def pending(self) -> list[Shard]:
        """Return the shards that have no manifest yet."""
        found = storage.for_each(self.root, lambda shard: self._manifest(shard).exists(), self.plan.shards)
        return [shard for shard, committed in zip(self.plan.shards, found, strict=True) if not committed]

    def is_committed(self, shard: Shard) -> bool:
        """Return whether the shard is finished, or was since this process began to work on it."""
        return self._manifest(shard).exists() or self._count_retries(shard) > self._retries_known(shard)

    def manifest(self, shard: Shard) -> dict[str, Any] | None:
        """Return the manifest of a shard, or nothing if it is not committed."""
        path = self._manifest(shard)
        try:
            return read_json(path)
        except UserError:
            if path.exists():
                raise
            return None

    def reopen(self, shard: Shard) -> bool:
        """Make a committed shard pending again; what it holds stays and is what :meth:`read_chunks` begins with.

        Returns:
            False if another process did so first.

        Raises:
            UserError: in object storage, where nothing can be renamed.
        """
        if isinstance(self.root, ObjectPath):
            raise UserError(
                f"{self.root} is in object storage, where no committed shard can be opened again: copy the run to a"
                " folder, and name that"
            )
        number = self._count_retries(shard) + 1
        target = self._retried(shard, number)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._manifest(shard).rename(target)
        except FileNotFoundError:
            return False
        sync_folder(target.parent)
        sync_folder(self.root / "manifests")
        self._retries[shard.name] = number
        return True

    def chunk_indices(self, shard: Shard) -> list[int]:
        """Return the indices of the shard's committed chunks: 0, 1, 2 and so on.

        Raises:
            UserError: if one is missing.
            ShardCommittedError: if another process committed the whole shard.
        """
        work = self._work(shard)
        if isinstance(work, ObjectPath):  # asked for by name: a listing may be late
            return list(itertools.takewhile(lambda i: (work / f"chunk-{i:05d}.json").exists(), itertools.count()))
        try:
            indices = sorted(int(p.stem.removeprefix("chunk-")) for p in work.glob("chunk-*.json"))
        except FileNotFoundError:
            if self.is_committed(shard):
                raise ShardCommittedError(shard.name) from None
            raise
        if indices != list(range(len(indices))):  # whoever commits the shard deletes its chunks, one by one
            if self.is_committed(shard):
                raise ShardCommittedError(shard.name)
            raise UserError(f"{work} lacks a chunk, it has {indices}: delete the folder, what it holds is made again")
        return indices

    def commit_chunk(
        self, shard: Shard, index: int, tables: Mapping[str, pa.Table], figures: Mapping[str, Any] | None = None
    ) -> bool:
        """Keep part of a shard's work, so that a crash loses at most the chunk under way.

        Args:
            shard: the shard.
            index: place of the chunk: one more than the last one's.
            tables: what the chunk holds.
            figures: a few numbers for whoever watches the run.

        Returns:
            False if another process committed this chunk first: then that one counts, read it.

        Raises:
            ShardCommittedError: if another process committed the whole shard.
        """
        work = self._work(shard)
        files = {}
        try:
            for name, table in tables.items():
                path, entry = self._store(work, f"{name}-{index:05d}", name, table)
                files[path.name] = {"table": name, **entry}
            won = create_json(work / f"chunk-{index:05d}.json", {"files": files, "figures": dict(figures or {})})
            if not won:
                for name in set(files) - set(read_json(work / f"chunk-{index:05d}.json")["files"]):
                    (work / name).unlink(missing_ok=True)
        except (FileNotFoundError, UserError):  # whoever commits the shard deletes its chunks
            if not self.is_committed(shard):
                raise
        if self.is_committed(shard):
            remove_folder(work)
            raise ShardCommittedError(shard.name)
        return won

    def read_chunk(self, shard: Shard, index: int, table: str) -> pa.Table:
        """Return the rows of one table from a committed chunk.

        Raises:
            UserError: if a file is missing or corrupt.
            ShardCommittedError: if another process committed the whole shard.
        """
        work, schema = self._work(shard), self.plan.tables[table]
        try:
            files = read_json(work / f"chunk-{index:05d}.json")["files"]
            return _read_checked(work, files, table, schema, f"delete the folder {work}: what it holds is made again")
        except (UserError, FileNotFoundError):  # it may go between two looks
            if self.is_committed(shard):
                raise ShardCommittedError(shard.name) from None
            raise

    def read_chunks(self, shard: Shard, table: str, indices: Sequence[int] | None = None) -> pa.Table:
        """Return the rows of one table from what a shard holds so far, in the order in which it was committed.

        Args:
            shard: the shard.
            table: name of the table.
            indices: the chunks to read, as :meth:`chunk_indices` gave them: another process may add more at any time.

        Raises:
            UserError: if a file is missing or corrupt.
            ShardCommittedError: if another process committed the whole shard.
        """
        schema = self.plan.tables[table]
        parts = [schema.empty_table()]
        if retried := self._before_retry(shard):
            files = {name: {"table": name.partition("/")[0], **entry} for name, entry in retried["files"].items()}
            try:
                parts.append(_read_checked(self.root, files, table, schema, "it was committed: restore it from a copy"))
            except (UserError, FileNotFoundError):  # it may go between two looks
                if self.is_committed(shard):
                    raise ShardCommittedError(shard.name) from None
                raise
        parts += [self.read_chunk(shard, i, table) for i in (self.chunk_indices(shard) if indices is None else indices)]
        return pa.concat_tables(parts)

    def figures(self, shard: Shard) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return the figures of a shard under way: those it had before a retry (or none), and those of its chunks.

        Raises:
            ShardCommittedError: if another process committed the whole shard.
        """
        earlier = self._before_retry(shard).get("figures", {})
        work = self._work(shard)
        try:
            return earlier, [read_json(work / f"chunk-{i:05d}.json")["figures"] for i in self.chunk_indices(shard)]
        except UserError:
            if self.is_committed(shard):
                raise ShardCommittedError(shard.name) from None
            raise

    def counts_before_retry(self, shard: Shard) -> dict[str, int]:
        """Return the row states of a shard under way when it was opened again; none if it was not."""
        return dict(self._before_retry(shard).get("counts", {}))

    def commit_shard(
        self,
        shard: Shard,
        tables: Mapping[str, pa.Table],
        *,
        counts: Mapping[str, int] | None = None,
        figures: Mapping[str, Any] | None = None,
        seconds: float | None = None,
    ) -> bool:
        """Write the shard's tables, then its manifest, then drop its chunks.

        Returns:
            False if another process committed the shard first: then that one counts.

        Raises:
            ValueError: if a table is missing, or ``counts`` does not add up to the planned rows.
        """
        if set(tables) != set(self.plan.tables):
            raise ValueError(f"shard {shard.name} needs tables {sorted(self.plan.tables)}, got {sorted(tables)}")
        if counts is not None and sum(counts.values()) != len(shard.row_ids):
            raise ValueError(f"shard {shard.name}: {dict(counts)} does not add up to {len(shard.row_ids)} rows")
        if self._count_retries(shard) > self._retries_known(shard):
            return False
        files = {}
        for name, table in tables.items():
            path, entry = self._store(self.root / name, shard.name, name, table)
            files[f"{name}/{path.name}"] = entry
        manifest: dict[str, Any] = {
            "shard": shard.name,
            "split": shard.split,
            "num_rows": len(shard.row_ids),
            "counts": dict(counts or {}),
            "figures": dict(figures or {}),
            "files": files,
            "seconds": seconds,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        won = create_json(self._manifest(shard), manifest)
        # A loser's own files go, and those from before a retry; not if the shard is open again already.
        if winner := manifest if won else self.manifest(shard):
            for name in {**files, **self._before_retry(shard).get("files", {})}:
                if name not in winner["files"]:
                    (self.root / name).unlink(missing_ok=True)
        remove_folder(self._work(shard))
        return won

    def finish(self, title: str, description: str, details: str = "") -> "Artifact":
        """Write the dataset card once every shard is committed, and return the artifact for reading.

        Args:
            title: heading of the card.
            description: first paragraph of the card.
            details: more of the card, in Markdown, before the settings.

        Raises:
            UnfinishedError: if a shard is still pending, or another process has just opened one again.
        """
        if left := self.pending():
            raise UnfinishedError(f"{len(left)} shards of {self.root} are not committed, first {left[0].name}")
        self._tidy()
        sweep_temporaries(self.root)
        artifact = Artifact.open(self.root, self.plan.kind, verify=False)
        artifact.write_card(title, description, details)
        return artifact

    def _tidy(self) -> None:
        """Delete what was shared, and what killed processes left of committed shards: chunks, files of no manifest."""
        if isinstance(self.root, ObjectPath):
            remove_folder(self.root / "work")
            return
        found: dict[str, list[str]] = {}  # by shard; listed once, before any manifest is read
        for table in self.plan.tables:
            for name in (path.name for path in list_folder(self.root / table, "*-????????.parquet")):
                found.setdefault(name.rpartition("-")[0], []).append(f"{table}/{name}")
        for shard in self.plan.shards:
            number, path = self._count_retries(shard), self._manifest(shard)
            # Looked at after counting: so the last retry is committed too.
            if manifest := self.manifest(shard):
                for i in range(number + 1):
                    remove_folder(self._chunk_folder(shard, i))
                for stray in (self.root / name for name in found.get(shard.name, ()) if name not in manifest["files"]):
                    # A younger one may be of a process that has just opened the shard again.
                    with contextlib.suppress(FileNotFoundError):
                        if stray.stat().st_mtime_ns < path.stat().st_mtime_ns:
                            stray.unlink(missing_ok=True)
        remove_folder(self.shared)
        with contextlib.suppress(OSError):
            (self.root / "work").rmdir()

    def _store(self, folder: Path, stem: str, name: str, table: pa.Table) -> tuple[Path, dict[str, Any]]:
        """Write a table to ``folder/STEM-HASH.parquet``, named after its contents."""
        table = table.cast(self.plan.tables[name])
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

    def _manifest(self, shard: Shard) -> Path:
        return self.root / "manifests" / f"{shard.name}.json"

    def _retried(self, shard: Shard, number: int) -> Path:
        return self.root / "manifests" / "retried" / f"{shard.name}.{number}.json"

    def _count_retries(self, shard: Shard) -> int:
        if isinstance(self.root, ObjectPath) and shard.name in self._retries:
            return self._retries[shard.name]  # nobody opens shards again there, and asking costs
        number = 0
        while self._retried(shard, number + 1).exists():
            number += 1
        return number

    def _before_retry(self, shard: Shard) -> dict[str, Any]:
        """Return the manifest that a shard under way had when it was opened again; nothing if it was not."""
        number = self._retries_known(shard)
        return read_json(self._retried(shard, number)) if number else {}

    def _retries_known(self, shard: Shard) -> int:
        if shard.name not in self._retries:
            self._retries[shard.name] = self._count_retries(shard)
        return self._retries[shard.name]

    def _work(self, shard: Shard) -> Path:
        return self._chunk_folder(shard, self._retries_known(shard))

    def _chunk_folder(self, shard: Shard, number: int) -> Path:
        return self.root / "work" / (f"{shard.name}.{number}" if number else shard.name)


def _read_checked(
    root: Path, files: Mapping[str, Mapping[str, Any]], table: str, schema: pa.Schema, mend: str
) -> pa.Table:
    parts = []
    for name, entry in files.items():
        if entry["table"] == table:
            parts.append(read_parquet(checked_file(root / name, entry["sha256"], mend)).cast(schema))
    return pa.concat_tables(parts) if parts else schema.empty_table()
