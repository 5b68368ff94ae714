"""What tests of other processes need: waiting for them, and ports."""

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack


def wait_for(what: Callable[[], object], seconds: float = 400.0) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def free_ports(number: int) -> list[int]:
    """Return ports that nobody listens at."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return [free.getsockname()[1] for free in sockets]
