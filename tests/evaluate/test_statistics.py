import math
import random

import pytest

from sclmkb.evaluate.statistics import differences, mean_and_deviation


def rows(**values: list[float]) -> list[dict[str, object]]:
    return [
        {"system": name.replace("_", "-"), "seed": seed, "map": v}
        for name, series in values.items()
        for seed, v in enumerate(series)
    ]


def test_mean_and_deviation() -> None:
    assert mean_and_deviation([1.0, 3.0]) == (2.0, pytest.approx(math.sqrt(2)))
    assert mean_and_deviation([1.0]) == (1.0, 0.0)
    with pytest.raises(ValueError, match="no values"):
        mean_and_deviation([])


def test_a_difference_has_a_direction_and_ignores_the_order_of_rows() -> None:
    data = rows(ours=[0.5, 0.51], other=[0.4, 0.41])
    there = differences(reversed(data), "ours")["other"]
    back = differences(data, "other")["ours"]
    assert there.mean == pytest.approx(0.1) == -back.mean
    assert (there.verdict, back.verdict) == ("gain", "loss")


@pytest.mark.parametrize(("ours", "other"), [([0.5, 0.3], [0.39, 0.39]), ([0.5], [0.4]), ([0.4, 0.4], [0.4, 0.4])])
def test_what_is_not_clear_is_not_called_a_gain(ours: list[float], other: list[float]) -> None:
    assert differences(rows(ours=ours, other=other), "ours")["other"].verdict == "no clear difference"


def test_other_systems_sharpen_the_interval() -> None:
    pair = rows(ours=[0.50, 0.51], other=[0.48, 0.49])
    more = pair + rows(third=[0.30, 0.31], fourth=[0.20, 0.21])
    assert differences(more, "ours")["other"].half_width < differences(pair, "ours")["other"].half_width


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    draw = random.Random(0)
    hits = 0
    for _ in range(2000):
        data = rows(**{name: [draw.gauss(0.4, 0.01) for _ in range(2)] for name in "abcde"})
        found = differences(data, "a")["b"]
        hits += abs(found.mean) <= found.half_width
    assert hits / 2000 == pytest.approx(0.95, abs=0.015)


def test_absent_systems_and_mixed_conditions() -> None:
    assert differences(rows(ours=[0.5]), "other") == {}
    with pytest.raises(ValueError, match="two rows of ours seed 0"):
        differences(rows(ours=[0.5]) * 2, "ours")
