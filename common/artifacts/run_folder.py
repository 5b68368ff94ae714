"""The contract between the stages: an artifact is a folder that is planned, committed in shards, and verified.

::

    DIR/plan-rows-1a2b3c4d.parquet       written first: the row ids of every shard, named after their hash
    DIR/plan.json                        frozen then: settings, inputs, versions, shards, sha256 of the row ids
    DIR/TABLE/SPLIT-00000-of-00004-1a2b3c4d.parquet    named after its contents, never overwritten
    DIR/manifests/SPLIT-00000-of-00004.json   counts, sha256, seconds: the only completion marker
    DIR/work/SPLIT-00000-of-00004/...    chunks of a shard that is under way
    DIR/work/shared/...                  what all processes need (:mod:`sclmkb.generate.captions.shared_arrays`)
    DIR/logs/...                         one file per process start
    DIR/README.md                        dataset card, loadable with ``datasets.load_dataset(DIR, TABLE)``

A writer asks :meth:`Run.open` with a :class:`Plan`; the same plan resumes, another plan is refused with the fields
that differ. Every file is written beside its place, synced and renamed. So a file with its final name is whole.

Several processes may work on one run without locks. Data files are named after their contents, so no process
overwrites another's files. A small JSON file makes the data of a chunk or of a shard count; it is created only if
there is none. The first process wins. The others drop their own data and go on from the winner's.

The folder may be a place in object storage (:class:`~sclmkb.common.artifacts.storage.ObjectPath`). The same order
holds there: the data first, then what makes them count, each put as one object. Objects are asked for by the names
that plan and manifests give. Two things are not done there: a run cannot be set aside, and files that no manifest
names stay (docs/object-storage.md).
"""

import contextlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from sclmkb.common.artifacts import storage
from sclmkb.common.artifacts.artifact import Artifact, UnfinishedError, read_plan
from sclmkb.common.artifacts.chunks import Chunks, let_count, store_table
from sclmkb.common.artifacts.files import (
    create_json,
    list_folder,
    read_json,
    remove_folder,
    set_aside,
    sweep_temporaries,
    write_parquet,
)
from sclmkb.common.artifacts.plan import ROWS_PREFIX, Plan, Shard, plan_differences, rows_name
from sclmkb.common.artifacts.storage import ObjectPath
from sclmkb.common.errors import UserError

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

    Every command that resumes asks this function, be it for an artifact, a training or a measurement.

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
    occupied = any(not path.name.startswith((".", ROWS_PREFIX)) for path in list_folder(root))
    path = root / name
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


class Run:
    """An artifact folder that is being written, by this process and perhaps by others."""

    def __init__(self, root: Path, plan: Plan) -> None:
        """Use :meth:`open`."""
        self.root, self.plan = root, plan

    @classmethod
    def open(cls, root: Path, plan: Plan, *, new_run: bool = False, join: bool = False) -> "Run":
        """Start a run in ``root``, or resume the run of the same plan that is there.

        Raises:
            UserError: if :func:`holds_run` refuses the folder.
        """
        path, wanted = root / "plan.json", plan.to_json()
        rows = root / rows_name(wanted["row_ids"])
        while not holds_run(root, path.name, wanted, new_run=new_run, join=join):
            write_parquet(rows, plan.rows())
            if create_json(path, wanted):  # if not, another process was first: is its run the same?
                if isinstance(path, ObjectPath) and not storage.keeps_the_first(path):
                    _log.warning(
                        "%s: this store overwrites what is there: let no two processes work on one shard at a time",
                        root,
                    )
                break
            if rows_name(read_json(path)["row_ids"]) != rows.name:
                rows.unlink(missing_ok=True)
        if not rows.exists():
            write_parquet(rows, plan.rows())
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
        plan = Plan(kind=kind, tables={}, settings=saved.settings, shards=saved.shards, inputs=saved.inputs)
        return cls(root, plan)

    def pending(self, shards: Sequence[Shard] | None = None) -> list[Shard]:
        """Return the shards, of some or of all, that have no manifest yet."""
        chosen = self.plan.shards if shards is None else shards
        found = storage.for_each(self.root, self.is_committed, chosen)
        return [shard for shard, committed in zip(chosen, found, strict=True) if not committed]

    def is_committed(self, shard: Shard) -> bool:
        """Return whether the shard is finished."""
        return self._manifest(shard).exists()

    def manifest(self, shard: Shard) -> dict[str, Any] | None:
        """Return the manifest of a shard, or nothing if it is not committed."""
        path = self._manifest(shard)
        try:
            return read_json(path)
        except UserError:
            if path.exists():
                raise
            return None

    def chunks(self, shard: Shard) -> Chunks:
        """Return the chunks of a shard under way."""
        return Chunks(self._work(shard), self.plan.tables, lambda: self.is_committed(shard))

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
        files = {}
        for name, table in tables.items():
            path, entry = store_table(self.root / name, shard.name, table.cast(self.plan.tables[name]))
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
        won = let_count(self._manifest(shard), manifest, self.root)
        remove_folder(self._work(shard))
        return won

    def finish(self, title: str, description: str, details: str = "") -> "Artifact":
        """Write the card (:func:`dataset_card`) once every shard is committed, and return the artifact for reading.

        Raises:
            UnfinishedError: if a shard is still pending.
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
            kept = read_json(self._manifest(shard))["files"]
            remove_folder(self._work(shard))
            for name in set(found.get(shard.name, ())) - set(kept):
                (self.root / name).unlink(missing_ok=True)
        remove_folder(self.shared)
        with contextlib.suppress(OSError):
            (self.root / "work").rmdir()

    def _manifest(self, shard: Shard) -> Path:
        return self.root / "manifests" / f"{shard.name}.json"

    def _work(self, shard: Shard) -> Path:
        return self.root / "work" / shard.name
