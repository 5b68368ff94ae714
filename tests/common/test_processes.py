"""A child process is told to stop when who started it is gone."""

import os
import subprocess
import sys
from pathlib import Path

from waiting import wait_for

from sclmkb.common.processes import stopping_with_parent

PARENT = """
import subprocess, sys, time
from sclmkb.common.processes import stopping_with_parent
subprocess.Popen(stopping_with_parent(sys.argv[1:]))
time.sleep(600)
"""
CHILD = """
import signal, sys, time
from pathlib import Path
path = Path(sys.argv[1])
def stop(*_):
    path.write_text("told")
    sys.exit()
signal.signal(signal.SIGTERM, stop)
path.write_text("at work")
time.sleep(600)
"""


def test_a_child_is_told_when_its_parent_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "said"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, "-c", CHILD, str(path)])

    wait_for(lambda: path.exists() and path.read_text() == "at work")
    parent.kill()
    parent.wait()
    wait_for(lambda: path.read_text() == "told")


def test_it_is_the_same_python_with_its_arguments_and_exit_code() -> None:
    command = stopping_with_parent(["-c", "import sys; print(sys.argv[1:]); sys.exit(3)", "a b", "--c"])
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (3, "['a b', '--c']\n")


def test_nothing_begins_once_the_parent_is_gone() -> None:
    code = f"from sclmkb.common.processes import main; main({os.getppid()}, ['-c', 'print(1)'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "is gone" in done.stderr
