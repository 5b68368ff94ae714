import html
import re
import socket
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from commands import refusal
from local_pages import CHROMIUM, Browser, asking, get, running
from measuring import save_jscc

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.evaluate.measure.systems import Loader, open_checkpoints
from sclmkb.evaluate.search.search import MAX_CHARACTERS
from sclmkb.evaluate.search.serve import Desk, make_app

QUERY = "label of color 1 2 3"

MakeDesk = Callable[..., Desk]


@pytest.fixture
def make_desk(write_items: Callable[[str], Any], one_text_encoder: None) -> Callable[..., Desk]:
    def make(kind: str = "pictures") -> Desk:
        tiny = write_items(kind)
        for system, source in (("perfect-csi", "perfect"), ("sc-lmkb", "predicted"), ("without-cdg", "stale")):
            save_jscc(tiny.root, system=system, csi_source=source, kind=kind)
        loader = Loader(Artifact.open(tiny.corpus, "corpus"), tiny.csi, tiny.predicted)
        return Desk(loader, open_checkpoints([tiny.root / "jscc"]), top=4)

    return make


def test_the_page_searches_compares_and_escapes(make_desk: MakeDesk) -> None:
    with running(make_app(make_desk())) as address:
        status, page, headers = get(address + "/")
        assert status == 200
        assert 'type="range"' in page
        assert 'min="-15" max="30"' in page
        assert page.count('name="c"') == 3
        assert page.count(" checked> sc-lmkb") == page.count(" checked> without-cdg") == 1  # perfect CSI comes last
        assert '<li class="hit' not in page
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert not re.search(r"(src|href)=\"(https?:)?//", page)
        assert not re.search(r" (style|on\w+)=|<style|<script>", page)  # what the policy would forbid

        status, page, _ = get(address + asking(q=QUERY, snr=-5, receiver="dmrs", c=[0, 2]))
        assert status == 200
        assert page.count('<article class="system"') == 2
        assert page.count('<li class="hit') == 2 * 2 * 4  # systems, over the link and without, items
        assert page.count("<svg") == 2
        assert "perfect-csi seed 0" in page
        assert "dmrs receiver" in page
        assert "−5 dB" in page
        assert get(address + asking(q=QUERY, c=[0, 2]))[1] == get(address + asking(q=QUERY, c=[2, 0]))[1]

        evil = "<script>alert(1)</script>\"'&"
        for where in ("/", "/results"):
            _, page, _ = get(address + where + asking(q=evil, receiver=evil))
            assert "<script>alert" not in page
            assert html.escape(evil[:25]) in page.replace("&#34;", "&quot;")
        _, alone, _ = get(address + "/results" + asking(q=QUERY, c=1))
        assert alone.count('<article class="system"') == 1
        assert "<form" not in alone


def test_what_cannot_be_answered_is_one_line(make_desk: MakeDesk) -> None:
    with running(make_app(make_desk())) as address:
        for parameters, reason in (
            ({"q": "x" * (MAX_CHARACTERS + 1)}, f"{MAX_CHARACTERS} are allowed"),
            ({"q": "x", "snr": "loud"}, "give a number"),
            ({"q": "x", "snr": "nan"}, "give a number"),
            ({"q": "x", "snr": "500"}, "out of range"),
            ({"q": "x", "receiver": "best"}, "no receiver"),
            ({"q": "x", "c": "9"}, "no checkpoint 9"),
            ({"q": "x", "c": "-1"}, "no checkpoint -1"),
        ):
            for where in ("/", "/results"):
                status, page, headers = get(address + where + asking(**parameters))
                assert status == 400, parameters
                assert reason in page
                assert 'role="alert"' in page
                assert "Traceback" not in page
                assert "Content-Security-Policy" in headers
        for path in ("/item/0/99.png", "/item/9/0.png", "/sound/0/0", "/nothing", "/../cli.py"):
            status, page, headers = get(address + path)
            assert status == 404, path
            assert "Traceback" not in page
            assert headers["X-Content-Type-Options"] == "nosniff"


