"""A run whose endpoint fails a fifth of the requests, each in another way."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.generate.captions.sdg import plan_captions
from sclmkb.generate.engines.base import SamplingSettings
from sclmkb.generate.engines.endpoint import EndpointEngine, EndpointSettings
from sclmkb.generate.runs.verify import find_problems

TIMEOUT_S = 1.5


class Handler(BaseHTTPRequestHandler):
    """Rewrites captions; with ``flaky``, fails a fifth of the requests the first time that they come."""

    protocol_version = "HTTP/1.1"
    flaky = False
    seen: set[int] = set()  # noqa: RUF012 (shared on purpose)

    def do_GET(self) -> None:
        self._send(200, json.dumps({"data": [{"id": "tiny"}]}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        seed = body["seed"]
        digit = hashlib.sha256(str(seed).encode()).digest()[0] % 20
        caption = body["messages"][-1]["content"].removeprefix("Caption: ")
        answer = {"message": {"role": "assistant", "content": f"there stands {caption}"}, "finish_reason": "stop"}
        text = json.dumps({"choices": [answer], "usage": {"completion_tokens": 5}})
        if self.flaky and digit < 4 and seed not in self.seen:
            self.seen.add(seed)
            if digit == 0:
                return self._send(500, "oops")
            if digit == 1:
                time.sleep(2 * TIMEOUT_S)
            if digit == 2:
                return self._send(200, text[: len(text) // 2])
            if digit == 3:
                return self._send(200, json.dumps({"choices": []}))
        return self._send(200, text)

    def _send(self, status: int, text: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (BrokenPipeError, ConnectionResetError):  # the client did not wait
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    pytest.importorskip("httpx")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    Handler.flaky, Handler.seen = False, set()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()


def test_the_rows_are_those_of_a_calm_endpoint(fakes: ModuleType, corpus: Path, url: str, tmp_path: Path) -> None:
    settings = fakes.fake_settings(shard_size=60, wave_size=200)

    def run(out: Path, max_retries: int = 0, **options: Any) -> list[dict[str, Any]]:
        chosen = EndpointSettings(base_url=url, timeout_s=TIMEOUT_S, max_retries=max_retries, concurrency=32)
        engine = EndpointEngine("tiny", chosen, SamplingSettings())
        artifact = plan_captions(settings, corpus, out, fakes.make_backend(settings, engine), **options).run_here()
        assert artifact is not None
        return artifact.table("rows").to_pylist()

    calm = run(tmp_path / "calm", max_retries=5)
    Handler.flaky = True
    flaky = run(tmp_path / "flaky")
    errors = {row["error"].partition(",")[0] for row in flaky if row["state"] == "error"}
    attempts = Artifact.open(tmp_path / "flaky", "sdg").table("attempts").to_pylist()
    failures = [a["reason"] for a in attempts if a["finish_reason"] == "error"]
    assert len(failures) > 0.1 * len(attempts)
    assert any("500" in reason for reason in failures)
    assert any("no answer in" in reason for reason in failures)
    assert errors
    again = run(tmp_path / "again", max_retries=5, retry=tmp_path / "flaky")
    assert again == calm
    assert list(find_problems(tmp_path / "again")) == []
