"""``sclmkb-eval serve`` for the multi-task transceiver: send a picture, sound or animation, and see what arrives.

::

    GET /                       the page, with what arrives (so it works without script too)
    GET /results?m=…            what arrives alone, which the page's script asks for
    POST /upload                keeps a file in memory and leads to the page that shows it
    GET /medium/KEY.png         drawing of a medium
    GET /medium/KEY             its file, where a browser plays it
    GET /original/KEY.png       the picture that is reconstructed
    GET /received/KEY.png?…     what a system makes of it

Parameters: ``m`` key of the medium, ``q`` the question, ``snr`` in dB, ``channel``, ``seed`` of gain and noise, and
``c`` number of a system, once or several times.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlencode

import bottle

from sclmkb.common.errors import UserError
from sclmkb.common.link.uses import UsesChannelSettings
from sclmkb.common.modalities.image import PictureForm
from sclmkb.common.models.lam.system import RECONSTRUCT
from sclmkb.common.tasks.media.data import PICTURE_SIZE
from sclmkb.common.tasks.media.trained import MEDIA_TASKS
from sclmkb.evaluate.multitask.items import picture_png
from sclmkb.evaluate.multitask.page.desk import FIRST_SNR_DB, MediaDesk
from sclmkb.evaluate.multitask.page.media import MOST_UPLOAD, Medium, NoMediumError
from sclmkb.evaluate.multitask.page.systems import Output, Sending
from sclmkb.evaluate.pages.server import MOST_BODY, page_app, page_templates, read_number, serve_page
from sclmkb.evaluate.search.search import MAX_CHARACTERS, check_query

MEDIA_SLIDER_DB = (-12, 18)
CHANNELS = {
    one.name: one
    for one in (
        UsesChannelSettings(),
        UsesChannelSettings(kind="rician", k_factor=4),
        UsesChannelSettings(kind="rician", k_factor=1),
    )
}
_SHOWN_CHANNELS = {"awgn": "AWGN", "rician-4": "Rician, K = 4", "rician-1": "Rician, K = 1"}
_ANSWER = "answer"
_MOST_SYSTEMS = 4
_NUM_OTHERS = 8
_NUM_QUESTIONS = 4
_NUM_CAPTIONS = 2
_MOST_BESIDE = 1 << 16
"""Most that an upload's form holds beside its file [bytes]."""


class _Sent(NamedTuple):
    """What a request asks for."""

    medium: Medium
    numbers: list[int]
    question: str = ""
    snr_db: float = FIRST_SNR_DB
    channel: str = "awgn"
    seed: int = 0

    @property
    def sending(self) -> Sending:
        return Sending(self.snr_db, CHANNELS[self.channel], self.seed)

    def address(self, **changed: Any) -> str:
        """Return the parameters of the same request, some of them changed."""
        own = {"m": self.medium.key, "q": self.question, "snr": f"{self.snr_db:g}", "channel": self.channel}
        return "?" + urlencode({**own, "seed": self.seed, "c": self.numbers, **changed}, doseq=True)


def make_media_app(desk: MediaDesk, allowed_hosts: Sequence[str] | None = None) -> bottle.Bottle:
    """Return the page as a WSGI application; ``allowed_hosts`` as in :func:`page_app`."""
    pages = page_templates()
    # Uploads stay in memory: what bottle holds larger than this goes to a temporary file.
    bottle.BaseRequest.MEMFILE_MAX = MOST_BODY

    def results(sent: _Sent) -> str:
        cards = [_card(number, sent, desk) for number in sent.numbers]
        return pages.get_template("received.html.j2").render(cards=cards, sent=sent, error=None)

    def failed(error: UserError) -> str:
        bottle.response.status = 404 if isinstance(error, NoMediumError) else 400
        return pages.get_template("received.html.j2").render(cards=[], sent=None, error=str(error))

    def page() -> str:
        sent = _first(desk)
        try:
            sent = _read(bottle.request.query, desk)
            return whole(sent, results(sent))
        except UserError as error:
            return whole(sent, failed(error))

    def whole(sent: _Sent, shown: str) -> str:
        shelf, row = desk.library.place(sent.medium.key)
        bottle.response.content_type = "text/html; charset=utf-8"
        return pages.get_template("media.html.j2").render(
            sent=sent,
            systems=desk.systems,
            asks=any(_ANSWER in desk.tasks(i, sent.medium.kind) for i in range(len(desk.systems))),
            channels=_SHOWN_CHANNELS,
            slider=MEDIA_SLIDER_DB,
            longest=MAX_CHARACTERS,
            most=MOST_UPLOAD,
            questions=list(dict.fromkeys(one.question for one in sent.medium.asked))[:_NUM_QUESTIONS],
            shelf=shelf,
            shelves=desk.library.shelves,
            others=shelf.others(row, _NUM_OTHERS),
            results=shown,
        )

    def results_alone() -> str:
        try:
            return results(_read(bottle.request.query, desk))
        except UserError as error:
            return failed(error)

    def upload() -> str:
        sent = _first(desk)
        try:
            if bottle.request.content_length > MOST_UPLOAD + _MOST_BESIDE:
                raise UserError(f"the upload is too large: at most {MOST_UPLOAD >> 20} MiB are taken")
            sent = _read(bottle.request.forms, desk)
            file = bottle.request.files.get("file")
            if file is None:
                raise UserError("no file was chosen: choose a picture, a sound or an animation")
            medium = desk.library.add(file.raw_filename or "", file.file.read(MOST_UPLOAD + 1))
        except UserError as error:
            return whole(sent, failed(error))
        bottle.response.status = 303
        bottle.response.set_header("Location", f"./{sent.address(m=medium.key)}")
        return ""

    def or_404(answer: Callable[[str], bytes]) -> Callable[[str], bytes]:
        def checked(key: str) -> bytes:
            try:
                data = answer(key)
            except UserError as error:
                raise bottle.HTTPError(404, str(error)) from None
            bottle.response.set_header("Cache-Control", "private, max-age=3600")
            return data

        return checked

    def png(answer: Callable[[str], bytes]) -> Callable[[str], bytes]:
        def drawn(key: str) -> bytes:
            data = answer(key)
            bottle.response.content_type = "image/png"
            return data

        return or_404(drawn)

    def file(key: str) -> bytes:
        medium = desk.library.medium(key)
        if not medium.media_type:
            raise NoMediumError("a browser does not play it")
        bottle.response.content_type = medium.media_type
        return medium.data

    def received(key: str) -> bytes:
        sent, medium = _read(bottle.request.query, desk), desk.library.medium(key)
        if RECONSTRUCT not in desk.tasks(sent.numbers[0], medium.kind):
            raise NoMediumError("this system reconstructs no such medium")
        picture = desk.send(sent.numbers[0], key, RECONSTRUCT, "", sent.sending).picture
        assert picture is not None
        return picture_png(picture)

    return page_app(
        {
            "/": page,
            "/results": results_alone,
            "/medium/<key>.png": png(desk.draw),
            "/medium/<key>": or_404(file),
            "/original/<key>.png": png(desk.original),
            "/received/<key>.png": png(received),
        },
        allowed_hosts,
        posts={"/upload": upload},
    )


