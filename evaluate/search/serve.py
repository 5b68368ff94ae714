"""``sclmkb-eval serve``: search over the simulated link on a local page.

::

    GET /                      the page, with results where there is a query (so it works without script too)
    GET /results?q=…&snr=…     the results alone, which the page's script asks for
    GET /item/N/INDEX.png      drawing of an item of checkpoint N's gallery
    GET /sound/N/INDEX         its sound
    GET /serve.css /serve.js   what the page needs; nothing comes from elsewhere

Parameters: ``q`` the sentence, ``snr`` in dB, ``receiver``, ``seed`` of the channel, and ``c`` number of a checkpoint,
once or several times.
"""

import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import bottle

from sclmkb.common.console import say
from sclmkb.common.errors import UserError
from sclmkb.common.link.link import RECEIVERS, Receiver
from sclmkb.common.tasks.trained import TrainedSystem
from sclmkb.evaluate.measure.systems import Loader, OpenSystem
from sclmkb.evaluate.pages.server import page_app, page_templates, read_number, serve_page
from sclmkb.evaluate.search.items import to_png
from sclmkb.evaluate.search.search import MAX_CHARACTERS, Found, check_query, check_receiver, search

SLIDER_DB = (-15, 30)
_MOST_SYSTEMS = 4
_MOST_SYMBOLS = 256
_NUM_EXAMPLES = 4


class Desk:
    """The checkpoints behind a page, each loaded when it is first asked for; one search at a time.

    Attributes:
        checkpoints: what can be chosen.
        top: how many items a search returns.
    """

    def __init__(self, loader: Loader, checkpoints: Sequence[TrainedSystem], top: int) -> None:
        self.checkpoints, self.top = list(checkpoints), top
        self._loader, self._systems, self._lock = loader, dict[int, OpenSystem](), threading.Lock()
        self.draw = lru_cache(maxsize=1024)(self._draw)

    def system(self, number: int) -> OpenSystem:
        """Return a checkpoint, ready to search.

        Raises:
            UserError: if there is no such checkpoint, or it does not fit the inputs.
        """
        if not 0 <= number < len(self.checkpoints):
            raise UserError(f"there is no checkpoint {number}: choose one from 0 to {len(self.checkpoints) - 1}")
        with self._lock:
            if number not in self._systems:
                self._systems[number] = self._loader.open(self.checkpoints[number])
            return self._systems[number]

    def search(self, number: int, query: str, snr_db: float, receiver: Receiver, seed: int) -> Found:
        """Send a sentence over the link of one checkpoint; see :func:`search`."""
        system = self.system(number)
        with self._lock:
            return search(system, query, snr_db=snr_db, receiver=receiver, seed=seed, top=self.top)

    def preselected(self) -> list[int]:
        """Return which checkpoints are compared at first: two systems, those without perfect CSI before others."""
        order = sorted(range(len(self.checkpoints)), key=lambda i: self.checkpoints[i].settings.csi_source == "perfect")
        chosen: dict[str, int] = {}
        for number in order:
            chosen.setdefault(self.checkpoints[number].settings.system, number)
        return sorted(list(chosen.values())[:2])

    def _draw(self, number: int, index: int) -> bytes:
        items = self.system(number).items
        if not 0 <= index < len(items):
            raise UserError(f"there is no item {index}: the gallery has {len(items)}")
        return to_png(items.draw(index))


