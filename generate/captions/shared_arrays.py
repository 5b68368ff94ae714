"""Arrays that every process of a run needs: made once between all of them, read by all.

::

    DIR/work/shared/NAME-00000-1a2b3c4d.npy    a part, named after its contents
    DIR/work/shared/NAME-00000.json            its sha256: makes it count, created only if there is none

No process hands parts out. Each process goes through them in an order of its own. It makes the missing parts and takes
the rest from the others. If two make the same part at once, the first one counts. Parts stay until the last step of
the run (:meth:`~sclmkb.common.artifacts.run_folder.Run.finish`). A missing or spoiled part is made again.

A part is mapped into memory, not read into it: processes of one machine hold it once, together.
"""

import contextlib
import io
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sclmkb.common.artifacts import storage
from sclmkb.common.artifacts.files import (
    create_json,
    keep,
    local_copy,
    read_json,
    sha256_file,
    sync_file,
    temporary_beside,
    write_json,
)
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.errors import UserError

Array = NDArray[Any]


def share_arrays(
    run: Run,
    name: str,
    sizes: Sequence[int],
    make: Callable[[int], Array],
    advance: Callable[[int], None] = lambda size: None,
) -> list[Array]:
    """Return the parts of an array, those that other processes have made and those that were still to make.

    Args:
        run: the run, whose plan must name all that the parts depend on.
        name: what they are called in the run's folder.
        sizes: how long each part is.
        make: makes a part; whatever it raises ends this, and what was made stays.
        advance: told the size of each part that is there.

    Raises:
        UserError: if a store goes on failing.
    """
    parts = _Parts(run, name, sizes)
    # In an order that no other process has, independent of all seeds.
    for index in random.SystemRandom().sample(range(len(sizes)), len(sizes)):
        if not parts.is_there(index):
            parts.commit(index, make(index))
        advance(sizes[index])

    found = storage.for_each(run.root, parts.read, range(len(sizes)))
    return [parts.commit(i, make(i)) if part is None else part for i, part in enumerate(found)]


class _Parts:
    def __init__(self, run: Run, name: str, sizes: Sequence[int]) -> None:
        self._folder, self._name, self._sizes = run.shared, name, sizes

    def is_there(self, index: int) -> bool:
        """Return whether a process has made the part; it may be spoiled since."""
        return self._marker(index).exists()

    def read(self, index: int) -> Array | None:
        """Return a part as it was made, or nothing if it is missing, spoiled or of another size."""
        try:
            entry = self._entry(index)
            path, digest = self._folder / entry["file"], entry["sha256"]
            local = local_copy(path, digest)  # compares, if that is not the path itself
            if local == path and sha256_file(path) != digest:
                return None
            found = _mapped(local)
        except (UserError, KeyError, FileNotFoundError):  # the last step of another process may delete all of it
            return None
        return found if len(found) == self._sizes[index] else None

    def commit(self, index: int, array: Array) -> Array:
        """Keep a part; return it, or that of another process if it was first."""
        stem = f"{self._name}-{index:05d}"
        try:
            with temporary_beside(self._folder / stem) as temporary:
                np.save(data := io.BytesIO(), array)  # not to the file: its own errors do not say that a disk is full
                temporary.write_bytes(data.getbuffer())
                sync_file(temporary)
                digest = sha256_file(temporary)
                path = self._folder / f"{stem}-{digest[:8]}.npy"
                keep(temporary, path, digest)
            entry = {"file": path.name, "sha256": digest}
            won = create_json(self._marker(index), entry)
            found = self.read(index)
            if found is None:  # what is there is spoiled
                write_json(self._marker(index), entry)
                found = self.read(index)
            elif not won and self._entry(index) != entry:
                path.unlink(missing_ok=True)
        except FileNotFoundError:  # as above
            return array
        return array if found is None else found

    def _entry(self, index: int) -> dict[str, Any]:
        """Return what makes a part count, empty if there is none."""
        with contextlib.suppress(UserError):
            return read_json(self._marker(index))
        return {}

    def _marker(self, index: int) -> Path:
        return self._folder / f"{self._name}-{index:05d}.json"


def _mapped(path: Path) -> Array:
    """Return what :func:`numpy.save` wrote, in place; ``numpy.load`` would keep a file open for each of thousands."""
    with pa.memory_map(str(path)) as file:
        data = file.read_buffer()
    head, form = pa.BufferReader(data), cast(Any, np.lib.format)
    form.read_magic(head)
    shape, _, dtype = form.read_array_header_1_0(head)
    return np.frombuffer(data, dtype, offset=head.tell()).reshape(shape)
