import math

import pytest

from sclmkb.evaluate.statistics import confidence_interval, mean_and_deviation, paired_difference


def rows(**values: list[float]) -> list[dict[str, object]]:
    return [
        {"system": name.replace("_", "-"), "seed": seed, "map": v}
        for name, series in values.items()
        for seed, v in enumerate(series)
    ]


def test_mean_deviation_and_interval() -> None:
    assert mean_and_deviation([1.0, 3.0]) == (2.0, pytest.approx(math.sqrt(2)))
    assert mean_and_deviation([1.0]) == (1.0, 0.0)
    low, high = confidence_interval([1.0, 3.0])
    assert (low + high) / 2 == pytest.approx(2)
    assert high - 2 == pytest.approx(12.706 * 1, rel=1e-3)  # t(0.975, 1 degree) · √2 / √2
    assert confidence_interval([1.0]) == (-math.inf, math.inf)
    with pytest.raises(ValueError, match="no values"):
        mean_and_deviation([])


def test_differences_are_paired_by_seed_not_by_position() -> None:
    data = rows(ours=[0.5, 0.7], other=[0.4, 0.6])
    found = paired_difference(reversed(data), "ours", "other")
    assert found is not None
    assert (found.low, found.high, found.deviation) == pytest.approx((0.1, 0.1, 0), abs=1e-9)
    assert found.verdict == "gain"
    back = paired_difference(data, "other", "ours")
    assert back is not None
    assert back.verdict == "loss"


@pytest.mark.parametrize(("ours", "other"), [([0.5, 0.3], [0.4, 0.4]), ([0.5], [0.4]), ([0.4, 0.4], [0.4, 0.4])])
def test_what_is_not_clear_is_not_called_a_gain(ours: list[float], other: list[float]) -> None:
    found = paired_difference(rows(ours=ours, other=other), "ours", "other")
    assert found is not None
    assert found.verdict == "no clear difference"


def test_no_common_seed_and_mixed_conditions() -> None:
    assert paired_difference(rows(ours=[0.5]), "ours", "other") is None
    with pytest.raises(ValueError, match="two rows of ours seed 0"):
        paired_difference(rows(ours=[0.5]) * 2, "ours", "other")
