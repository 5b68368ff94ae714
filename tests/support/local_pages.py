"""Local pages under test: a server on a free port, requests to it, and a browser."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import bottle

from sclmkb.evaluate.pages.server import make_http_server

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)


@contextmanager
def running(app: bottle.Bottle) -> Iterator[str]:
    """Serve a page on a free port and yield its address."""
    server, port = make_http_server(app, "127.0.0.1", 0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        with suppress(OSError):  # it was awake already, and closed before it was called
            server.trigger.pull_trigger(server.close)  # in its thread
        thread.join(30)


def get(address: str, **headers: str) -> tuple[int, str, Any]:
    """Return status, body and headers."""
    request = urllib.request.Request(address, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read().decode("utf-8", "replace"), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode("utf-8", "replace"), error.headers


def asking(**parameters: Any) -> str:
    return "?" + urllib.parse.urlencode(parameters, doseq=True)


# Chromium reads from file 3 and writes to file 4.
_LAUNCH = (
    "import fcntl, os, sys; a, b = (fcntl.fcntl(int(f), fcntl.F_DUPFD, 50) for f in sys.argv[1:3]);"
    " os.dup2(a, 3); os.dup2(b, 4); os.execv(sys.argv[3], sys.argv[3:])"
)


class Browser:
    """A headless Chromium, told what to do through a pair of pipes (the DevTools protocol)."""

    def __init__(self, folder: Path, address: str) -> None:
        into, self._into = os.pipe()
        self._out, out = os.pipe()
        options = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", f"--user-data-dir={folder}", "--remote-debugging-pipe",
        ]  # fmt: skip
        command = [sys.executable, "-c", _LAUNCH, str(into), str(out), CHROMIUM, *options, "about:blank"]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, pass_fds=(into, out), stdout=quiet, stderr=quiet)
        os.close(into)
        os.close(out)
        self._rest, self._count = b"", 0
        target = self._call("Target.createTarget", {"url": address})["targetId"]
        self._session = self._call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]

    def run(self, script: str) -> Any:
        """Return what a script gives in the page."""
        options = {"expression": script, "returnByValue": True, "awaitPromise": True}
        return self._call("Runtime.evaluate", options, self._session)["result"].get("value")

    def wait(self, script: str) -> Any:
        """Return what a script gives once that is true."""
        end = time.monotonic() + 90
        while time.monotonic() < end:
            if value := self.run(script):
                return value
            time.sleep(0.1)
        raise AssertionError(f"never true: {script}")

    def resize(self, width: int) -> None:
        """Give the page a window of another width [pixels]."""
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", size, self._session)

    def close(self) -> None:
        os.close(self._into)
        self._process.kill()
        self._process.wait(30)
        os.close(self._out)

    def _call(self, method: str, parameters: dict[str, Any], session: str | None = None) -> dict[str, Any]:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        os.write(self._into, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                read = os.read(self._out, 1 << 16)
                assert read, "Chromium has ended"
                self._rest += read
            line, _, self._rest = self._rest.partition(b"\0")
            answer = json.loads(line)
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
