"""How large a benchmark is, and how it ends: each ratio beside its bound, and the exit code.

``TINY=1`` in the environment makes every benchmark so small that it takes seconds. It shows that the benchmark still
runs; its figures mean nothing, so no bound is held.
"""

import os
from collections.abc import Sequence
from typing import TypeVar

TINY = os.environ.get("TINY", "0") not in ("", "0")

Size = TypeVar("Size")


def sized(usual: Size, tiny: Size) -> Size:
    """Return the usual size of a part of a benchmark, or the tiny one."""
    return tiny if TINY else usual


def verdict(bounds: Sequence[tuple[str, float, float, bool]]) -> int:
    """Print name, value and bound of each measurement, and whether the bound holds.

    Returns:
        exit_code: 1 if a bound is missed, 0 if none is or the benchmark is tiny.
    """
    load = os.getloadavg()[0] / len(os.sched_getaffinity(0))
    print(f"load a core over the last minute: {load:.1f} (this program alone makes up to 1.0)")
    for name, value, bound, holds in bounds:
        kept = "not held: tiny" if TINY else "ok" if holds else "MISSED"
        print(f"{name}: {value:.3f} (bound {bound:g}) {kept}")
    return int(not TINY and not all(holds for *_, holds in bounds))
