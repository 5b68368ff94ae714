import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
import typer
from commands import run_command

from sclmkb.common import console as cli
from sclmkb.common.console import LOG_VARIABLE, log_context, progress, run_app, say, stop_in_good_order
from sclmkb.common.errors import UserError

Run = Callable[[Callable[[], None]], object]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Return what runs a function as a command and returns its exit code; handlers of signals are put back."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = [signal.getsignal(s) for s in numbers]
    monkeypatch.setattr(sys, "argv", ["command"])

    def call(work: Callable[[], None]) -> object:
        app = typer.Typer(pretty_exceptions_enable=False)
        app.command()(work)
        with pytest.raises(SystemExit) as ended:
            run_app(app)
        return ended.value.code

    yield call
    for signum, handler in zip(numbers, before, strict=True):
        signal.signal(signum, handler)


def failing(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("the folder [x]\n is gone: make it"), "the folder [x] is gone: make it\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/data/x"),
            "no space left on the device while writing /data/x",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "cannot write /x"),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_exit_code_2(
    error: Exception, line: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(failing(error)) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {line}")
    assert message.count("\n") == 1


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)])
def test_an_interruption_says_how_to_go_on(
    signum: int, code: int, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    def wait() -> None:
        os.kill(os.getpid(), signum)
        time.sleep(10)

    assert run(wait) == code
    assert "goes on where this one stopped" in capsys.readouterr().err


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1])
def test_a_stop_waits_until_nothing_would_be_lost(signum: int, run: Run) -> None:
    reached = []

    def work() -> None:
        with stop_in_good_order() as check:
            check()
            os.kill(os.getpid(), signum)
            reached.append("end of the chunk")
            check()
            reached.append("next chunk")

    assert run(work) == 75
    assert reached == ["end of the chunk"]


@pytest.mark.parametrize("later", [True, False])
def test_a_later_stop_does_not_wait_but_two_at_once_are_one(
    later: bool, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = []
    monkeypatch.setattr(cli, "SAME_REQUEST_S", 0.0 if later else 600.0)

    def work() -> None:
        with stop_in_good_order():
            for name in ("first", "second"):
                os.kill(os.getpid(), signal.SIGTERM)
                reached.append(name)

    assert run(work) == 75
    assert reached == (["first"] if later else ["first", "second"])


def test_a_defect_is_not_hidden(run: Run) -> None:
    with pytest.raises(ZeroDivisionError):
        run(failing(ZeroDivisionError()))


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


# Logs in JSON


@pytest.fixture
def json_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOG_VARIABLE, "json")


def events(err: str) -> list[dict[str, object]]:
    """Return what went to standard error, every line of it one JSON object."""
    found = [json.loads(line) for line in err.splitlines()]
    assert all(isinstance(event["time"], float) for event in found)
    return [{key: value for key, value in event.items() if key != "time"} for event in found]


@pytest.mark.usefixtures("json_log")
def test_a_json_log_has_one_object_a_line(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(log_context, "run", "R")
    say("two\nlines of [red]text[/red], \u00e9")
    with progress("counting", total=2) as ticker:
        ticker.advance(note="half")
    assert events(capfd.readouterr().err) == [
        {"level": "info", "event": "message", "message": "two\nlines of [red]text[/red], \u00e9", "run": "R"},
        {"level": "info", "event": "progress", "message": "counting: 1/2 half", "done": 1, "total": 2, "run": "R"},
    ]


@pytest.mark.usefixtures("json_log")
def test_errors_in_a_json_log(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(failing(UserError("the folder\n is gone"))) == 2
    assert events(capfd.readouterr().err) == [
        {"level": "error", "event": "error", "message": "the folder is gone", "exit_code": 2}
    ]
    assert run(failing(ZeroDivisionError("a\nb"))) == 1
    (event,) = events(capfd.readouterr().err)
    assert (event["level"], event["event"], event["message"]) == ("error", "defect", "ZeroDivisionError: a\nb")
    assert "in fail" in str(event["traceback"])
    assert run(failing(OSError(errno.EIO, "Input/output error", "/x"))) == 1
    assert [event["event"] for event in events(capfd.readouterr().err)] == ["defect"]


@pytest.mark.usefixtures("json_log")
def test_a_stop_in_a_json_log(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        with stop_in_good_order():
            os.kill(os.getpid(), signal.SIGTERM)

    assert run(work) == 75
    assert [(event["event"], event["level"]) for event in events(capfd.readouterr().err)] == [
        ("stopping", "warning"),
        ("stopped", "warning"),
    ]


@pytest.mark.parametrize(
    ("command", "needs"),
    [
        ("sclmkb-gen {} status", "sclmkb.generate.runs.status"),
        ("sclmkb-train {}", "sclmkb.train.semantic.fit"),
        ("sclmkb-train {} --seed 1", "sclmkb.train.semantic.fit"),
        ("sclmkb-train {} cdg", "sclmkb.train.predictor.fit"),
        ("sclmkb-eval {} run", "sclmkb.evaluate.measure.retrieval"),
    ],
)
@pytest.mark.parametrize("option", ["--log-format json", "--log-format=json", ""])
def test_every_program_takes_the_form_of_its_log(
    command: str, needs: str, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an option, which children inherit, or by the environment; the command itself fails at its first import."""
    monkeypatch.setenv(LOG_VARIABLE, "text" if option else "json")
    monkeypatch.setitem(sys.modules, needs, None)
    done = run_command(command.format(option))
    assert done.code == 1
    assert [event["event"] for event in events(done.err)] == ["defect"]
    assert os.environ[LOG_VARIABLE] == "json"


def test_an_unknown_form_of_log_is_refused() -> None:
    done = run_command("sclmkb-gen --log-format xml status")
    assert done.code == 2
    assert "xml" in done.err


@pytest.mark.parametrize("stage", ["generate", "train", "evaluate"])
def test_help_is_quick_to_import(stage: str) -> None:
    """``--help`` must not import torch or an engine."""
    code = (
        f"import sys; sys.argv=['x', '--help']\n"
        f"from sclmkb.{stage}.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'vllm', 'faiss', 'sionna'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        ({}, {"GOMP_SPINCOUNT": "10000"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
    ],
)
def test_waiting_threads_sleep_soon_unless_the_user_says_how_they_wait(
    chosen: dict[str, str], found: dict[str, str], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set before torch reads it: help of every command (above) says that none imports torch earlier."""
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    assert run(lambda: None) == 0
    assert {name: os.environ[name] for name in names if name in os.environ} == found
