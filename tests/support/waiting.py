"""Waiting for what other processes do."""

import time
from collections.abc import Callable


def wait_for(what: Callable[[], object], seconds: float = 400.0) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)
