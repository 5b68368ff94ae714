"""Which trained predictors are ablations of each other: by the settings that differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """The predictor in a row of a table; settings are all that it was trained with but the seed, by dotted name."""

    system: str
    kind: str
    settings: Mapping[str, Any]


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
