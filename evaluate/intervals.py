"""Intervals over test samples and training seeds, and differences between systems that share the samples.

A system's value is the mean of NMSE ratios or of average precisions, over its seeds and the samples (test drops, or
queries). NMSE is expressed in dB afterwards; decibels are never averaged. Its 95 % interval has two parts, added as
squares:

- samples: bootstrap, the values averaged over seeds first, half the distance between the 2.5 and the 97.5 percentile.
  Every system meets the same resampled samples, so a difference is a paired one. What belongs together (windows of
  one user, queries about one identity) is drawn together.
- seeds: deviation of the seeds' means, over the root of their number, times Student's t. Few seeds say little about
  one system, so the deviation is pooled over all systems of a kind (a model and its ablations). It is left out where
  nothing is trained, and where no system of the kind has two seeds; tables say so.

Two systems of a kind are compared on the seeds that both have, since a seed draws the same batches, noise and initial
weights for both. The part of a seed's effect that all systems of the kind share is taken out first, as in the analysis
of variance of randomised blocks. This needs at least three degrees of freedom.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]

UNTRAINED = ("persistence", "ar")
"""Kinds of CSI predictors that no seed changes."""


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the sample standard deviation (0 for a single value)."""
    return fmean(values), stdev(values) if len(values) > 1 else 0.0


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value with half the length of its 95 % interval."""

    mean: float
    half_width: float

    def text(self, digits: int = 2, *, signed: bool = False) -> str:
        """Return both for a table.

        Example:
            >>> Interval(mean=0.1, half_width=0.02).text(signed=True)
            '+0.10 ± 0.02'
        """
        return f"{self.mean:{'+' if signed else ''}.{digits}f} ± {self.half_width:.{digits}f}"

    @property
    def verdict(self) -> str:
        """Of a difference: ``gain`` or ``loss`` where the interval leaves out 0, else ``no clear difference``."""
        if abs(self.mean) <= self.half_width:
            return "no clear difference"
        return "gain" if self.mean > 0 else "loss"


@dataclass(frozen=True)
class Gain:
    """By how much one mean is over another, as a share of the other, with both ends of its 95 % interval.

    Attributes:
        mean: None where the other mean is 0.
        low: None, as ``high``, where there is no interval: too few seeds, or resamples with a mean of 0.
        high: the other end.
    """

    mean: float | None
    low: float | None = None
    high: float | None = None

    def text(self, digits: int = 1) -> str:
        """Return it for a table.

        Example:
            >>> Gain(0.25, 0.1, 0.42).text(), Gain(0.25).text(), Gain(None).text()
            ('+25.0 % (+10.0 to +42.0 %)', '+25.0 % (interval undefined)', 'undefined')
        """
        if self.mean is None:
            return "undefined"
        if self.low is None or self.high is None:
            return f"{100 * self.mean:+.{digits}f} % (interval undefined)"
        return f"{100 * self.mean:+.{digits}f} % ({100 * self.low:+.{digits}f} to {100 * self.high:+.{digits}f} %)"

    @property
    def verdict(self) -> str:
        """``gain`` or ``loss`` where the interval leaves out 0, else ``no clear difference``, or ``undefined``."""
        if self.mean is None:
            return "undefined"
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return "no clear difference"
        return "gain" if self.low > 0 else "loss"


class Condition:
    """What all systems do with the same samples, under one condition (an SNR, a receiver).

    Args:
        values: of each system and seed, one per sample, the same samples in the same order.
        kinds: of each system.
        clusters: of each sample: what is drawn together.
        scale: in which means are expressed and compared; left out: as they are.
        num_resamples: of the bootstrap.
        seed: of the bootstrap.

    Example:
        >>> ratios = {"a": {0: np.full(8, 0.1), 1: np.full(8, 0.1)}, "b": {0: np.full(8, 0.2)}}
        >>> found = Condition(ratios, {"a": "cdg", "b": "ar"}, clusters="abcdefgh", scale=to_db)
        >>> found.mean("a").text(), found.difference("a", "b").text()
        ('-10.00 ± 0.00', '-3.01 ± 0.00')
    """

    def __init__(
        self,
        values: Mapping[str, Mapping[int, Array]],
        kinds: Mapping[str, str],
        *,
        clusters: Sequence[str | int],
        scale: Callable[[Array], Array] = np.asarray,
        num_resamples: int = 2000,
        seed: int = 0,
    ) -> None:
        self.values, self.kinds, self.scale, self.clusters = values, dict(kinds), scale, clusters
        _, self._member, self._sizes = np.unique(np.asarray(list(clusters)), return_inverse=True, return_counts=True)
        self._weights = _resamples(len(self._sizes), num_resamples, seed)
        of_kind: dict[str, list[tuple[str, int, float]]] = defaultdict(list)
        for name, of_seeds in values.items():
            if kinds[name] not in UNTRAINED:
                of_kind[kinds[name]] += [(name, s, float(scale(one.mean()))) for s, one in of_seeds.items()]
        self._alone = {kind: _residual(rows, blocks=False) for kind, rows in of_kind.items()}
        paired = {kind: _residual(rows, blocks=True) for kind, rows in of_kind.items()}
        self._paired = {
            kind: found if found and found[1] >= _LEAST_FREEDOM else self._alone[kind] for kind, found in paired.items()
        }

    def mean(self, system: str) -> Interval:
        """Return the mean over seeds and samples."""
        seeds = list(self.values[system])
        half_width = math.hypot(_half(self._resampled(system, seeds)), self._of_seeds(self._alone, system, len(seeds)))
        return Interval(mean=self._mean(system, seeds), half_width=half_width)

    def difference(self, system: str, reference: str) -> Interval:
        """Return the mean of ``system`` minus that of ``reference``; of one kind, on the seeds that both have."""
        own, others = list(self.values[system]), list(self.values[reference])
        deviation = self._alone
        if self.kinds[system] == self.kinds[reference] and set(own) & set(others):
            own = others = sorted(set(own) & set(others))
            deviation = self._paired
        mean = self._mean(system, own) - self._mean(reference, others)
        samples = _half(self._resampled(system, own) - self._resampled(reference, others))
        seeds = [self._of_seeds(deviation, system, len(own)), self._of_seeds(deviation, reference, len(others))]
        return Interval(mean=mean, half_width=math.hypot(samples, *seeds))

    def resampled_difference(self, system: str, reference: str) -> Array:
        """Return the difference of two means in each resample ``[R]``; conditions of the same clusters share these."""
        own, others = (self._resampled(name, list(self.values[name])) for name in (system, reference))
        return np.asarray(own - others)

    def lacks_seeds(self, system: str) -> bool:
        """Return whether the interval of a trained system is over samples alone."""
        return self.kinds[system] not in UNTRAINED and self._alone[self.kinds[system]] is None

    def _averaged(self, system: str, seeds: Sequence[int]) -> Array:
        """Return each sample's value, averaged over seeds."""
        return np.asarray(np.mean([self.values[system][s] for s in seeds], axis=0))

    def _mean(self, system: str, seeds: Sequence[int]) -> float:
        return float(self.scale(self._averaged(system, seeds).mean()))

    def _resampled(self, system: str, seeds: Sequence[int]) -> Array:
        sums = np.bincount(self._member, self._averaged(system, seeds))
        return self.scale(self._weights @ sums / (self._weights @ self._sizes))

    def _of_seeds(self, deviation: Mapping[str, tuple[float, int] | None], system: str, count: int) -> float:
        """Return the half length of the seeds' part."""
        found = deviation.get(self.kinds[system])
        return 0.0 if found is None else float(stats.t.ppf(0.975, found[1])) * math.sqrt(found[0] / count)


