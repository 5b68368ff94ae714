"""The contract between the stages: an artifact is a folder that is planned, committed in shards, and verified.

::

    DIR/plan.json                        frozen first: settings, inputs, versions, row ids per shard
    DIR/TABLE/SPLIT-00000-of-00004.parquet
    DIR/manifests/SPLIT-00000-of-00004.json   counts, sha256, seconds: the only completion marker
    DIR/work/SPLIT-00000-of-00004/...    chunks of a shard that is under way
    DIR/README.md                        dataset card, loadable with ``datasets.load_dataset(DIR, TABLE)``

A writer asks :meth:`Run.open` with a :class:`Plan`; the same plan resumes, another plan is refused with the
fields that differ. Every file is written beside its place, synced and renamed, so that whatever has its final
name is whole.
"""

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sclmkb.common.config import fingerprint
from sclmkb.common.errors import UserError
from sclmkb.common.schemas import SCHEMA_VERSION


def make_row_id(dataset: str, split: str, item: str, caption_index: int) -> str:
    """Return the id of a caption: a hash of where it stands, never of its text (captions repeat)."""
    text = "\x1f".join((dataset, split, item, str(caption_index)))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One unit of work of a plan: a name, a split and the ids of its rows."""

    name: str
    split: str
    row_ids: tuple[str, ...]


def make_shards(split: str, row_ids: Sequence[str], shard_size: int) -> list[Shard]:
    """Cut the rows of a split into shards named ``SPLIT-00000-of-00004``."""
    count = max(1, -(-len(row_ids) // shard_size))
    return [
        Shard(
            name=f"{split}-{i:05d}-of-{count:05d}",
            split=split,
            row_ids=tuple(row_ids[i * shard_size : (i + 1) * shard_size]),
        )
        for i in range(count)
    ]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run will do, frozen before it starts.

    Attributes:
        kind: what the artifact is: ``corpus``, ``sdg``, ``csi`` or ``predicted``.
        tables: schema of each table that every shard holds.
        settings: the fields that can change the output (:meth:`Settings.fingerprint_fields`).
        shards: the units of work.
        inputs: content fingerprint of every artifact or file read.
        versions: versions of the packages that can change the output, by distribution name.
        notes: saved with the plan but free to differ on resume (speed-only settings, attribution).
    """

    kind: str
    tables: Mapping[str, pa.Schema]
    settings: Mapping[str, Any]
    shards: Sequence[Shard]
    inputs: Mapping[str, str]
    versions: Sequence[str] = ()
    notes: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the plan as saved in ``plan.json``."""
        plan: dict[str, Any] = {
            "kind": self.kind,
            "schema_version": SCHEMA_VERSION,
            "settings": dict(self.settings),
            "inputs": dict(self.inputs),
            "versions": {name: _version(name) for name in ("sclmkb", *self.versions)},
            "tables": sorted(self.tables),
            "shards": [{"name": s.name, "split": s.split, "row_ids": list(s.row_ids)} for s in self.shards],
        }
        return {**plan, "fingerprint": fingerprint(plan), "notes": dict(self.notes or {})}


class Run:
    """An artifact folder that is being written."""

    def __init__(self, root: Path, plan: Plan) -> None:
        """Use :meth:`open`."""
        self.root, self.plan = root, plan

    @classmethod
    def open(cls, root: Path, plan: Plan, *, new_run: bool = False) -> "Run":
        """Start a run in ``root``, or resume the run of the same plan that is there.

        Args:
            root: the artifact's folder.
            plan: what to do.
            new_run: if another plan is there, move that run to ``root.old-N`` and start afresh.

        Raises:
            UserError: if the folder holds a run of another plan, or something that is no artifact.
        """
        wanted = plan.to_json()
        path = root / "plan.json"
        if path.exists():
            existing = read_json(path)
            if existing.get("fingerprint") != wanted["fingerprint"]:
                if not new_run:
                    raise UserError(
                        f"{root} holds a run with other settings ({'; '.join(plan_differences(existing, wanted))}):"
                        " use the same settings to resume it, another --out, or --new-run to set it aside"
                    )
                set_aside(root)
        elif root.exists() and any(root.iterdir()):
            raise UserError(f"{root} is not empty and holds no plan.json: choose another --out")
        run = cls(root, plan)
        if not path.exists():
            write_json(path, wanted)
        return run

    def pending(self) -> list[Shard]:
        """Return the shards that have no manifest yet."""
        return [shard for shard in self.plan.shards if not self._manifest(shard).exists()]

    def chunk_indices(self, shard: Shard) -> list[int]:
        """Return the indices of the shard's committed chunks."""
        return sorted(int(p.stem.removeprefix("chunk-")) for p in self._work(shard).glob("chunk-*.json"))

    def commit_chunk(self, shard: Shard, index: int, tables: Mapping[str, pa.Table]) -> None:
        """Keep part of a shard's work, so that a crash loses at most the chunk under way."""
        files = {}
        for name, table in tables.items():
            path = self._work(shard) / f"{name}-{index:05d}.parquet"
            files[path.name] = self._write_table(path, name, table)
        write_json(self._work(shard) / f"chunk-{index:05d}.json", files)

    def read_chunks(self, shard: Shard, table: str) -> pa.Table:
        """Return the rows of one table from all committed chunks of a shard, in order."""
        schema = self.plan.tables[table]
        parts = [
            _read_parquet(self._work(shard) / f"{table}-{index:05d}.parquet").cast(schema)
            for index in self.chunk_indices(shard)
        ]
        return pa.concat_tables(parts) if parts else schema.empty_table()

    def commit_shard(
        self,
        shard: Shard,
        tables: Mapping[str, pa.Table],
        *,
        counts: Mapping[str, int] | None = None,
        seconds: float | None = None,
    ) -> None:
        """Write the shard's tables, then its manifest, then drop its chunks.

        Raises:
            ValueError: if a table is missing, or ``counts`` does not add up to the planned rows.
        """
        if set(tables) != set(self.plan.tables):
            raise ValueError(f"shard {shard.name} needs tables {sorted(self.plan.tables)}, got {sorted(tables)}")
        if counts is not None and sum(counts.values()) != len(shard.row_ids):
            raise ValueError(f"shard {shard.name}: {dict(counts)} does not add up to {len(shard.row_ids)} rows")
        files = {}
        for name, table in tables.items():
            path = self.root / name / f"{shard.name}.parquet"
            files[f"{name}/{path.name}"] = self._write_table(path, name, table)
        manifest = {
            "shard": shard.name,
            "split": shard.split,
            "num_rows": len(shard.row_ids),
            "counts": dict(counts or {}),
            "files": files,
            "seconds": seconds,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        write_json(self._manifest(shard), manifest)
        shutil.rmtree(self._work(shard), ignore_errors=True)

    def finish(self, title: str, description: str) -> "Artifact":
        """Write the dataset card once every shard is committed, and return the artifact for reading.

        Raises:
            ValueError: if a shard is still pending.
        """
        if left := self.pending():
            raise ValueError(f"{len(left)} shards of {self.root} are not committed, first {left[0].name}")
        with contextlib.suppress(OSError):
            (self.root / "work").rmdir()
        card = _dataset_card(title, description, self.plan)
        _write_bytes(self.root / "README.md", card.encode())
        return Artifact.open(self.root, self.plan.kind, verify=False)

    def _write_table(self, path: Path, name: str, table: pa.Table) -> dict[str, Any]:
        table = table.cast(self.plan.tables[name])
        with replacing(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")
            num_rows = pq.read_metadata(temporary).num_rows
            if num_rows != table.num_rows:
                raise OSError(f"{path}: wrote {table.num_rows} rows but read back {num_rows}")
            digest = sha256_file(temporary)
        return {"num_rows": table.num_rows, "sha256": digest}

    def _manifest(self, shard: Shard) -> Path:
        return self.root / "manifests" / f"{shard.name}.json"

    def _work(self, shard: Shard) -> Path:
        return self.root / "work" / shard.name


class Artifact:
    """A finished artifact folder, checked when it is opened."""

    def __init__(self, root: Path, plan: dict[str, Any], manifests: list[dict[str, Any]]) -> None:
        """Use :meth:`open`."""
        self.root, self.plan, self.manifests = root, plan, manifests

    @classmethod
    def open(cls, root: Path, kind: str, *, verify: bool = True) -> "Artifact":
        """Open an artifact and check that it is whole.

        Args:
            root: the artifact's folder.
            kind: what it must be, e.g. ``csi``.
            verify: also compare the sha256 of every file with its manifest.

        Raises:
            UserError: if it is missing, of another kind or schema version, unfinished or corrupt.
        """
        path = root / "plan.json"
        if not path.exists():
            raise UserError(f"no {kind} artifact at {root}: {_MAKERS.get(kind, 'make it')} with --out {root}")
        plan = read_json(path)
        if plan.get("kind") != kind:
            raise UserError(f"{root} holds a '{plan.get('kind')}' artifact where a '{kind}' one is needed")
        if plan.get("schema_version") != SCHEMA_VERSION:
            raise UserError(
                f"{root} has schema version {plan.get('schema_version')}, this program reads {SCHEMA_VERSION}:"
                f" make it again ({_MAKERS.get(kind, 'with this version')})"
            )
        manifests = []
        for shard in plan["shards"]:
            manifest = root / "manifests" / f"{shard['name']}.json"
            if not manifest.exists():
                raise UserError(
                    f"{root} is unfinished: shard {shard['name']} has no manifest; run the command that makes it"
                    f" again ({_MAKERS.get(kind, '')})"
                )
            manifests.append(read_json(manifest))
        artifact = cls(root, plan, manifests)
        for name, entry in artifact._files():
            artifact._check(root / name, entry, verify)
        return artifact

    @property
    def fingerprint(self) -> str:
        """Hash of the contents of every file: the identity of this artifact as an input of another."""
        return fingerprint(sorted((name, entry["sha256"]) for name, entry in self._files()))

    @property
    def splits(self) -> list[str]:
        """The splits that the artifact has rows for, in plan order."""
        return list(dict.fromkeys(shard["split"] for shard in self.plan["shards"] if shard["row_ids"]))

    def counts(self) -> dict[str, int]:
        """Return the row states, added up over the shards."""
        total: dict[str, int] = {}
        for manifest in self.manifests:
            for state, count in manifest["counts"].items():
                total[state] = total.get(state, 0) + count
        return total

    def table(self, name: str, split: str | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Return a table, of one split or of all, in plan order.

        Raises:
            UserError: if the split does not exist or a file cannot be read.
        """
        names = [s["name"] for s in self.plan["shards"] if split is None or s["split"] == split]
        if not names:
            raise UserError(f"{self.root} has no split '{split}', it has {', '.join(self.splits)}")
        selected = list(columns) if columns is not None else None
        return pa.concat_tables([_read_parquet(self.root / name / f"{shard}.parquet", selected) for shard in names])

    def shard_table(self, name: str, shard: str) -> pa.Table:
        """Return a table of one shard, to go through an artifact without holding all of it."""
        return _read_parquet(self.root / name / f"{shard}.parquet")

    def _files(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for manifest in self.manifests:
            yield from manifest["files"].items()

    def _check(self, path: Path, entry: Mapping[str, Any], verify: bool) -> None:
        mend = "delete its manifest and run the command that makes it again"
        if not path.exists():
            raise UserError(f"missing shard file {path}: {mend}")
        if verify and sha256_file(path) != entry["sha256"]:
            raise UserError(f"corrupt shard file {path}: its sha256 is not that of its manifest; {mend}")


_MAKERS = {
    "corpus": "sclmkb-gen corpus",
    "sdg": "sclmkb-gen sdg",
    "csi": "sclmkb-gen csi",
    "predicted": "sclmkb-gen cdg",
}


def set_aside(root: Path) -> Path:
    """Rename a folder to ``root.old-N`` and return the new name; nothing is deleted."""
    number = 1
    while (target := root.with_name(f"{root.name}.old-{number}")).exists():
        number += 1
    root.rename(target)
    return target


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that the file is either the old one or the new one, never half of it."""
    _write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file's contents as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_bytes(path: Path, data: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; on success sync it and rename it to ``path``.

    Whatever goes wrong, no half-written file stays behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: if the file cannot be read or holds something else.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError):
        raise UserError(f"{path} cannot be read as JSON: delete it and run the command that makes it") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object")
    return value


def _read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns)
    except FileNotFoundError:
        raise UserError(f"missing shard file {path}") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"corrupt shard file {path}: {str(error).splitlines()[0]}") from None


