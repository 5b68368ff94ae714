"""Intervals of NMSE over test drops and training seeds, and differences between predictors that share the drops.

The mean NMSE of a predictor is 10 log10 of the mean of the per-sample ratios over its seeds and the drops; decibels
are never averaged. Its 95 % interval has two parts, added as squares:

- drops: bootstrap over the drops, the ratios averaged over seeds first, half the distance between the 2.5 and the
  97.5 percentile. Every predictor meets the same resampled drops, so a difference is a paired one. Windows of one
  user are drawn together.
- seeds: deviation of the seeds' means in dB, over the root of their number, times Student's t. Few seeds say little
  about one predictor, so the deviation is pooled over all predictors of a kind (a model and its ablations). It is
  left out where nothing is trained, and where no predictor of the kind has two seeds; the tables say so.

Two predictors of a kind are compared on the seeds that both have, since a seed draws the same batches, noise and
initial weights for both: what all of the kind share of a seed's effect is taken out first, as in the analysis of
variance of randomised blocks, if at least three degrees of freedom are left for it.
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
        ratios: of each system and seed, a value a drop, the same drops in the same order.
        kinds: of each system.
        clusters: of each drop: what is drawn together.
        num_resamples: of the bootstrap.
        seed: of the bootstrap.

    Example:
        >>> ratios = {"a": {0: np.full(8, 0.1), 1: np.full(8, 0.1)}, "b": {0: np.full(8, 0.2)}}
        >>> found = Condition(ratios, {"a": "cdg", "b": "ar"}, clusters="abcdefgh", num_resamples=100, seed=0)
        >>> str(found.nmse("a")), str(found.difference("a", "b"))
        ('-10.00 ± 0.00', '-3.01 ± 0.00')
    """

    def __init__(
        self,
        ratios: Mapping[str, Mapping[int, Array]],
        kinds: Mapping[str, str],
        *,
        clusters: Sequence[str],
        num_resamples: int,
        seed: int,
    ) -> None:
        self.ratios, self.kinds = ratios, dict(kinds)
        _, self._member, self._sizes = np.unique(np.asarray(list(clusters)), return_inverse=True, return_counts=True)
        count = len(self._sizes)
        draw = np.random.default_rng(seed)
        self._weights = draw.multinomial(count, np.full(count, 1 / count), size=num_resamples)
        of_kind: dict[str, list[tuple[str, int, float]]] = defaultdict(list)
        for name, of_seeds in ratios.items():
            if kinds[name] not in UNTRAINED:
                of_kind[kinds[name]] += [(name, s, float(to_db(values.mean()))) for s, values in of_seeds.items()]
        self._alone = {kind: _residual(rows, blocks=False) for kind, rows in of_kind.items()}
        paired = {kind: _residual(rows, blocks=True) for kind, rows in of_kind.items()}
        self._paired = {
            kind: found if found and found[1] >= _LEAST_FREEDOM else self._alone[kind] for kind, found in paired.items()
        }

    def num_seeds(self, system: str) -> int:
        """Return how many seeds there are of a system."""
        return len(self.ratios[system])

    def nmse(self, system: str) -> Interval:
        """Return the mean NMSE [dB]."""
        seeds = list(self.ratios[system])
        half_width = math.hypot(_half(self._resampled(system, seeds)), self._of_seeds(self._alone, system, len(seeds)))
        return Interval(mean=self._mean(system, seeds), half_width=half_width)

    def difference(self, system: str, reference: str) -> Interval:
        """Return NMSE of ``system`` minus that of ``reference`` [dB]: negative is better."""
        own, others = list(self.ratios[system]), list(self.ratios[reference])
        deviation = self._alone
        if self.kinds[system] == self.kinds[reference] and set(own) & set(others):
            own = others = sorted(set(own) & set(others))
            deviation = self._paired
        mean = self._mean(system, own) - self._mean(reference, others)
        drops = _half(self._resampled(system, own) - self._resampled(reference, others))
        seeds = [self._of_seeds(deviation, system, len(own)), self._of_seeds(deviation, reference, len(others))]
        return Interval(mean=mean, half_width=math.hypot(drops, *seeds))

    def lacks_seeds(self, system: str) -> bool:
        """Return whether the interval of a trained system is over drops alone."""
        return self.kinds[system] not in UNTRAINED and self._alone[self.kinds[system]] is None

    def _ratios(self, system: str, seeds: Sequence[int]) -> Array:
        """Return each drop's ratio, averaged over seeds."""
        return np.asarray(np.mean([self.ratios[system][s] for s in seeds], axis=0))

    def _mean(self, system: str, seeds: Sequence[int]) -> float:
        return float(to_db(self._ratios(system, seeds).mean()))

    def _resampled(self, system: str, seeds: Sequence[int]) -> Array:
        sums = np.bincount(self._member, self._ratios(system, seeds))
        return to_db(self._weights @ sums / (self._weights @ self._sizes))

    def _of_seeds(self, deviation: Mapping[str, tuple[float, int] | None], system: str, count: int) -> float:
        """Return the half length of the seeds' part."""
        found = deviation.get(self.kinds[system])
        return 0.0 if found is None else float(stats.t.ppf(0.975, found[1])) * math.sqrt(found[0] / count)


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
