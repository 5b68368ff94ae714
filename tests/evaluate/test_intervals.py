import math

import numpy as np
import pytest

from sclmkb.evaluate.intervals import Condition, Interval, mean_and_deviation, to_db


def test_mean_and_deviation() -> None:
    assert mean_and_deviation([1.0, 3.0]) == (2.0, pytest.approx(math.sqrt(2)))
    assert mean_and_deviation([1.0]) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("mean", "half_width", "verdict"),
    [
        (0.2, 0.1, "gain"),
        (-0.2, 0.1, "loss"),
        (0.1, 0.1, "no clear difference"),
        (0.4, math.inf, "no clear difference"),
    ],
)
def test_nothing_is_claimed_where_the_interval_holds_0(mean: float, half_width: float, verdict: str) -> None:
    assert Interval(mean=mean, half_width=half_width).verdict == verdict


def condition(ratios: dict[str, np.ndarray], kinds: dict[str, str] | None = None, **other: object) -> Condition:
    count = next(iter(ratios.values())).shape[1]
    of_seeds = {name: dict(enumerate(values)) for name, values in ratios.items()}
    options = {"scale": to_db, "clusters": [str(i) for i in range(count)], "num_resamples": 1000, "seed": 0} | other
    return Condition(of_seeds, kinds or dict.fromkeys(ratios, "cdg"), **options)  # type: ignore[arg-type]


def test_ratios_are_averaged_before_the_logarithm() -> None:
    found = condition({"a": np.array([[1.0, 0.0, 0.0, 0.0]])}).mean("a")
    assert found.mean == pytest.approx(10 * np.log10(0.25))


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    draw = np.random.default_rng(0)
    hits = []
    for trial in range(200):
        ratios = draw.exponential(0.1, (1, 200))
        found = condition({"a": ratios}, {"a": "ar"}, seed=trial).mean("a")
        hits.append(abs(found.mean - 10 * np.log10(0.1)) <= found.half_width)
    assert 0.9 <= np.mean(hits) <= 0.99


def test_differences_are_paired() -> None:
    draw = np.random.default_rng(0)
    hard = draw.exponential(0.1, (1, 100))  # some drops are hard for all
    found = condition({"a": hard, "b": 1.2 * hard}, {"a": "ar", "b": "persistence"})
    difference = found.difference("a", "b")
    assert difference.mean == pytest.approx(-10 * np.log10(1.2))
    assert difference.half_width < 1e-9 < found.mean("a").half_width
    assert difference.verdict == "loss"


def test_the_deviation_between_seeds_is_pooled_over_a_kind() -> None:
    ratios = {"a": np.array([[0.1] * 8, [0.2] * 8]), "b": np.full((1, 8), 0.1), "other": np.full((1, 8), 0.1)}
    found = condition(ratios, {"a": "cdg", "b": "cdg", "other": "gru"})
    assert found.mean("b").half_width == pytest.approx(np.sqrt(2) * found.mean("a").half_width)  # one seed, not two
    assert found.mean("other").half_width == 0
    assert [found.lacks_seeds(name) for name in ("a", "b", "other")] == [False, False, True]
    assert not condition({"x": np.full((1, 8), 0.1)}, {"x": "ar"}).lacks_seeds("x")  # nothing to train


def test_what_a_seed_does_to_all_of_a_kind_is_no_difference() -> None:
    draw = np.random.default_rng(0)
    of_seed = 10 ** (0.1 * draw.standard_normal(4))  # good and bad seeds, a dB apart
    noise = 10 ** (0.002 * draw.standard_normal((2, 4)))
    ratios = {name: 0.1 * (of_seed * one)[:, None] * np.ones((1, 8)) for name, one in zip("ab", noise, strict=True)}
    found = condition(ratios)
    assert 0 < found.difference("a", "b").half_width < 0.2 * found.mean("a").half_width
    other_kind = condition(ratios, {"a": "cdg", "b": "gru"}).difference("a", "b")
    assert other_kind.half_width > found.mean("a").half_width


def test_a_kind_is_compared_on_the_seeds_that_both_have() -> None:
    ratios = {"a": np.array([[0.1] * 8, [0.4] * 8]), "b": np.full((1, 8), 0.1)}
    assert condition(ratios).difference("a", "b").mean == pytest.approx(0)
    apart = condition(ratios, {"a": "cdg", "b": "gru"}).difference("a", "b")
    assert apart.mean == pytest.approx(10 * np.log10(2.5))


def test_windows_of_one_user_are_drawn_together() -> None:
    draw = np.random.default_rng(0)
    of_users = np.repeat(draw.exponential(0.1, (1, 20)), 10, axis=1)
    users = [str(i // 10) for i in range(200)]
    alone = condition({"a": of_users}, {"a": "ar"}).mean("a").half_width
    together = condition({"a": of_users}, {"a": "ar"}, clusters=users).mean("a").half_width
    assert together > 2.5 * alone  # about the root of 10


def test_the_interval_of_a_difference_covers_the_truth_about_as_often_as_it_says() -> None:
    draw = np.random.default_rng(0)
    hits = []
    for trial in range(300):
        hard, of_seed = draw.normal(0.4, 0.2, 300), draw.normal(0, 0.01, 3)
        values = {
            name: {s: hard + of_seed[s] + draw.normal(0, 0.01) + draw.normal(0, 0.1, 300) for s in range(3)}
            for name in "abcd"
        }
        found = Condition(values, dict.fromkeys("abcd", "jscc"), clusters=range(300), num_resamples=300, seed=trial)
        difference = found.difference("a", "b")
        hits.append(abs(difference.mean) <= difference.half_width)
    assert 0.92 <= np.mean(hits) <= 0.99


def test_other_systems_sharpen_the_interval() -> None:
    levels = {"a": (0.50, 0.51), "b": (0.48, 0.49), "c": (0.30, 0.312), "d": (0.20, 0.21)}
    values = {name: {s: np.full(4, level) for s, level in enumerate(of)} for name, of in levels.items()}
    kinds = dict.fromkeys(levels, "jscc")
    pair = {name: values[name] for name in "ab"}
    few, more = (Condition(v, kinds, clusters="wxyz").difference("a", "b").half_width for v in (pair, values))
    assert 0 < more < few
