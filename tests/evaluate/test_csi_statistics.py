import numpy as np
import pytest

from sclmkb.evaluate.csi_statistics import Condition, Predictor, ablations, find_reference, settings_that_differ


def condition(ratios: dict[str, np.ndarray], kinds: dict[str, str] | None = None, **other: object) -> Condition:
    count = next(iter(ratios.values())).shape[1]
    of_seeds = {name: dict(enumerate(values)) for name, values in ratios.items()}
    options = {"clusters": [str(i) for i in range(count)], "num_resamples": 1000, "seed": 0} | other
    return Condition(of_seeds, kinds or dict.fromkeys(ratios, "cdg"), **options)  # type: ignore[arg-type]


def test_ratios_are_averaged_before_the_logarithm() -> None:
    found = condition({"a": np.array([[1.0, 0.0, 0.0, 0.0]])}).nmse("a")
    assert found.mean == pytest.approx(10 * np.log10(0.25))


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    draw = np.random.default_rng(0)
    hits = []
    for trial in range(200):
        ratios = draw.exponential(0.1, (1, 200))
        found = condition({"a": ratios}, {"a": "ar"}, seed=trial).nmse("a")
        hits.append(abs(found.mean - 10 * np.log10(0.1)) <= found.half_width)
    assert 0.9 <= np.mean(hits) <= 0.99


def test_differences_are_paired() -> None:
    draw = np.random.default_rng(0)
    hard = draw.exponential(0.1, (1, 100))  # some drops are hard for all
    found = condition({"a": hard, "b": 1.2 * hard}, {"a": "ar", "b": "persistence"})
    difference = found.difference("a", "b")
    assert difference.mean == pytest.approx(-10 * np.log10(1.2))
    assert difference.half_width < 1e-9 < found.nmse("a").half_width
    assert difference.is_clear


def test_the_deviation_between_seeds_is_pooled_over_a_kind() -> None:
    ratios = {"a": np.array([[0.1] * 8, [0.2] * 8]), "b": np.full((1, 8), 0.1), "other": np.full((1, 8), 0.1)}
    found = condition(ratios, {"a": "cdg", "b": "cdg", "other": "gru"})
    assert found.nmse("b").half_width == pytest.approx(np.sqrt(2) * found.nmse("a").half_width)  # one seed, not two
    assert found.nmse("other").half_width == 0
    assert [found.lacks_seeds(name) for name in ("a", "b", "other")] == [False, False, True]
    assert not condition({"x": np.full((1, 8), 0.1)}, {"x": "ar"}).lacks_seeds("x")  # nothing to train


def test_what_a_seed_does_to_all_of_a_kind_is_no_difference() -> None:
    draw = np.random.default_rng(0)
    of_seed = 10 ** (0.1 * draw.standard_normal(4))  # good and bad seeds, a dB apart
    noise = 10 ** (0.002 * draw.standard_normal((2, 4)))
    ratios = {name: 0.1 * (of_seed * one)[:, None] * np.ones((1, 8)) for name, one in zip("ab", noise, strict=True)}
    found = condition(ratios)
    assert 0 < found.difference("a", "b").half_width < 0.2 * found.nmse("a").half_width
    other_kind = condition(ratios, {"a": "cdg", "b": "gru"}).difference("a", "b")
    assert other_kind.half_width > found.nmse("a").half_width


def test_a_kind_is_compared_on_the_seeds_that_both_have() -> None:
    ratios = {"a": np.array([[0.1] * 8, [0.4] * 8]), "b": np.full((1, 8), 0.1)}
    assert condition(ratios).difference("a", "b").mean == pytest.approx(0)
    apart = condition(ratios, {"a": "cdg", "b": "gru"}).difference("a", "b")
    assert apart.mean == pytest.approx(10 * np.log10(2.5))


def test_windows_of_one_user_are_drawn_together() -> None:
    draw = np.random.default_rng(0)
    of_users = np.repeat(draw.exponential(0.1, (1, 20)), 10, axis=1)
    users = [str(i // 10) for i in range(200)]
    alone = condition({"a": of_users}, {"a": "ar"}).nmse("a").half_width
    together = condition({"a": of_users}, {"a": "ar"}, clusters=users).nmse("a").half_width
    assert together > 2.5 * alone  # about the root of 10


def predictor(system: str, kind: str = "cdg", **settings: object) -> Predictor:
    return Predictor(system=system, kind=kind, settings={"backbone": "pretrained", "ce_weight": 0.1} | settings)


def test_ablations_are_found_by_the_settings_that_differ() -> None:
    all_of_them = [
        predictor("zero", ce_weight=0),
        predictor("cdg"),
        predictor("random", backbone="random"),
        predictor("both", backbone="none", ce_weight=0),
        predictor("gru", kind="gru", ce_weight=0),
        predictor("wide", width=256),
    ]
    reference = find_reference(all_of_them)
    assert reference is not None
    assert reference.system == "cdg"
    found = [(names, other.system) for names, other in ablations(all_of_them, reference)]
    assert found == [
        (("backbone",), "random"),
        (("ce_weight",), "zero"),
        (("width",), "wide"),
        (("backbone", "ce_weight"), "both"),
    ]
    assert find_reference([predictor("one"), predictor("two", kind="gru")]) is None
    assert find_reference([]) is None


def test_a_setting_that_one_side_lacks_differs() -> None:
    assert settings_that_differ({"a": 1, "b": 2}, {"a": 1}) == ("b",)
