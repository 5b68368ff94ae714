"""Child processes that do not outlive who started them: ``python -m sclmkb.common.processes PARENT ARGUMENTS…``.

The kernel tells the child to stop when its parent is gone, for whatever reason. The child then ends in good order. (A
``preexec_fn`` would do the same, but not safely in a process with threads.)
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def stopping_with_parent(arguments: Sequence[str]) -> list[str]:
    """Return the command line that runs this Python with arguments, and gets SIGTERM when this process is gone.

    Strictly, when the thread is gone that starts it. Only on Linux.
    """
    return [sys.executable, "-m", "sclmkb.common.processes", str(os.getpid()), *arguments]


def main(parent: int, arguments: Sequence[str]) -> None:
    """Become this Python with other arguments."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    if os.getppid() != parent:
        sys.exit(f"error: process {parent}, which started this one, is gone")
    os.execv(sys.executable, [sys.executable, *arguments])


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
