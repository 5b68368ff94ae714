"""How a benchmark ends: the load of the machine, each ratio beside its bound, and the exit code."""

import os
from collections.abc import Sequence


def verdict(bounds: Sequence[tuple[str, float, float, bool]]) -> int:
    """Print name, value and bound of each measurement, and whether the bound holds; return 1 if one does not."""
    load = os.getloadavg()[0] / len(os.sched_getaffinity(0))
    print(f"load a core over the last minute: {load:.1f} (this program alone makes up to 1.0)")
    for name, value, bound, holds in bounds:
        print(f"{name}: {value:.3f} (bound {bound:g}) {'ok' if holds else 'MISSED'}")
    return int(not all(holds for *_, holds in bounds))