def test_items_are_drawn_and_sounds_played(make_desk: MakeDesk) -> None:
    with running(make_app(make_desk("audio"))) as address:
        _, page, _ = get(address + asking(q="thing number 2", c=1))
        assert page.count("<audio controls") == 2 * 4
        drawn = re.findall(r'<img src="(item/\d+/\d+\.png)"', page)
        with urllib.request.urlopen(f"{address}/{drawn[0]}", timeout=60) as answer:
            assert answer.headers["Content-Type"] == "image/png"
            assert answer.read().startswith(b"\x89PNG")
        with urllib.request.urlopen(f"{address}/{drawn[0].replace('item', 'sound')[:-4]}", timeout=60) as answer:
            assert answer.headers["Content-Type"] == "audio/wav"
            assert answer.read().startswith(b"RIFF")


def test_other_names_than_its_own_are_refused(make_desk: MakeDesk) -> None:
    with running(make_app(make_desk(), allowed_hosts=("127.0.0.1",))) as address:
        assert get(address + "/serve.css")[0] == 200
        for headers in ({}, {"X-Forwarded-Host": "127.0.0.1"}):
            status, said, _ = get(address + "/", Host="elsewhere.example", **headers)
            assert status == 403
            assert "<form" not in said


def test_many_requests_at_once_get_their_own_answers(make_desk: MakeDesk) -> None:
    with running(make_app(make_desk())) as address:
        paths = [asking(q=f"label of color {i} 2 3", snr=i, c=i % 3) for i in range(9)]
        alone = [get(address + "/results" + path)[1] for path in paths]
        with ThreadPoolExecutor(len(paths)) as threads:
            assert list(threads.map(lambda path: get(address + "/results" + path)[1], paths)) == alone
        assert len(set(alone)) == 9


def test_a_port_in_use_and_missing_checkpoints_are_one_line(make_desk: MakeDesk, tmp_path: Path) -> None:
    jscc = make_desk().checkpoints[0].root.parents[1]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for options, reason in (
            ([jscc, "--port", str(port)], f"port {port} is in use"),
            ([jscc, "--host", "no.such.host.invalid"], "cannot listen on"),
            ([tmp_path / "nowhere"], "no jscc checkpoint below"),
        ):
            assert reason in refusal(["sclmkb-eval", "serve", "--checkpoint", *options])


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")
def test_a_browser_finds_transmits_and_compares(make_desk: MakeDesk, tmp_path: Path) -> None:
    hits = "document.querySelectorAll('.hit img').length"
    with running(make_app(make_desk())) as address:
        # Results come with the page, and the policy lets its script and style run.
        browser = Browser(tmp_path / "profile", address + "/" + asking(q=QUERY, snr=12, c=1))
        try:
            browser.wait("document.documentElement.dataset.ready")
            assert browser.run(hits) == 2 * 4
            assert browser.wait(
                "[...document.querySelectorAll('.hit img')].every((i) => i.closest('details') || i.naturalWidth)"
            )
            assert browser.run("getComputedStyle(document.querySelector('.hits')).display") == "grid"
            # Another sentence, and another checkpoint beside it, without loading the page anew.
            browser.run("window.same = 1; document.querySelector('[name=c][value=\"2\"]').checked = true")
            browser.run("document.getElementById('q').value = '<b>a hat</b>'; document.querySelector('button').click()")
            browser.wait(
                "document.querySelectorAll('article').length == 2"
                " && document.getElementById('status').textContent == 'received'"
            )
            assert browser.run("window.same") == 1
            assert "q=%3Cb%3Ea+hat" in browser.run("location.search")
            # The slider transmits by itself.
            browser.run(
                "document.getElementById('snr').value = -9;"
                "document.getElementById('snr').dispatchEvent(new Event('input', {bubbles: true}))"
            )
            assert browser.run("document.getElementById('snr-shown').textContent") == "−9 dB"
            browser.wait("document.querySelector('article').textContent.includes('−9 dB')")
            # Nothing is wider than a narrow window.
            for width in (360, 900):
                browser.resize(width)
                assert browser.run("innerWidth") == width
                assert browser.run("document.documentElement.scrollWidth") <= width
            # What cannot be answered is said.
            browser.run("document.getElementById('q').removeAttribute('maxlength')")
            browser.run(f"document.getElementById('q').value = 'x'.repeat({MAX_CHARACTERS + 1})")
            browser.run("document.querySelector('button').click()")
            browser.wait("document.querySelector('[role=alert]')?.textContent.includes('are allowed')")
        finally:
            browser.close()
