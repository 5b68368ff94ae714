import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sclmkb.generate.filter.curves import curve

SCORED = st.lists(st.tuples(st.integers(0, 8), st.booleans(), st.floats(0.1, 5)), min_size=2, max_size=40).filter(
    lambda rows: len({faithful for _, faithful, _ in rows}) == 2
)


def unpack(rows: list[tuple[int, bool, float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    score, faithful, weight = zip(*rows, strict=True)
    return np.array(score, float), np.array(faithful), np.array(weight)


@given(SCORED)
def test_every_point_is_what_its_threshold_accepts(rows: list[tuple[int, bool, float]]) -> None:
    score, faithful, weight = unpack(rows)
    found = curve(score, faithful, weight)
    assert len(found.threshold) == len(set(score)) + 1
    for i, threshold in enumerate(found.threshold):
        accepted = score >= threshold
        right, wrong = (weight[accepted & side].sum() for side in (faithful, ~faithful))
        assert found.recall[i] == pytest.approx(right / weight[faithful].sum())
        assert found.fallout[i] == pytest.approx(wrong / weight[~faithful].sum())
        assert found.precision[i] == pytest.approx(right / (right + wrong) if right + wrong else 1)


@given(SCORED)
def test_the_area_is_the_chance_to_score_higher(rows: list[tuple[int, bool, float]]) -> None:
    score, faithful, weight = unpack(rows)
    pairs = weight[faithful, None] * weight[~faithful]
    wins = (score[faithful, None] > score[~faithful]) + 0.5 * (score[faithful, None] == score[~faithful])
    assert curve(score, faithful, weight).area == pytest.approx((pairs * wins).sum() / pairs.sum())


@given(SCORED, st.floats(0, 1))
def test_the_best_point_has_the_precision_and_no_other_one_more_recall(
    rows: list[tuple[int, bool, float]], precision: float
) -> None:
    found = curve(*unpack(rows))
    best = found.best(precision)
    reaching = [r for r, p in zip(found.recall, found.precision, strict=True) if p >= precision and r > 0]
    if best is None:
        assert reaching == []
    else:
        assert found.precision[best] >= precision
        assert found.recall[best] == max(reaching)
