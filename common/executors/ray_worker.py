"""What an actor of :mod:`sclmkb.common.executors.ray_commands` does on its node."""

import os
import socket
import subprocess
import tempfile
from collections.abc import Sequence

from sclmkb.common.console import LOG_VARIABLE, LogFormat
from sclmkb.common.errors import UserError
from sclmkb.common.executors.ray_cluster import enter
from sclmkb.common.processes import stopping_with_parent

_TAIL_BYTES = 8192


class CommandRunner:
    """An actor: a command in a process of its own. It can be told to stop while it waits for it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._is_stopping = False

    def begin(self, folder: str) -> tuple[str, str, str]:
        """Go to the folder; return host, id of the node, and what is wrong (or nothing)."""
        import ray

        problem = ""
        try:
            enter(folder)
        except UserError as error:
            problem = str(error)
        return socket.gethostname(), ray.get_runtime_context().get_node_id(), problem

    def run(self, arguments: Sequence[str]) -> tuple[int, str]:
        """Run the command to its end; return its exit code and the end of what it printed."""
        environment = {**os.environ, LOG_VARIABLE: LogFormat.TEXT.value}
        with tempfile.TemporaryFile() as output:
            self._process = subprocess.Popen(
                stopping_with_parent(arguments),
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment,
            )  # fmt: skip
            if self._is_stopping:
                self._process.terminate()
            code = self._process.wait()
            output.seek(max(0, output.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return code, output.read().decode("utf-8", "replace").strip()

    def stop(self) -> None:
        """Tell the command to stop in good order."""
        self._is_stopping = True
        if self._process is not None:
            self._process.terminate()
