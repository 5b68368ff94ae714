"""Files that are whole or absent: what has its final name was written beside it, synced and then named.

Two ways to name a file: :func:`replacing` lets the last writer win, :func:`create_json` the first.
"""

import contextlib
import errno
import hashlib
import io
import itertools
import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from sclmkb.common.errors import UserError


@contextlib.contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """Yield a name beside ``path`` that nobody else uses; whatever still has it at the end is deleted."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError:  # somebody has just deleted the folder above, which was empty
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
        sync_file(temporary)
        temporary.replace(path)
    sync_folder(path.parent)


def create_json(path: Path, value: Any) -> bool:
    """Write JSON under a name that is still free; of several processes the first one wins.

    Returns:
        Whether this call made the file; if not, it holds what another one wrote.

    Raises:
        UserError: if the file system has no hard links.
    """
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
    """Rename a folder to ``root.old-N`` and return the new name; nothing is deleted."""
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


def sweep_temporaries(root: Path, older_than_s: float = 3600.0) -> None:
    """Delete what killed writers left below ``root``; younger files may belong to a living one."""
    for path in root.rglob(".*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > older_than_s:
                path.unlink()


def _json_bytes(value: Any) -> bytes:
    pieces = json.JSONEncoder(indent=1, ensure_ascii=False).iterencode(value)
    lines = io.BytesIO()
    while piece := "".join(itertools.islice(pieces, 65536)):  # all of them at once, of a large plan, would be gigabytes
        lines.write(piece.encode())
    lines.write(b"\n")
    return lines.getvalue()