def make_app(desk: Desk, allowed_hosts: Sequence[str] | None = None) -> bottle.Bottle:
    """Return the page as a WSGI application; ``allowed_hosts`` as in :func:`page_app`."""
    pages = page_templates()

    def results(asked: _Asked) -> str:
        if not asked.query:
            return ""
        found = [desk.search(i, asked.query, asked.snr_db, asked.receiver, asked.seed) for i in asked.numbers]
        shown = [_shown(number, one, desk) for number, one in zip(asked.numbers, found, strict=True)]
        return pages.get_template("results.html.j2").render(found=shown, error=None)

    def failed(error: Exception) -> str:
        bottle.response.status = 400
        return pages.get_template("results.html.j2").render(found=[], error=str(error))

    def page() -> str:
        asked = _Asked(desk.preselected())
        try:
            asked = _asked(bottle.request.query, desk)
            shown = results(asked)
        except UserError as error:
            shown = failed(error)
        return pages.get_template("serve.html.j2").render(
            asked=asked,
            choices=desk.checkpoints,
            receivers=RECEIVERS,
            slider=SLIDER_DB,
            longest=MAX_CHARACTERS,
            examples=_examples(desk, asked.numbers),
            results=shown,
        )

    def results_alone() -> str:
        try:
            return results(_asked(bottle.request.query, desk))
        except UserError as error:
            return failed(error)

    def item(number: int, index: int) -> bytes:
        try:
            data = desk.draw(number, index)
        except UserError as error:
            raise bottle.HTTPError(404, str(error)) from None
        bottle.response.content_type = "image/png"
        bottle.response.set_header("Cache-Control", "private, max-age=3600")
        return data

    def sound(number: int, index: int) -> bytes:
        try:
            items = desk.system(number).items
            found = items.sound(index) if 0 <= index < len(items) else None
        except UserError:
            found = None
        if found is None:
            raise bottle.HTTPError(404, "there is no such sound")
        bottle.response.content_type = found.media_type
        return found.data

    return page_app(
        {
            "/": page,
            "/results": results_alone,
            "/item/<number:int>/<index:int>.png": item,
            "/sound/<number:int>/<index:int>": sound,
        },
        allowed_hosts,
    )


def serve(desk: Desk, host: str, port: int) -> None:
    """Answer until interrupted."""

    def load() -> None:
        for number in desk.preselected():
            say(f"serve: loading {desk.checkpoints[number].name}")
            desk.system(number)

    others_can = "search, and see what is found"
    serve_page(lambda hosts: make_app(desk, hosts), host, port, load=load, others_can=others_can)


class _Asked(NamedTuple):
    """What a request asks for."""

    numbers: list[int]
    query: str = ""
    snr_db: float = 10.0
    receiver: Receiver = "literal"
    seed: int = 0


def _asked(given: Any, desk: Desk) -> _Asked:
    """Check the parameters of a request; one that cannot be used is a UserError."""
    text = given.getunicode("q") or ""
    numbers = sorted({int(read_number(value, "c")) for value in given.getall("c")}) or desk.preselected()
    if len(numbers) > _MOST_SYSTEMS:
        raise UserError(f"{len(numbers)} checkpoints are chosen: {_MOST_SYSTEMS} at most fit side by side")
    return _Asked(
        query=check_query(text) if text.strip() else "",
        snr_db=read_number(given.get("snr") or "10", "snr"),
        receiver=check_receiver(given.get("receiver") or "literal"),
        seed=int(read_number(given.get("seed") or "0", "seed")),
        numbers=numbers,
    )


def _shown(number: int, found: Found, desk: Desk) -> dict[str, Any]:
    """Return what the template shows of a result."""
    items = desk.system(number).items
    width, height = items.draw(found.hits[0].index).size
    sent, received = found.sent.flatten()[:_MOST_SYMBOLS], found.received.flatten()[:_MOST_SYMBOLS]
    reach = 1.08 * max(float(x.abs().max()) for x in (sent.real, sent.imag, received.real, received.imag)) or 1.0
    streams, uses = found.sent.shape
    points = [
        {
            "stream": i // uses % 6,
            "sent": (a.real / reach, -a.imag / reach),
            "received": (b.real / reach, -b.imag / reach),
        }
        for i, (a, b) in enumerate(zip(sent.tolist(), received.tolist(), strict=True))
    ]
    return {
        "number": number,
        "found": found,
        "kind": items.split.media.form.kind,
        "has_sound": bool(items.split.media.modality.sound_types),
        "size": (width, height),
        "streams": streams,
        "uses": uses,
        "points": points,
        "blocks": (("over the link", found.hits), ("without a channel", found.without_channel)),
    }


def _examples(desk: Desk, numbers: Sequence[int]) -> list[str]:
    """Return some captions of the test split to try, worded as in training."""
    if not numbers or not 0 <= numbers[0] < len(desk.checkpoints):
        return []
    split = desk.system(numbers[0]).items.split
    places = split.with_wording("same").tolist()
    return list(dict.fromkeys(split.texts[i] for i in places[:: max(1, len(places) // _NUM_EXAMPLES)]))[:_NUM_EXAMPLES]
