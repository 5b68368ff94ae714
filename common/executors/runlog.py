"""A log of every start of a run: ``logs/TIME-HOST-PID.jsonl``, one JSON object per line, never overwritten.

The first line says who started what, the last one how it ended; a log without that line belongs to a process that is
at work, or was killed. A log in JSON on standard error (``--log-format json``) has the same lines.
"""

import contextlib
import io
import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from sclmkb.common.artifacts.plan import Shard, format_ranges
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.artifacts.storage import ObjectPath
from sclmkb.common.console import log_event
from sclmkb.common.errors import UserError


class RunLog:
    """Writes one line per event, each flushed, so that a watcher of the run sees it at once."""

    def __init__(self, file: TextIO) -> None:
        """Use :meth:`open`."""
        self._file = file

    @classmethod
    @contextlib.contextmanager
    def open(cls, run: Run, mine: Sequence[Shard]) -> Iterator["RunLog"]:
        """Open a new log, write its first line with the shards that are ``mine``, and on leaving its last one."""
        folder, names = run.root / "logs", {shard.name for shard in mine}
        shards = format_ranges(i for i, shard in enumerate(run.plan.shards) if shard.name in names)
        if not isinstance(folder, ObjectPath):
            folder.mkdir(parents=True, exist_ok=True)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        stem, number = f"{stamp}-{socket.gethostname()}-{os.getpid()}", 0
        while (path := folder / f"{stem}{f'-{number}' if number else ''}.jsonl").exists():
            number += 1
        with _Object(path) if isinstance(path, ObjectPath) else path.open("x", encoding="utf-8") as file:
            log = cls(file)
            log.write("start", host=socket.gethostname(), pid=os.getpid(), shards=shards)
            how = "done"
            try:
                yield log
            except BaseException as error:
                how = f"{type(error).__name__}: {' '.join(str(error).split())}"
                raise
            finally:
                with contextlib.suppress(OSError, UserError):  # the disk may be full, the store away
                    log.write("end", how=how)

    def write(self, event: str, **fields: Any) -> None:
        """Write one line: time [s since 1970], event and fields."""
        self._file.write(json.dumps({"time": round(time.time(), 3), "event": event, **fields}) + "\n")
        self._file.flush()
        log_event(event, **fields)


class _Object(io.StringIO):
    """A text that is put anew at every flush: objects cannot be appended to."""

    def __init__(self, path: ObjectPath) -> None:
        super().__init__()
        self._path = path

    def flush(self) -> None:
        self._path.write_bytes(self.getvalue().encode())
