"""Intervals of NMSE over test drops and training seeds, and differences between predictors that share the drops.

The mean NMSE of a predictor is 10 log10 of the mean of the per-sample ratios over its seeds and the drops; decibels
are never averaged. Its 95 % interval has two parts, added as squares:

- drops: bootstrap over the drops, the ratios averaged over seeds first, half the distance between the 2.5 and the
  97.5 percentile. Every predictor meets the same resampled drops, so a difference is a paired one. Windows of one
  user are drawn together.
- seeds: deviation of the seeds' means in dB, over the root of their number, times Student's t. Few seeds say little
  about one predictor, so the deviation is pooled over all predictors of a kind (a model and its ablations). It is
  left out where nothing is trained, and where no predictor of the kind has two seeds; the tables say so.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]

UNTRAINED = ("persistence", "ar")
"""Kinds of predictors that no seed changes."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value in dB with half the length of its 95 % interval."""

    mean: float
    half_width: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.half_width:.2f}"

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return abs(self.mean) > self.half_width


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """What a row of a table is about.

    Attributes:
        system: name.
        kind: kind of predictor.
        settings: everything that it was trained with but the seed, flat, by dotted name.
    """

    system: str
    kind: str
    settings: Mapping[str, Any]


class Condition:
    """The ratios of all predictors on the drops of one artifact at one pilot SNR.

    Args:
        ratios: of each system, ``[seeds, drops]``, the same drops in the same order.
        kinds: of each system.
        clusters: of each drop: what is drawn together.
        num_resamples: of the bootstrap.
        seed: of the bootstrap.

    Example:
        >>> ratios = {"a": np.full((2, 8), 0.1), "b": np.full((1, 8), 0.2)}
        >>> found = Condition(ratios, {"a": "cdg", "b": "ar"}, clusters="abcdefgh", num_resamples=100, seed=0)
        >>> str(found.nmse("a")), str(found.difference("a", "b"))
        ('-10.00 ± 0.00', '-3.01 ± 0.00')
    """

    def __init__(
        self,
        ratios: Mapping[str, Array],
        kinds: Mapping[str, str],
        *,
        clusters: Sequence[str],
        num_resamples: int,
        seed: int,
    ) -> None:
        self.ratios, self.kinds = dict(ratios), dict(kinds)
        _, member, sizes = np.unique(np.asarray(list(clusters)), return_inverse=True, return_counts=True)
        count = len(sizes)
        weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=num_resamples)
        self._resampled = {
            name: to_db(weights @ np.bincount(member, values.mean(0)) / (weights @ sizes))
            for name, values in self.ratios.items()
        }
        squares: dict[str, float] = defaultdict(float)
        freedom: dict[str, int] = defaultdict(int)
        for name, values in self.ratios.items():
            of_seeds = to_db(values.mean(1))
            squares[self.kinds[name]] += float(((of_seeds - of_seeds.mean()) ** 2).sum())
            freedom[self.kinds[name]] += len(values) - 1
        self._variance = {
            kind: (squares[kind] / df, float(stats.t.ppf(0.975, df))) for kind, df in freedom.items() if df > 0
        }

    def nmse(self, system: str) -> Interval:
        """Return the mean NMSE [dB]."""
        mean = float(to_db(self.ratios[system].mean()))
        return Interval(mean=mean, half_width=math.hypot(_half(self._resampled[system]), self._of_seeds(system)))

    def difference(self, system: str, reference: str) -> Interval:
        """Return NMSE of ``system`` minus that of ``reference`` [dB]: negative is better."""
        mean = float(to_db(self.ratios[system].mean()) - to_db(self.ratios[reference].mean()))
        drops = _half(self._resampled[system] - self._resampled[reference])
        return Interval(mean=mean, half_width=math.hypot(drops, self._of_seeds(system), self._of_seeds(reference)))

    def lacks_seeds(self, system: str) -> bool:
        """Return whether the interval of a trained system is over drops alone."""
        return self.kinds[system] not in UNTRAINED and self.kinds[system] not in self._variance

    def _of_seeds(self, system: str) -> float:
        """Return the half length of the seeds' part."""
        variance, t = self._variance.get(self.kinds[system], (0.0, 0.0))
        return t * math.sqrt(variance / len(self.ratios[system]))


def settings_that_differ(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the settings in which two predictors differ, sorted."""
    names = set(one) | set(other)
    return tuple(sorted(name for name in names if one.get(name) != other.get(name)))


def find_reference(predictors: Sequence[Predictor]) -> Predictor | None:
    """Return the predictor that most others of its kind differ from by one setting alone; None if no two do."""

    def neighbours(candidate: Predictor) -> int:
        return sum(
            other.kind == candidate.kind and len(settings_that_differ(candidate.settings, other.settings)) == 1
            for other in predictors
        )

    best = max(predictors, key=lambda p: (neighbours(p), [-ord(c) for c in p.system]), default=None)
    return best if best is not None and neighbours(best) else None


def ablations(predictors: Sequence[Predictor], reference: Predictor) -> list[tuple[tuple[str, ...], Predictor]]:
    """Return the other predictors of the reference's kind with the settings that differ, one setting's together."""
    found = [
        (settings_that_differ(reference.settings, other.settings), other)
        for other in predictors
        if other.kind == reference.kind and other is not reference
    ]
    return sorted(found, key=lambda pair: (len(pair[0]), pair[0], pair[1].system))


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted name.

    Example:
        >>> flatten({"a": 1, "model": {"kind": "cdg", "width": [1, 2]}})
        {'a': 1, 'model.kind': 'cdg', 'model.width': [1, 2]}
    """
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def to_db(ratio: Any) -> Array:
    """Return 10 log10 of ratios; 0 becomes -300."""
    return np.asarray(10 * np.log10(np.maximum(ratio, 1e-30)))


def _half(resampled: Array) -> float:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(high - low) / 2
