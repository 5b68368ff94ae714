import html
import io
import re
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from commands import must_run, refusal
from local_pages import CHROMIUM, Browser, asking, get, running
from media_corpora import write_clips, write_pictures, write_questions, write_sounds
from PIL import Image

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.link.uses import UsesChannelSettings, sample_draws
from sclmkb.common.tasks.media.data import load_task
from sclmkb.common.tasks.media.receive import outputs_of
from sclmkb.evaluate.multitask.page.desk import MediaDesk, open_mtsc
from sclmkb.evaluate.multitask.page.media import MOST_UPLOAD
from sclmkb.evaluate.multitask.page.page import make_media_app
from sclmkb.evaluate.multitask.page.systems import Sending

TASKS = "answer,reconstruct,caption_sound,caption_video"
CORPORA = ("questions", "pictures", "sounds", "clips")
FIRST = "0-0"
"""The first picture with questions."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four corpora and one checkpoint of all tasks."""
    folder = tmp_path_factory.mktemp("page")
    writers = (write_questions, write_pictures, write_sounds, write_clips)
    for name, write in zip(CORPORA, writers, strict=True):
        write(folder / "corpora" / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCLMKB_CACHE", str(folder / "cache"))
        train = ["sclmkb-train", "mtsc", "--preset", "tiny", "--tasks", TASKS, "--out", folder / "mtsc" / "a"]
        must_run([*train, *(word for name in CORPORA for word in ("--corpus", folder / "corpora" / name))])
    return folder


@pytest.fixture
def desk(root: Path, monkeypatch: pytest.MonkeyPatch) -> MediaDesk:
    monkeypatch.setenv("SCLMKB_CACHE", str(root / "cache"))
    corpora = [Artifact.open(root / "corpora" / name, "corpus") for name in CORPORA]
    return MediaDesk(open_mtsc([root / "mtsc"]), corpora)


@pytest.fixture
def address(desk: MediaDesk) -> Iterator[str]:
    with running(make_media_app(desk)) as where:
        yield where


def upload(address: str, name: str, data: bytes, headers: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Return status, body and the address that it led to."""
    border = uuid.uuid4().hex
    parts = "".join(
        f'--{border}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
        for key, value in (("q", "¿what is it?"), ("snr", "6"), ("c", "0"))
    )
    parts += f'--{border}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    body = parts.encode() + data + f"\r\n--{border}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={border}", **(headers or {})}
    try:
        request = urllib.request.Request(f"{address}/upload", body, kind)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read().decode("utf-8", "replace"), answer.url
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode("utf-8", "replace"), ""


def picture(colour: str = "red", form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(file, form)
    return file.getvalue()


def errors(page: str) -> list[str]:
    return [html.unescape(one) for one in re.findall(r'role="alert">(.*?)</p>', page)]


def test_the_page_answers_reconstructs_and_escapes(address: str) -> None:
    status, page, headers = get(address + "/?c=0")
    assert status == 200
    assert 'value="what color is this?"' in page  # the first question that people asked
    assert page.count("without looking") == 1
    assert page.count('class="psnr"') == 1
    assert "136 complex uses" in page  # 8 and 128
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert not re.search(r"(src|href)=\"(https?:)?//", page)
    assert not re.search(r" (style|on\w+)=|<style|<script>", page)  # what the policy would forbid
    for path in re.findall(r'<img[^>]* src="([^"]+)"', page):
        with urllib.request.urlopen(f"{address}/{html.unescape(path)}", timeout=60) as answer:
            assert answer.headers["Content-Type"] == "image/png"
            assert answer.read().startswith(b"\x89PNG")

    evil = "<script>alert(1)</script>\"'&"
    for where in ("/", "/results"):
        _, page, _ = get(address + where + asking(q=evil, channel=evil, c=0))
        assert "<script>alert" not in page
        assert html.escape(evil[:25]) in page.replace("&#34;", "&quot;")
    _, alone, _ = get(address + "/results" + asking(q="is it red?", c=0))
    assert alone.count('<article class="system"') == 1
    assert "<form" not in alone
    assert "Answer" not in get(address + "/results" + asking(q="", c=0))[1]


def test_sounds_and_clips_are_described(address: str) -> None:
    for shelf, kind, said in ((2, "audio/wav", "a low tone"), (3, "image/webp", "red")):
        _, page, _ = get(address + asking(m=f"{shelf}-0", c=0))
        assert page.count("Caption") == 1
        assert f"reference: {said}" in page
        assert 'id="q"' not in page
        with urllib.request.urlopen(f"{address}/medium/{shelf}-0", timeout=60) as answer:
            assert answer.headers["Content-Type"] == kind


def test_the_page_gives_what_a_measurement_gives(desk: MediaDesk, root: Path) -> None:
    """The same words and uses of each sample, whatever stands beside it."""
    trained, channel = open_mtsc([root / "mtsc"])[0], UsesChannelSettings()
    for shelf, name in zip(
        desk.library.shelves, ("answer", "reconstruct", "caption_sound", "caption_video"), strict=True
    ):
        data = load_task(trained.settings.model, Artifact.open(root / "corpora" / shelf.name, "corpus"), name, "test")
        rows = torch.arange(6)
        measured = outputs_of(trained.model(), channel, data, rows, name, 0.0, sample_draws(0, data.row_ids(rows)))
        for row in rows.tolist():
            medium = shelf.medium(row if data.samples is None else int(data.samples.item[row]))
            question = data.samples.prompts[row] if data.samples is not None else ""
            got = desk.send(0, medium.key, name, question, Sending(0.0, channel, 0))
            assert got.uses == measured.uses[row]
            if got.picture is None:
                assert got.text == measured.outputs[row]
            else:
                assert (got.picture.int() - measured.outputs[row].int()).abs().max() <= 1  # rounding


def test_uploads_are_shown_and_the_latest_kept(address: str, root: Path) -> None:
    tone = next(iter(pq.read_table(next((root / "corpora" / "sounds" / "items").glob("test*")))["media"].to_pylist()))
    clip = next(iter(pq.read_table(next((root / "corpora" / "clips" / "items").glob("test*")))["media"].to_pylist()))
    gif = io.BytesIO()
    Image.new("RGB", (9, 9)).save(gif, "GIF", save_all=True, append_images=[Image.new("RGB", (9, 9), "red")])
    first = ""
    for name, data, shown in (
        ("red.png", picture(), "Answer"),
        ("a.wav", tone["bytes"], "Caption"),
        ("no name", clip["bytes"], "Caption"),
        ("moves.gif", gif.getvalue(), "Caption"),
        ("still.gif", picture(form="GIF"), "Picture"),
    ):
        status, page, led_to = upload(address, name, data)
        assert status == 200
        assert f"<h3>{shown}" in page
        assert html.escape(name) in page or name == "no name"
        assert "q=%C2%BFwhat+is+it%3F&snr=6" in led_to
        assert f"{address}/?m=upload-" in led_to
        first = first or led_to
    for colour in range(8):
        upload(address, "grey.png", picture(f"#{colour:06x}"))
    status, page, _ = get(first)
    assert status == 404
    assert "upload it again" in errors(page)[0]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("note.png", b"only words", "no readable picture"),
        ("broken.png", picture()[:-40], "no readable picture"),
        ("broken.wav", b"RIFF\xff\xff\0\0WAVEfmt ", "breaks off"),
        ("broken.webm", b"\x1aE\xdf\xa3nothing", "no readable video"),
        ("note.txt", b"only words", "no picture, sound or animation"),
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture, sound or animation"),
        ("none.png", b"", "is empty"),
        ("<b>.png", b"", "<b>.png is empty"),
        ("big.png", picture() + bytes(MOST_UPLOAD), "too large: at most 4 MiB"),
    ],
)
def test_an_upload_that_is_no_medium_is_one_line(address: str, name: str, data: bytes, reason: str) -> None:
    status, page, _ = upload(address, name, data)
    assert status == 400
    assert len(errors(page)) == 1
    assert reason in errors(page)[0]
    assert "Traceback" not in page
    assert "<form" in page


def test_what_cannot_be_answered_is_one_line(address: str) -> None:
    for parameters, status, reason in (
        ({"m": "9-0"}, 404, "no sample"),
        ({"m": "0-99"}, 404, "no sample 99"),
        ({"m": "upload-0"}, 404, "upload it again"),
        ({"snr": "loud"}, 400, "give a number"),
        ({"snr": "40"}, 400, "out of range"),
        ({"channel": "wire"}, 400, "no channel"),
        ({"c": "7"}, 400, "no system 7"),
        ({"q": "x" * 500}, 400, "are allowed"),
    ):
        for where in ("/", "/results"):
            found, page, headers = get(address + where + asking(**parameters))
            assert found == status, parameters
            assert reason in errors(page)[0]
            assert "Content-Security-Policy" in headers
    for path in ("/medium/9-0.png", "/medium/0-0", "/original/2-0.png", "/received/upload-1.png", "/nothing"):
        status, page, _ = get(address + path)
        assert status == 404, path
        assert "Traceback" not in page
    assert upload(address, "a.png", picture(), {"Sec-Fetch-Site": "cross-site"})[0] == 403
    assert get(address + "/upload")[0] == 405


def test_the_digital_link_stands_beside(desk: MediaDesk) -> None:
    """It sends the picture in as many uses, right at a high SNR and not at all at a low one."""
    good, bad = (Sending(snr_db, UsesChannelSettings(), 0) for snr_db in (18.0, -12.0))
    number = len(desk.systems) - 1
    assert desk.systems[number].name == "digital"
    best, worst = (desk.send(number, FIRST, "reconstruct", "", sending) for sending in (good, bad))
    assert best.uses == worst.uses == 128
    assert not best.failed
    assert worst.failed
    assert len(worst.picture.flatten(1).unique(dim=1)[0]) == 1  # the mean colour
    assert desk.send(number, FIRST, "answer", "is it red?", bad).failed


def test_missing_checkpoints_and_corpora_are_one_line(root: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "artifacts" / "few" / "mtsc").mkdir(parents=True)
    pictures = root / "corpora" / "pictures"
    for options, reason in (
        (["--checkpoint", tmp_path / "nowhere"], "no jscc checkpoint below"),
        (["--preset", "few"], "no jscc checkpoint below"),
        (["--checkpoint", root / "mtsc", "--preset", "few"], "artifacts/few/corpora"),
        (["--checkpoint", root / "mtsc", "--corpus", tmp_path], "corpus"),
        (["--checkpoint", root / "mtsc", "--corpus", pictures, "--host", "no.such.host.invalid"], "cannot listen on"),
    ):
        assert reason in refusal(["sclmkb-eval", "serve", *options])


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")
def test_a_browser_sends_uploads_and_compares(address: str, tmp_path: Path) -> None:
    browser = Browser(tmp_path / "profile", address + "/?c=0&snr=12")
    received = "document.getElementById('status').textContent == 'received'"
    drawn = "[...document.querySelectorAll('img')].every((i) => i.naturalWidth)"
    try:
        browser.wait("document.documentElement.dataset.ready")
        browser.wait(drawn)
        # A suggested question, without loading the page anew; the slider sends by itself.
        browser.run("window.same = 1; document.querySelectorAll('.examples a')[1].click()")
        browser.wait(received)
        assert "q=is+it+red" in browser.run("location.search")
        browser.run(
            "document.getElementById('snr').value = -9;"
            "document.getElementById('snr').dispatchEvent(new Event('input', {bubbles: true}))"
        )
        browser.wait("document.querySelector('article').textContent.includes('−9 dB')")
        assert browser.run("window.same") == 1
        # Another corpus is another page, with the same settings.
        browser.run("document.querySelectorAll('.shelves button')[2].click()")
        browser.wait("document.readyState == 'complete' && document.querySelector('audio') != null")
        assert "snr=-9" in browser.run("location.search")
        # A chosen file is sent at once.
        browser.wait("document.documentElement.dataset.ready")
        browser.run(
            "(async () => { const blob = await (await fetch('medium/0-1.png')).blob();"
            " const chosen = new DataTransfer(); chosen.items.add(new File([blob], 'mine.png'));"
            " const file = document.getElementById('file'); file.files = chosen.files;"
            " file.dispatchEvent(new Event('change', {bubbles: true})); })()"
        )
        browser.wait("document.querySelector('figcaption')?.textContent == 'mine.png'")
        browser.wait(drawn)
        assert "m=upload-" in browser.run("location.search")
        for width in (360, 900):
            browser.resize(width)
            assert browser.run("document.documentElement.scrollWidth") <= width
    finally:
        browser.close()
