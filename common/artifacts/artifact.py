"""Reading a finished artifact, a folder that :mod:`sclmkb.common.artifacts.run_folder` planned and committed."""

import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sclmkb.common.artifacts import storage
from sclmkb.common.artifacts.files import checked_file, local_copy, read_json, read_parquet, write_bytes
from sclmkb.common.artifacts.plan import SavedPlan, Shard, dataset_card, hash_row_ids, rows_name
from sclmkb.common.artifacts.schemas import SCHEMA_VERSION
from sclmkb.common.artifacts.storage import ObjectPath
from sclmkb.common.config import fingerprint
from sclmkb.common.errors import UserError


class UnfinishedError(UserError):
    """Shards of an artifact are not committed."""


def read_plan(root: Path, kind: str) -> SavedPlan:
    """Read the plan of an artifact.

    Raises:
        UserError: if there is none, or one of another kind or schema version.
    """
    path = root / "plan.json"
    if not path.exists():
        if isinstance(path, ObjectPath):
            storage.check_bucket(path)
        raise UserError(f"no {kind} artifact at {root}: {_MAKERS.get(kind, 'make it')} with --out {root}")
    plan = read_json(path)
    if plan.get("kind") != kind:
        raise UserError(f"{root} holds a '{plan.get('kind')}' artifact where a '{kind}' one is needed")
    if plan.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"{root} has schema version {plan.get('schema_version')}, this program reads {SCHEMA_VERSION}:"
            f" make it again ({_MAKERS.get(kind, 'with this version')})"
        )
    try:
        sha256 = plan["row_ids"]
        return SavedPlan.from_json(plan, functools.cache(lambda: read_row_ids(root, sha256)))
    except KeyError as error:
        raise UserError(f"{path} does not say its {error}: make the artifact again ({_MAKERS.get(kind, '')})") from None


def read_row_ids(root: Path, sha256: str) -> pa.ChunkedArray:
    """Return the row ids of all shards of a plan, in order.

    Raises:
        UserError: if their file is missing, or holds others.
    """
    path = root / rows_name(sha256)
    try:
        ids = pq.read_table(pa.BufferReader(path.read_bytes()), columns=["row_id"])["row_id"]
    except FileNotFoundError:
        raise UserError(
            f"the row ids of the plan are missing, {path}: run the command that makes the artifact again"
        ) from None
    except (pa.ArrowInvalid, OSError):
        ids = pa.chunked_array([], pa.string())
    if hash_row_ids(chunk.to_pylist() for chunk in ids.chunks) != sha256:
        raise UserError(
            f"the row ids of the plan are corrupt: delete {path} and run the command that makes the artifact again"
        )
    return ids


class Artifact:
    """A finished artifact folder, checked when it is opened."""

    def __init__(self, root: Path, plan: SavedPlan, manifests: list[dict[str, Any]]) -> None:
        """Use :meth:`open`."""
        self.root, self.plan, self.manifests = root, plan, manifests
        self._manifest_of = {manifest["shard"]: manifest for manifest in manifests}

    @classmethod
    def open(cls, root: Path, kind: str, *, verify: bool = True) -> "Artifact":
        """Open an artifact and check that it is whole; ``verify`` also compares the sha256 of every file.

        Raises:
            UserError: if it is missing, of another kind or schema version, unfinished (UnfinishedError) or corrupt.
        """
        plan = read_plan(root, kind)

        def read(shard: Shard) -> dict[str, Any]:
            manifest = root / "manifests" / f"{shard.name}.json"
            if not manifest.exists():
                raise UnfinishedError(
                    f"{root} is unfinished: shard {shard.name} has no manifest; run the command that makes it"
                    f" again ({_MAKERS.get(kind, '')})"
                )
            return read_json(manifest)

        mend = "delete its manifest and run the command that makes it again"
        artifact = cls(root, plan, list(storage.for_each(root, read, plan.shards)))
        files = list(artifact._files())
        storage.for_each(root, lambda file: checked_file(root / file[0], file[1]["sha256"], mend, verify), files)
        return artifact

    @property
    def fingerprint(self) -> str:
        """Hash of the contents of every file: the identity of this artifact as an input of another."""
        return fingerprint(sorted((name, entry["sha256"]) for name, entry in self._files()))

    @property
    def splits(self) -> list[str]:
        """The splits that the artifact has rows for, in plan order."""
        return list(dict.fromkeys(shard.split for shard in self.plan.shards if shard.row_ids))

    def manifest(self, shard: str) -> dict[str, Any]:
        """Return the manifest of a shard, by its name."""
        return self._manifest_of[shard]

    def describe(self) -> dict[str, Any]:
        """Return what the plan of another artifact says of this one as its source: kind, settings and notes."""
        notes = {key: value for key, value in self.plan.notes.items() if key != "root"}  # of this machine alone
        return {"kind": self.plan.kind, "settings": self.plan.settings, "notes": notes}

    def write_card(self, title: str, description: str, details: str = "") -> None:
        """Write the dataset card, see :meth:`Run.finish`."""
        files = [name for name, _ in self._files()]
        write_bytes(self.root / "README.md", dataset_card(title, description, details, self.plan, files).encode())

    def counts(self) -> dict[str, int]:
        """Return the row states, added up over the shards."""
        total = Counter[str]()
        for manifest in self.manifests:
            total.update(manifest["counts"])
        return dict(total)

    def table(self, name: str, split: str | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Return a table, of one split or of all, in plan order.

        Raises:
            UserError: if the split does not exist or a file cannot be read.
        """
        names = [s.name for s in self.plan.shards if split is None or s.split == split]
        if not names:
            raise UserError(f"{self.root} has no split '{split}', it has {', '.join(self.splits)}")
        selected = list(columns) if columns is not None else None
        paths = storage.for_each(self.root, lambda shard: self._path(name, shard), names)
        return pa.concat_tables([read_parquet(path, selected) for path in paths])

    def shard_table(self, name: str, shard: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return a table of one shard, to go through an artifact without holding all of it."""
        return read_parquet(self._path(name, shard), list(columns) if columns is not None else None)

    def _path(self, name: str, shard: str) -> Path:
        """Return where a table of a shard can be read, a local file."""
        found: str | None = next((file for file in self.manifest(shard)["files"] if file.startswith(f"{name}/")), None)
        if found is None:
            raise UserError(f"{self.root} has no table '{name}', it has {', '.join(self.plan.tables)}")
        return local_copy(self.root / found, self.manifest(shard)["files"][found]["sha256"])

    def _files(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for manifest in self.manifests:
            yield from manifest["files"].items()


def open_all(roots: Sequence[Path], kind: str) -> list[Artifact]:
    """Open artifacts, and the finished ones in folders that are none themselves, by name.

    Raises:
        UserError: if there is none in one of the folders, or one is corrupt.
    """
    found = []
    for root in roots:
        inside = [] if (root / "plan.json").exists() else [path.parent for path in sorted(root.glob("*/plan.json"))]
        opened = []
        for folder in [folder for folder in inside if ".old-" not in folder.name]:
            with suppress(UnfinishedError):
                opened.append(Artifact.open(folder, kind))
        found += opened or [Artifact.open(root, kind)]
    return found


_MAKERS = {
    "corpus": "sclmkb-gen corpus",
    "sdg": "sclmkb-gen sdg",
    "csi": "sclmkb-gen csi",
    "predicted": "sclmkb-gen cdg",
}
