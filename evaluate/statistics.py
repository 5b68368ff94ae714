"""Statistics over training seeds: mean, deviation, and differences between systems with an interval.

Few seeds a system are the rule, because each is a training run. Two seeds say almost nothing about the spread of one
system, but all systems of a comparison together do: as in the analysis of variance, the deviation between seeds is
pooled over the systems. With 5 systems of 2 seeds that gives 5 degrees of freedom instead of 1.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from scipy import stats


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the sample standard deviation (0 for a single value).

    Raises:
        ValueError: if there are no values.
    """
    if not values:
        raise ValueError("the mean of no values")
    return fmean(values), stdev(values) if len(values) > 1 else 0.0


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much the mean over seeds of a system exceeds that of another.

    Attributes:
        mean: the difference.
        half_width: half the length of its 95 % confidence interval; infinite where no system has two seeds.
    """

    mean: float
    half_width: float

    @property
    def verdict(self) -> str:
        """``gain`` or ``loss`` where the interval leaves out 0, else ``no clear difference``."""
        if abs(self.mean) <= self.half_width:
            return "no clear difference"
        return "gain" if self.mean > 0 else "loss"


def differences(
    rows: Iterable[Mapping[str, Any]], system: str, *, measure: str = "map", level: float = 0.95
) -> dict[str, Difference]:
    """Compare a system with every other one, with the deviation between seeds pooled over all of them.

    Args:
        rows: results of all systems and seeds at one SNR, receiver and wording.
        system: the system in question.
        measure: which column.
        level: of the intervals; each holds by itself, not all of them together.

    Returns:
        For each other system: ``system`` minus that one.

    Raises:
        ValueError: if a system has two rows for a seed: the rows are of more than one condition.

    Example:
        >>> rows = [{"system": s, "seed": i, "map": v} for s, vs in {"a": (0.5, 0.6), "b": (0.2, 0.1)}.items()
        ...         for i, v in enumerate(vs)]
        >>> found = differences(rows, "a")["b"]  # 0.4 ± t(0.975, 2) · 0.0707 · √(1/2 + 1/2)
        >>> round(found.mean, 3), round(found.half_width, 3), found.verdict
        (0.4, 0.304, 'gain')
    """
    values: dict[str, dict[int, float]] = defaultdict(dict)
    for row in rows:
        if row["seed"] in values[row["system"]]:
            raise ValueError(f"two rows of {row['system']} seed {row['seed']}: select one SNR, receiver and wording")
        values[row["system"]][row["seed"]] = row[measure]
    if system not in values:
        return {}
    means = {name: fmean(of.values()) for name, of in values.items()}
    freedom = sum(len(of) - 1 for of in values.values())
    squares = sum((v - means[name]) ** 2 for name, of in values.items() for v in of.values())
    found = {}
    for name in values.keys() - {system}:
        half_width = math.inf
        if freedom > 0:
            scale = math.sqrt(squares / freedom * (1 / len(values[system]) + 1 / len(values[name])))
            half_width = float(stats.t.ppf(0.5 + level / 2, freedom)) * scale
        found[name] = Difference(mean=means[system] - means[name], half_width=half_width)
    return found
