"""Statistics over seeds: mean, deviation, confidence interval, and paired differences between systems."""

import math
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


def confidence_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Return Student's confidence interval of the mean; unbounded for a single value.

    Example:
        >>> low, high = confidence_interval([1.0, 2.0, 3.0])
        >>> round(low, 3), round(high, 3)
        (-0.484, 4.484)
    """
    mean, deviation = mean_and_deviation(values)
    if len(values) < 2:
        return -math.inf, math.inf
    half = float(stats.t.ppf(0.5 + level / 2, len(values) - 1)) * deviation / math.sqrt(len(values))
    return mean - half, mean + half


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much a system differs from a reference, seed by seed.

    Attributes:
        mean: mean over the seeds that both have of system minus reference.
        low: the smallest difference of a seed.
        high: the largest.
        interval: Student's 95 % confidence interval of the mean.
        num_seeds: number of paired seeds.
        deviation: sample standard deviation of the differences.
    """

    mean: float
    low: float
    high: float
    interval: tuple[float, float]
    num_seeds: int
    deviation: float

    @property
    def verdict(self) -> str:
        """``gain`` or ``loss`` where all of at least two seeds agree and the mean exceeds its standard error."""
        agree = self.low > 0 or self.high < 0
        clear = abs(self.mean) > self.deviation / math.sqrt(self.num_seeds)
        if self.num_seeds < 2 or not agree or not clear:
            return "no clear difference"
        return "gain" if self.mean > 0 else "loss"


def paired_difference(
    rows: Iterable[Mapping[str, Any]], system: str, reference: str, *, measure: str = "map"
) -> Difference | None:
    """Compare two systems over the seeds that both were trained with.

    Args:
        rows: results at one SNR, receiver and wording.
        system: name of the system.
        reference: name of the one it is compared with.
        measure: which column.

    Returns:
        The difference, or ``None`` if they have no seed in common.

    Raises:
        ValueError: if a system has two rows for a seed: the rows are of more than one condition.
    """
    values: dict[str, dict[int, float]] = {system: {}, reference: {}}
    for row in rows:
        of = values.get(row["system"])
        if of is None:
            continue
        if row["seed"] in of:
            raise ValueError(f"two rows of {row['system']} seed {row['seed']}: select one SNR, receiver and wording")
        of[row["seed"]] = row[measure]
    shared = sorted(values[system].keys() & values[reference].keys())
    if not shared or system == reference:
        return None
    differences = [values[system][seed] - values[reference][seed] for seed in shared]
    mean, deviation = mean_and_deviation(differences)
    return Difference(
        mean=mean,
        low=min(differences),
        high=max(differences),
        interval=confidence_interval(differences),
        num_seeds=len(shared),
        deviation=deviation,
    )
