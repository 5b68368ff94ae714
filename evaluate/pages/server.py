"""What every local page shares: whom it answers, its headers, its files, and the server.

A page works as plain forms; its script only refines it. Nothing comes from elsewhere.
"""

import errno
import logging
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

import bottle
import jinja2
import waitress

from sclmkb.common.console import Interrupted, say
from sclmkb.common.errors import UserError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MOST_BODY = 32 << 20
"""Longest body of a request [bytes]; a longer one gets no page. Up to here, bodies are kept in memory."""
_POLICY = (
    "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_FILES = {"serve.css": "css", "serve.js": "javascript"}

Answers = Mapping[str, Callable[..., Any]]
"""What answers a request, by its path."""


def page_templates() -> jinja2.Environment:
    """Return the templates of pages; what they show is escaped."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("sclmkb.evaluate"), autoescape=True, undefined=jinja2.StrictUndefined
    )


def page_app(gets: Answers, allowed_hosts: Sequence[str] | None, posts: Answers | None = None) -> bottle.Bottle:
    """Return a page as a WSGI application, with its style and script.

    A request must be addressed to one of the allowed hosts, so that no other site's name can be made to point here;
    ``None``: to any. What is posted must come from the page itself.
    """
    app = bottle.Bottle()

    def check_host() -> None:
        # Not bottle's own notion of it, which believes a header that a page elsewhere can set.
        environ = bottle.request.environ
        try:
            name = urlsplit(f"//{environ.get('HTTP_HOST', '')}").hostname
        except ValueError:
            name = None
        if allowed_hosts is not None and name not in allowed_hosts:
            raise bottle.HTTPError(403, "this server answers to its own address alone")
        if environ["REQUEST_METHOD"] == "POST" and environ.get("HTTP_SEC_FETCH_SITE", "none") not in _OWN_SITE:
            raise bottle.HTTPError(403, "this server takes files from its own page alone")

    app.add_hook("before_request", check_host)
    app.add_hook("after_request", _add_headers)
    for path, answer in gets.items():
        app.route(path, "GET", answer)
    for path, answer in (posts or {}).items():
        app.route(path, "POST", answer)
    for name in _FILES:
        app.route(f"/{name}", "GET", lambda name=name: _file(name))
    app.default_error_handler = _plain_error
    return app


def make_http_server(app: bottle.Bottle, host: str, port: int) -> tuple[Any, int]:
    """Return a server that listens but does not answer yet, and its port; port 0: any that is free.

    Raises:
        UserError: if the port is in use or may not be used, or there is no such address.
    """
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()
    except (OSError, OverflowError) as error:
        listening.close()
        reason = f"cannot listen on {host}: {getattr(error, 'strerror', None) or error}"
        if isinstance(error, OverflowError):
            reason = f"port {port} is out of range: choose one from 0 to 65535"
        elif error.errno == errno.EADDRINUSE:
            reason = f"port {port} is in use: choose another with --port, or 0 for any that is free"
        elif error.errno == errno.EACCES:
            reason = f"port {port} may not be used: choose one from 1024 with --port"
        raise UserError(reason) from None
    logging.getLogger("waitress").setLevel(logging.ERROR)  # it would tell how many requests wait
    # A caller that says nothing is sent away after half a minute.
    server = waitress.create_server(
        app, sockets=[listening], ident=None, threads=8, channel_timeout=30,
        max_request_body_size=MOST_BODY, inbuf_overflow=MOST_BODY,
    )  # fmt: skip
    return server, listening.getsockname()[1]


def serve_page(
    make_app: Callable[[Sequence[str] | None], bottle.Bottle],
    host: str,
    port: int,
    *,
    load: Callable[[], None],
    others_can: str,
) -> None:
    """Answer until interrupted.

    Args:
        make_app: makes the page for the allowed hosts, see :func:`page_app`.
        host: to listen on.
        port: to listen on; 0: any that is free.
        load: loads what the first visitor needs.
        others_can: what everybody who reaches the host can do.
    """
    is_local = host in LOOPBACK
    server, port = make_http_server(make_app(LOOPBACK if is_local else None), host, port)
    load()
    shown = f"[{host}]" if ":" in host else host
    say(f"serve: http://{shown}:{port}/ (Ctrl-C stops)")
    if not is_local:
        say(f"serve: everybody who reaches {host} can {others_can}")
    answering = threading.Thread(target=server.run, daemon=True)  # it would keep an interruption to itself
    answering.start()
    try:
        answering.join()
    except Interrupted:
        say("serve: stopped")


def read_number(value: str, name: str) -> float:
    """Return the number in a parameter of a request.

    Raises:
        UserError: if it is none.
    """
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not abs(number) < 1e9:
        raise UserError(f"parameter {name} is '{value[:40]}': give a number")
    return number


_OWN_SITE = ("same-origin", "none")


def _file(name: str) -> str:
    bottle.response.content_type = f"text/{_FILES[name]}; charset=utf-8"
    return (resources.files("sclmkb.evaluate") / "templates" / name).read_text("utf-8")


def _add_headers() -> None:
    for header, value in _HEADERS.items():
        bottle.response.set_header(header, value)


def _plain_error(error: Any) -> str:
    bottle.response.content_type = "text/plain; charset=utf-8"
    _add_headers()
    return f"{error.status_code}: {error.body}\n"
