"""What the Ray executor needs of Ray: a connection to a cluster, and in words what went wrong there."""

import logging
import os
import signal
import socket
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sclmkb.common.console import TERMINATING
from sclmkb.common.errors import UserError

PATIENCE_S = 60.0
"""How often it is said that there is no room."""

_OBJECT_STORE_BYTES = 100 * 2**20  # next to nothing travels
_CONNECT_TIMEOUT_S = 10.0


def reason(error: Exception, cause: Exception | None) -> str:
    """Return in one line why an actor did not do what it was asked to: what it raised, or how it died."""
    if cause is None:
        return textwrap.shorten(str(error), 500)
    return " ".join((str(cause) if isinstance(cause, UserError) else f"{type(cause).__name__}: {cause}").split())


def actor_with(actor: Any, options: Mapping[str, Any]) -> Any:
    """Return an actor class of Ray that asks for something.

    Raises:
        UserError: if there is no such option, or its value is none.
    """
    try:
        return actor.options(**options)
    except (TypeError, ValueError) as error:
        raise UserError(f"ray.options: {textwrap.shorten(str(error), 300)}") from None


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to a cluster, or start Ray on this machine; in the end leave it, or stop it.

    Raises:
        UserError: if there is no Ray, or nobody there.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--executor ray needs Ray, here and on every node: pip install 'sclmkb[ray]'") from None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    own: dict[str, Any] = {"object_store_memory": _OBJECT_STORE_BYTES, "include_dashboard": False}
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, *TERMINATING)}
    try:
        try:
            _knock(address)
            given = {"address": address} if address else {"address": "local", **own}
            ray.init(log_to_driver=False, logging_level=logging.WARNING, **given)
        except Exception as error:  # Ray raises all kinds, also bare ones
            where = f"the Ray cluster at {address}" if address else "a Ray on this machine"
            raise UserError(f"cannot work with {where}: {textwrap.shorten(str(error), 500)}") from None
        for signum, handler in handlers.items():
            signal.signal(signum, handler)  # Ray has put its own in their place
        yield
    except SystemError as error:  # what becomes of what a signal handler raises while Ray waits
        raise error.__cause__ or error from None
    finally:
        ray.shutdown()


def _knock(address: str | None) -> None:
    """Find out soon whether anybody is there; Ray itself takes minutes."""
    host, colon, port = (address or "").rpartition(":")
    if colon and port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), _CONNECT_TIMEOUT_S).close()


@contextmanager
def naming_the_node() -> Iterator[None]:
    """Add to what goes wrong the name of the machine."""
    try:
        yield
    except UserError as error:
        raise UserError(f"on {socket.gethostname()}: {error}") from None
