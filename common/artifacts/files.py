"""Files that are whole or absent: what has its final name was written beside it, synced and then named.

Two ways to name a file: :func:`replacing` lets the last writer win, :func:`create_json` the first. Both also take paths
in object storage: then the file is written to the cache, and put from there as one object.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from sclmkb.common.artifacts import storage
from sclmkb.common.artifacts.storage import ObjectPath
from sclmkb.common.errors import UserError

_OLD_S = 3600.0
"""A temporary file that is older [s] belongs to no living process."""


def cache_dir() -> Path:
    """Return the folder for what can be had again: ``$SCLMKB_CACHE``, else ``~/.cache/sclmkb``."""
    return Path(os.environ.get("SCLMKB_CACHE") or Path.home() / ".cache" / "sclmkb")


@contextlib.contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """Yield a name beside ``path`` that no other process uses. A file that still has it at the end is deleted.

    What is to go to object storage gets a name in the cache.
    """
    if isinstance(path, ObjectPath):
        path = _cached_artifacts() / path.name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileNotFoundError, FileExistsError):  # another process has just deleted the folder, or the one above it
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; on success sync it and rename it to ``path``.

    Whatever goes wrong, no half-written file stays behind.
    """
    with temporary_beside(path) as temporary:
        yield temporary
        if isinstance(path, ObjectPath):
            storage.put_file(temporary, path)
            return
        sync_file(temporary)
        temporary.replace(path)
    sync_folder(path.parent)


@contextlib.contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Let one process of this machine in at a time for a file, so that two do not make the same one side by side."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def create_json(path: Path, value: Any) -> bool:
    """Write JSON under a name that is still free; of several processes the first one wins.

    Returns:
        Whether this call made the file; if not, it holds what another one wrote.

    Raises:
        UserError: if the file system has no hard links, or a store goes on failing.
    """
    if isinstance(path, ObjectPath):
        return storage.put_new(path, _json_bytes(value))
    with temporary_beside(path) as temporary:
        temporary.write_bytes(_json_bytes(value))
        sync_file(temporary)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
                raise
            raise UserError(f"the file system of {path.parent} has no hard links: choose another --out") from None
    sync_folder(path.parent)
    return True


def keep(temporary: Path, path: Path, sha256: str) -> None:
    """Give a synced file its final name; in object storage it is put, and stays in the cache under its sha256 too."""
    if isinstance(path, ObjectPath):
        storage.put_file(temporary, path)
        path = _cached_artifacts() / sha256
    temporary.replace(path)


def local_copy(path: Path, sha256: str) -> Path:
    """Return a local file with what ``path`` holds: itself, or from object storage one that is kept in the cache.

    The sha256 is compared for what is not local.

    Raises:
        UserError: if it is missing in object storage, or something else is there.
    """
    if not isinstance(path, ObjectPath):
        return path
    cached = _cached_artifacts() / sha256
    if cached.exists() and sha256_file(cached) == sha256:
        return cached
    for _ in range(2):  # it may have been spoiled on its way
        with temporary_beside(path) as temporary:
            try:
                storage.get_file(path, temporary)
            except FileNotFoundError:
                raise UserError(f"missing shard file {path}") from None
            if sha256_file(temporary) == sha256:
                temporary.replace(cached)
                return cached
    raise UserError(f"corrupt shard file {path}: its sha256 is not the one on record")


def checked_file(path: Path, sha256: str, mend: str, verify: bool = True) -> Path:
    """Return a local file with what a file of an artifact holds, once that is what it should be.

    ``mend`` says what to do if it is not so; ``verify`` compares the contents of a local file as well.

    Raises:
        UserError: if it is missing, or corrupt and ``verify``.
    """
    if not path.exists():
        raise UserError(f"missing shard file {path}: {mend}")
    if not verify:
        return path
    try:
        local = local_copy(path, sha256)  # compares, if that is not the path itself
        if local == path and sha256_file(path) != sha256:
            raise UserError(f"corrupt shard file {path}: its sha256 is not the one on record")
    except FileNotFoundError:  # whoever commits the shard deletes its chunks
        raise UserError(f"missing shard file {path}: {mend}") from None
    except UserError as error:
        raise UserError(f"{error}; {mend}") from None
    return local


def list_folder(root: Path, pattern: str = "*") -> list[Path]:
    """Return what lies in a folder, if it is there, in order; of object storage, as far as a listing shows."""
    if isinstance(root, ObjectPath):
        return [path for path in storage.listed(root) if path.match(pattern)]
    return sorted(root.glob(pattern))


def modified(path: Path) -> float:
    """Return when a file was last written to [s since 1970]."""
    return storage.put_at(path) if isinstance(path, ObjectPath) else path.stat().st_mtime


def remove_folder(root: Path) -> None:
    """Delete a folder if it is there; in object storage, what a listing shows of it."""
    if isinstance(root, ObjectPath):
        storage.remove_below(root)
    else:
        shutil.rmtree(root, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that the file is either the old one or the new one, never half of it."""
    write_bytes(path, _json_bytes(value))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that it is either the old one or the new one, never half of it."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a table so that its file is either the old one or the new one, never half of it."""
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def write_csv(path: Path, table: pa.Table) -> None:
    """Write a table so that its file is either the old one or the new one, never half of it."""
    with replacing(path) as temporary:
        pcsv.write_csv(table, temporary)


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


def read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file.

    Raises:
        UserError: if it is missing or corrupt.
    """
    try:
        return pq.read_table(path, columns=columns, partitioning=None)
    except FileNotFoundError:
        raise UserError(f"missing shard file {path}") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"corrupt shard file {path}: {str(error).splitlines()[0]}") from None


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file's contents as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def set_aside(root: Path) -> Path:
    """Rename a folder to ``root.old-N`` and return the new name; nothing is deleted.

    Raises:
        UserError: if it is in object storage, where nothing can be renamed.
    """
    if isinstance(root, ObjectPath):
        raise UserError(f"{root} is in object storage, where no run can be set aside: choose another --out")
    number = 1
    while (target := root.with_name(f"{root.name}.old-{number}")).exists():
        number += 1
    root.rename(target)
    return target


def sync_file(path: Path) -> None:
    """Wait until a file's contents are on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    # A folder that is gone needs no syncing; some network file systems cannot sync one.
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sweep_temporaries(root: Path) -> None:
    """Delete what killed writers left below ``root``; younger files may belong to a living one.

    In object storage nothing is half written. Files that were being sent there lie in the cache.
    """
    if isinstance(root, ObjectPath):
        root = _cached_artifacts()
    for path in root.rglob(".*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _OLD_S:
                path.unlink()


def _cached_artifacts() -> Path:
    return cache_dir() / "artifacts"


def _json_bytes(value: Any) -> bytes:
    return f"{json.dumps(value, indent=1, ensure_ascii=False)}\n".encode()
