"""The same folder in four places: local, in fsspec's memory, and behind an S3 API on loopback, in order or failing."""

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from sclmkb.common.artifacts import object_calls
from sclmkb.common.artifacts.storage import ObjectPath, parse_folder

CALLS = ("cat_file", "get_file", "info", "ls", "pipe_file", "put_file", "rm", "rm_file")
READ_TIMEOUT_S = 1.0


class Faults:
    """Fails a part of the calls, half of them before they take effect and half of them after, and delays a few."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.set(0.0)

    def set(self, share: float, slow: float = 0.0) -> None:
        self.share, self.slow, self.failed, self.delayed, self.draw = share, slow, 0, 0, random.Random(0)

    def next(self) -> str:
        with self.lock:
            number = self.draw.random()
            if number < self.share:
                self.failed += 1
                return "before" if number < self.share / 2 else "after"
            if number < self.share + self.slow:
                self.delayed += 1
                return "slow"
            return ""


@dataclass(frozen=True)
class Store:
    """A place for artifacts, and how it fails."""

    name: str
    root: Path
    faults: Faults

    def files(self, root: Path) -> dict[str, bytes]:
        """Return everything below a folder, by name."""
        if not isinstance(root, ObjectPath):
            return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
        share, self.faults.share = self.faults.share, 0.0
        try:
            fs = fsspec.filesystem(root.parts[0].removesuffix(":"), use_listings_cache=False)
            start = fs._strip_protocol(str(root)) + "/"
            return {name.removeprefix(start): fs.cat_file(name) for name in sorted(fs.find(start))}
        finally:
            self.faults.share = share


@pytest.fixture(scope="session")
def s3_server() -> Iterator[tuple[str, Faults]]:
    """Start moto's S3 API in a thread; yield its address and how it fails."""
    pytest.importorskip("s3fs", reason="the extra s3 is not installed")
    werkzeug_app = pytest.importorskip("moto.moto_server.werkzeug_app", reason="moto is not installed, or Flask")
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, *args: Any) -> None:
            pass

    served, faults, one_at_a_time = (
        werkzeug_app.DomainDispatcherApplication(werkzeug_app.create_backend_app),
        Faults(),
        threading.Lock(),
    )

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        fault = faults.next()
        if fault == "slow":
            time.sleep(1.5 * READ_TIMEOUT_S)
        if fault != "before":
            sent: list[Any] = []
            with one_at_a_time:  # S3 decides who is first, moto would look and then write
                body = b"".join(served(environ, lambda *args: sent.append(args)))
            if fault != "after":
                start_response(*sent[-1])
                return [body]
        start_response("503 Slow Down", [("Content-Type", "application/xml")])
        return [b"<Error><Code>InternalError</Code><Message>injected</Message></Error>"]

    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.port}", faults
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def s3(s3_server: tuple[str, Faults], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Store:
    """Make a bucket of this test's own; credentials and address are in the environment, as docs say."""
    import s3fs

    address, faults = s3_server
    faults.set(0.0)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": address,
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": READ_TIMEOUT_S}})
    s3fs.S3FileSystem.clear_instance_cache()
    bucket = f"bucket-{abs(hash(request.node.nodeid)) % 10**9}"
    fsspec.filesystem("s3").mkdir(bucket)
    return Store("s3", parse_folder(f"s3://{bucket}/runs"), faults)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Store:
    faults, one_at_a_time, is_within = Faults(), threading.RLock(), False

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal is_within
            with one_at_a_time:
                if is_within:  # one call of another: they fail together
                    return real(*args, **kwargs)
                fault, is_within = faults.next(), True
                try:
                    if not fault:
                        return real(*args, **kwargs)
                    if fault == "after":
                        with suppress(OSError):
                            real(*args, **kwargs)
                    raise OSError(f"injected {fault}")
                finally:
                    is_within = False

        return call

    for name in CALLS:
        monkeypatch.setattr(MemoryFileSystem, name, failing(getattr(MemoryFileSystem, name)))
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    return Store("memory", parse_folder("memory://bucket/runs"), faults)


@pytest.fixture(
    params=[
        "local",
        pytest.param("memory", marks=pytest.mark.long),
        "memory, failing",
        "s3",
        pytest.param("s3, failing", marks=pytest.mark.long),
    ]
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Return each place in turn; those that fail do so in 10 % of the calls, and S3 then also keeps some waiting."""
    name, _, failing = request.param.partition(", ")
    if name == "local":
        return Store("local", tmp_path / "runs", Faults())
    found: Store = request.getfixturevalue(name)
    if failing:
        found.faults.set(0.1, slow=0.01 if name == "s3" else 0.0)
    return found


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Wait shortly between tries, and keep copies in a cache of the test's own."""
    monkeypatch.setattr(object_calls, "FIRST_PAUSE_S", 0.002)
    monkeypatch.setenv("SCLMKB_CACHE", str(tmp_path / "cache"))
