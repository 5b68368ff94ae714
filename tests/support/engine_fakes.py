"""Engines for a process of their own: what a caption says is what they do."""

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from sclmkb.common.errors import UserError
from sclmkb.generate.engines.base import Completion, Hear, Message, Request, tell, unheard


class ObedientEngine:
    """Writes the caption in capitals, or dies, hangs and fails where the caption says so."""

    def generate(self, requests: Sequence[Request], hear: Hear = unheard) -> list[Completion]:
        written = []
        for place, request in enumerate(requests):
            command, _, argument = request.messages[-1].content.partition(" ")
            if command == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if command == "hang":
                time.sleep(600)
            if command == "fail":
                raise RuntimeError("no such kernel")
            if command == "useless":
                raise UserError("the model was deleted")
            if command == "die-once" and not Path(argument).exists():
                Path(argument).touch()
                os._exit(3)
            if command == "log":
                with Path(argument).open("a") as log:
                    log.write("x")
            if command == "secret":
                continue
            text = f"{request.messages[-1].content.upper()} {request.seed}"
            written.append(Completion(text=text, finish_reason="stop", num_tokens=3))
            hear(place, written[-1])
        return written

    def pid(self) -> int:
        return os.getpid()


class WhereEngine(ObedientEngine):
    """Writes which device and process it is on."""

    def generate(self, requests: Sequence[Request], hear: Hear = unheard) -> list[Completion]:
        where = f"{os.environ.get('CUDA_VISIBLE_DEVICES')} {os.getpid()}"
        return tell([Completion(text=f"{where} {r.seed}", finish_reason="stop", num_tokens=1) for r in requests], hear)


def unusable() -> ObedientEngine:
    raise UserError("no such model")


def dies_at_the_start() -> ObedientEngine:
    os._exit(7)


def request(text: str, seed: int = 0) -> Request:
    return Request(messages=(Message("user", text),), seed=seed)


if __name__ == "__main__":  # says the worker's process id, then works until somebody kills this process
    from sclmkb.generate.engines.watched import WatchedEngine

    engine = WatchedEngine(ObedientEngine)
    print(engine.call("pid"), flush=True)
    engine.generate([request("hang")])
