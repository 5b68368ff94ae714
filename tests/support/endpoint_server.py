"""A server of OpenAI's chat completions on loopback that misbehaves on demand."""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from sclmkb.generate.engines.base import SamplingSettings
from sclmkb.generate.engines.endpoint import EndpointEngine, EndpointSettings

SAMPLING = SamplingSettings(max_tokens=12, stop=("\n",))
Answer = tuple[int, dict[str, str], str]
"""Status, headers and text."""


def text_of(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


def completion(text: Any, reason: Any = "stop") -> Answer:
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": reason}
    return 200, {}, json.dumps({"choices": [choice], "usage": {"completion_tokens": 5}})


class Server:
    """Answers as ``answer`` says, which gets the request's body and how often it came."""

    def __init__(self) -> None:
        self.answer: Callable[[dict[str, Any], int], Answer] = lambda body, _: completion(text_of(body).upper())
        self.models: Answer = 200, {}, json.dumps({"data": [{"id": "tiny"}]})
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.times: list[float] = []
        self.under_way = self.most_under_way = 0
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._send(server.models)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with server._lock:
                    server.keys.add(self.headers["authorization"])
                    server.times.append(time.monotonic())
                    server.bodies.append(body)
                    tries = sum(other == body for other in server.bodies)
                    server.under_way += 1
                    server.most_under_way = max(server.most_under_way, server.under_way)
                try:
                    answer = server.answer(body, tries)
                finally:
                    with server._lock:
                        server.under_way -= 1
                self._send(answer)

            def _send(self, answer: Answer) -> None:
                status, headers, text = answer
                if status == 0:  # hang up without a word
                    self.close_connection = True
                    return
                data = text.encode()
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except (BrokenPipeError, ConnectionResetError):  # the client did not wait
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def engine(self, **settings: Any) -> EndpointEngine:
        chosen = {"base_url": self.url, "backoff_s": 0.01, "timeout_s": 5.0, **settings}
        return EndpointEngine("tiny", EndpointSettings.model_validate(chosen), SAMPLING)

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
