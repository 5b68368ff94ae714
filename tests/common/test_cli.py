import errno
import os
import signal
import subprocess
import sys
import time

import pytest
import typer

from sclmkb.common.cli import progress, run_app, say
from sclmkb.common.errors import UserError


def exit_code_of(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    app = typer.Typer()

    @app.command()
    def fail() -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["fail"])
    with pytest.raises(SystemExit) as caught:
        run_app(app)
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_a_user_error_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of(UserError("the folder [x]\n is gone: make it"), monkeypatch) == 2
    assert capsys.readouterr().err == "error: the folder [x] is gone: make it\n"


def test_a_full_disk_is_a_user_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(OSError(errno.ENOSPC, "No space left on device", "/data/x"), monkeypatch) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: no space left on the device while writing /data/x")
    assert message.count("\n") == 1


def test_an_unwritable_folder_is_a_user_error(monkeypatch: pytest.MonkeyPatch) -> None:
    assert exit_code_of(PermissionError(errno.EACCES, "Permission denied", "/x"), monkeypatch) == 2


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_says_how_to_go_on(
    signum: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app = typer.Typer()

    @app.command()
    def wait() -> None:
        os.kill(os.getpid(), signum)
        time.sleep(10)

    monkeypatch.setattr(sys, "argv", ["wait"])
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    try:
        with pytest.raises(SystemExit) as caught:
            run_app(app)
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])
    assert caught.value.code == 130
    assert "goes on where this one stopped" in capsys.readouterr().err


def test_a_defect_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sys, "argv", ["fail"])
    with pytest.raises(ZeroDivisionError):
        run_app(app)


def test_progress_prints_lines_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("counting", total=20, done=10) as ticker:
        for _ in range(10):
            ticker.advance(note="note")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "counting: 12/20 note"
    assert lines[-1] == "counting: 20/20 note"
    assert len(lines) == 5


def test_say_prints_brackets_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    say("a [red]caption[/red]")
    assert capsys.readouterr().err == "a [red]caption[/red]\n"


@pytest.mark.parametrize("command", ["sclmkb-gen", "sclmkb-train", "sclmkb-eval"])
def test_help_is_quick_to_import(command: str) -> None:
    """``--help`` must not import torch or an engine."""
    stage = {"sclmkb-gen": "generate", "sclmkb-train": "train", "sclmkb-eval": "evaluate"}[command]
    code = (
        f"import sys; sys.argv=['{command}', '--help']\n"
        f"from sclmkb.{stage}.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'vllm', 'faiss', 'sionna'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