@lru_cache(maxsize=4)
def _resamples(count: int, num_resamples: int, seed: int) -> Array:
    """Return how often each cluster is drawn in each resample; conditions of one corpus share them."""
    draw = np.random.default_rng(seed)
    return draw.multinomial(count, np.full(count, 1 / count), size=num_resamples).astype(np.float64)


_LEAST_FREEDOM = 3


def _residual(rows: Sequence[tuple[str, int, float]], *, blocks: bool) -> tuple[float, int] | None:
    """Return the variance that is left of (system, seed, value) rows, and its degrees of freedom; None if none are.

    Taken out are the mean of each system and, with ``blocks``, what a seed adds to all systems alike.
    """
    systems, seeds = sorted({name for name, *_ in rows}), sorted({s for _, s, _ in rows})
    design = np.zeros((len(rows), len(systems) + (len(seeds) if blocks else 0)))
    for i, (name, s, _) in enumerate(rows):
        design[i, systems.index(name)] = 1
        if blocks:
            design[i, len(systems) + seeds.index(s)] = 1
    values = np.asarray([value for *_, value in rows])
    freedom = len(rows) - int(np.linalg.matrix_rank(design))
    if freedom < 1:
        return None
    left = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return float(left @ left) / freedom, freedom


def to_db(ratio: Any) -> Array:
    """Return 10 log10 of ratios; 0 becomes -300."""
    return np.asarray(10 * np.log10(np.maximum(ratio, 1e-30)))


def _half(resampled: Array) -> float:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(high - low) / 2