def plan_differences(existing: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return what differs between a saved plan and a wanted one, each in a few words; notes do not count."""
    groups = ("settings", "inputs", "versions")
    found = []
    for group in groups:
        old, new = existing.get(group, {}), wanted[group]
        for key in sorted(set(old) | set(new)):
            if old.get(key) != new.get(key):
                found.append(f"{key}: {old.get(key)!r} there, {new.get(key)!r} now")
    rest = [key for key in wanted if key not in (*groups, "fingerprint", "notes")]
    return found + [f"{key} differ" for key in rest if existing.get(key) != wanted[key]]


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "absent"


def _dataset_card(title: str, description: str, plan: Plan) -> str:
    splits = list(dict.fromkeys(s.split for s in plan.shards))
    lines = ["---", "configs:"]
    for table in sorted(plan.tables):
        lines += [f"- config_name: {table}", "  data_files:"]
        for split in splits:
            lines += [f"  - split: {split}", f"    path: {table}/{split}-*.parquet"]
    lines += ["---", "", f"# {title}", "", description, ""]
    lines += [f"- rows in {split}: {sum(len(s.row_ids) for s in plan.shards if s.split == split)}" for split in splits]
    notes = plan.to_json()
    lines += ["", "Settings:", "", "```json", json.dumps(notes["settings"], indent=1), "```", ""]
    for key, value in notes["notes"].items():
        lines += [f"{key}: {value}", ""]
    return "\n".join(lines)