def serve_media(desk: MediaDesk, host: str, port: int) -> None:
    """Answer until interrupted."""
    others_can = "send media, and see what is uploaded"
    serve_page(lambda hosts: make_media_app(desk, hosts), host, port, load=desk.load, others_can=others_can)


def _first(desk: MediaDesk) -> _Sent:
    """Return what is shown at first: the first sample with its first question."""
    medium = desk.library.shelves[0].medium(0)
    return _Sent(medium, desk.preselected(), medium.asked[0].question if medium.asked else "")


def _read(given: Any, desk: MediaDesk) -> _Sent:
    """Check the parameters of a request; one that cannot be used is a UserError."""
    first = _first(desk)
    medium = desk.library.medium(given.getunicode("m") or first.medium.key)
    text = given.getunicode("q")
    if text is None:
        text = medium.asked[0].question if medium.asked else ""
    numbers = sorted({int(read_number(value, "c")) for value in given.getall("c")}) or desk.preselected()
    if len(numbers) > _MOST_SYSTEMS:
        raise UserError(f"{len(numbers)} systems are chosen: {_MOST_SYSTEMS} at most fit side by side")
    for number in numbers:
        desk.tasks(number, medium.kind)
    low, high = MEDIA_SLIDER_DB
    snr_db = read_number(given.get("snr") or f"{FIRST_SNR_DB}", "snr")
    if not low <= snr_db <= high:
        raise UserError(f"an SNR of {snr_db:g} dB is out of range: choose one from {low} to {high} dB")
    channel = given.getunicode("channel") or "awgn"
    if channel not in CHANNELS:
        raise UserError(f"there is no channel '{channel[:40]}': choose {' or '.join(CHANNELS)}")
    seed = int(read_number(given.get("seed") or "0", "seed"))
    return _Sent(medium, numbers, check_query(text) if text.strip() else "", snr_db, channel, seed)


def _card(number: int, sent: _Sent, desk: MediaDesk) -> dict[str, Any]:
    """Return what the template shows of a system."""
    medium = sent.medium
    tasks = [t for t in desk.tasks(number, medium.kind) if t != _ANSWER or sent.question]
    outputs = [desk.send(number, medium.key, task, sent.question, sent.sending) for task in tasks]
    return {
        "number": number,
        "name": desk.systems[number].name,
        "channel": _SHOWN_CHANNELS[sent.channel],
        "uses": sum(one.uses for one in outputs),
        "parts": [_part(one, sent) for one in outputs],
        "address": sent.address(c=[number]),
    }


def _part(output: Output, sent: _Sent) -> dict[str, Any]:
    """Return what the template shows of one output."""
    medium, task = sent.medium, MEDIA_TASKS[output.task]
    said: tuple[str, ...] = tuple(text for _, text in medium.captions)[:_NUM_CAPTIONS]
    title, right, psnr = "Caption", None, None
    if output.task == _ANSWER:
        title, said = "Answer", next((one.answers for one in medium.asked if one.question == sent.question), ())
        said = tuple(dict.fromkeys(said))
        right = bool(task.score([output.text], [said])["accuracy"][0]) if said else None
    elif output.picture is not None:
        title, said = "Picture", ()
        original = medium.decode(PictureForm(size=PICTURE_SIZE)).values[0]
        psnr = float(task.score([output.picture], [original])[task.main][0])
    return {"title": title, "output": output, "said": said, "right": right, "psnr": psnr}
