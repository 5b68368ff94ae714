"""ROC and precision-recall of a score that tells faithful from corrupted, and the threshold for a wanted precision."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class ThresholdCurve:
    """Operating points of a filter that accepts from a threshold on, from accepting nothing to accepting all.

    Attributes:
        threshold: accepted is what has at least this score, ``[K]``, falling; the first accepts nothing.
        recall: weight of the faithful that are accepted, a share of all faithful, ``[K]``.
        fallout: the same of the corrupted, ``[K]``.
        precision: share of the accepted that is faithful, ``[K]``; 1 where nothing is accepted.
    """

    threshold: Doubles
    recall: Doubles
    fallout: Doubles
    precision: Doubles

    @property
    def area(self) -> float:
        """Area under the ROC curve: the chance that a faithful text scores higher than a corrupted one."""
        return float(np.trapezoid(self.recall, self.fallout))

    def best(self, precision: float) -> int | None:
        """Return the point of the highest recall among those that reach a precision, ``None`` if none does."""
        reached = np.flatnonzero((self.precision >= precision) & (self.recall > 0))
        return int(reached[np.argmax(self.recall[reached])]) if len(reached) else None


def curve(score: Doubles, faithful: Bools, weight: Doubles) -> ThresholdCurve:
    """Return the operating points of a score.

    Args:
        score: of each text, ``[N]``; equal scores are accepted together. What can never be accepted has -inf.
        faithful: which texts are faithful, ``[N]``.
        weight: of each text, ``[N]``.

    Example:
        >>> curve(np.array([0.9, 0.2]), np.array([True, False]), np.ones(2)).area
        1.0
    """
    order = np.argsort(-score, kind="stable")
    score, faithful, weight = score[order], faithful[order], weight[order]
    last = np.append(np.flatnonzero(score[1:] != score[:-1]), len(score) - 1) if len(score) else np.zeros(0, int)
    right, wrong = (np.concatenate([[0.0], np.cumsum(weight * side)[last]]) for side in (faithful, ~faithful))
    accepted = right + wrong
    return ThresholdCurve(
        threshold=np.concatenate([[np.inf], score[last]]),
        recall=right / max(right[-1], 1e-12),
        fallout=wrong / max(wrong[-1], 1e-12),
        precision=np.divide(right, accepted, out=np.ones_like(right), where=accepted > 0),
    )
