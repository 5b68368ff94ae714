"""The claims of the second paper held against made-up items: each verdict is reached by what it should be."""

from pathlib import Path

import numpy as np
import pytest
from mtsc_items import Skill, skill, write_items

from sclmkb.evaluate.intervals import Interval
from sclmkb.evaluate.studies.mtsc.claims import ClaimTest, at_every, claim_tests, rate_claims, stays_within
from sclmkb.evaluate.studies.mtsc.crossover import crossover
from sclmkb.evaluate.studies.mtsc.results import TaskResults, read_results

TASKS = ("answer", "caption", "reconstruct")
SAMPLES = {task: [f"{task}{i}" for i in range(40)] for task in TASKS}


def measured(root: Path, mean_of: Skill = skill, seeds: tuple[int, ...] = (0,)) -> list[TaskResults]:
    """Return results of two evaluations: one of MTSC and the digital link, one of the model with drawn weights."""
    both = [
        write_items(root / "a", {"mtsc": TASKS, "digital": TASKS}, SAMPLES, mean_of, seeds),
        write_items(root / "b", {"random-lam": TASKS}, SAMPLES, mean_of, seeds),
    ]
    return list(read_results(both, ["mtsc", "random-lam"]).full)


def verdicts(tests: list[ClaimTest], words: str) -> set[str]:
    found = {test.verdict for test in tests if words in f"Fig. {test.figure}: {test.claim} {test.compared}"}
    assert found, words
    return found


def test_what_was_made_up_as_claimed_is_consistent(tmp_path: Path) -> None:
    tests = claim_tests(measured(tmp_path))
    assert verdicts(tests, "baseline 1 (LAM without SemCom) at every SNR") == {"consistent"}
    assert verdicts(tests, "flat above 6 dB") == {"consistent"}
    assert verdicts(tests, "gap to baseline 1") == {"consistent"}
    assert verdicts(tests, "PSNR rises with SNR MTSC") == {"consistent"}
    assert verdicts(tests, "PSNR rises with SNR digital link") == {"undecided"}, "flat from 6 dB on"
    assert verdicts(tests, "pre-trained MTSC less random LAM") == {"consistent"}
    assert verdicts(tests, "MTSC less no LAM") == {"not measured"}
    assert verdicts(tests, "baseline 2") == {"not measured"}


def test_the_opposite_is_contradicted_and_a_tie_is_undecided(tmp_path: Path) -> None:
    def worse(system: str, task: str, snr_db: float) -> float:
        """The digital link is far above at low SNR and still rises above 6 dB; drawn weights are as good."""
        if system == "digital":
            return skill("mtsc", task, snr_db) + 0.4 + (0.1 if snr_db > 6 else 0) + (0.2 if snr_db < 0 else 0)
        return skill("mtsc", task, snr_db) * (1 - 0.1 * (task == "reconstruct" and snr_db > 6))

    tests = claim_tests(measured(tmp_path, worse))
    assert not [test for test in tests if "sends the text" in test.claim], "not measured, and no claim of the paper"
    for words in ("without SemCom) at every SNR", "flat above", "gap to baseline 1", "PSNR rises with SNR MTSC"):
        assert verdicts(tests, words) == {"contradicted"}, words
    assert verdicts(tests, "pre-trained MTSC less random LAM") == {"undecided"}


def test_the_value_of_a_verdict_is_the_one_that_decides() -> None:
    clear, unclear, below = (Interval(mean=m, half_width=0.1) for m in (0.5, 0.05, -0.4))
    assert at_every({0.0: clear, 6.0: unclear})[::2] == (unclear, "undecided")
    assert at_every({0.0: clear, 6.0: below, 12.0: unclear})[::2] == (below, "contradicted")
    assert at_every({0.0: clear})[::2] == (clear, "consistent")
    assert stays_within({12.0: Interval(mean=0.01, half_width=0.005)}, 0.02)[2] == "consistent"
    assert stays_within({12.0: Interval(mean=0.01, half_width=0.05)}, 0.02)[2] == "undecided"
    assert stays_within({12.0: Interval(mean=-0.1, half_width=0.05)}, 0.02)[2] == "contradicted"


def of_rates(uses: dict[str, float], less: dict[str, float], task: str = "answer") -> list[ClaimTest]:
    """Return the claims about rates that have less than all uses have, by the same of each of 40 samples and 2 SNRs."""
    own = np.random.default_rng(0).random((2, 40))
    values = {name: {0: own - less.get(name, 0.0)} for name in uses}
    groups = [str(i) for i in range(40)]
    measure = {"answer": "accuracy", "reconstruct": "psnr"}[task]
    shared = {"task": task, "channel": "awgn", "measure": measure, "snrs_db": (0.0, 6.0), "groups": groups}
    return rate_claims([TaskResults(**shared, values=values, uses=uses, trained=frozenset(uses))])


def test_a_learned_rate_saves_uses_loses_little_and_is_above_the_others() -> None:
    uses = {"full": 8.0, "fixed-0.5": 4.0, "snr-0.5": 4.0, "learned-0.5": 4.0, "learned-0.9": 7.2, "learned-0.25": 2.0}
    tests = of_rates(uses, {"fixed-0.5": 0.2, "learned-0.5": 0.005, "learned-0.25": 0.3})
    assert [test.verdict for test in tests] == ["consistent", "consistent", "contradicted"]
    assert "50 % fewer uses" in tests[0].where, "the most uses that save 30 %"
    assert "4.00 and 4.00 uses" in tests[1].where
    assert of_rates(uses, {"learned-0.5": 0.02})[0].verdict == "contradicted", "2 points"
    assert of_rates(uses, {"learned-0.5": 0.02}, "reconstruct")[0].verdict == "consistent", "dB"
    assert of_rates(uses, {"learned-0.5": 0.31}, "reconstruct")[0].verdict == "contradicted"


def test_a_learned_rate_that_spends_more_has_no_gain_and_one_that_saves_little_no_claim() -> None:
    uses = {"full": 8.0, "fixed-0.5": 4.0, "learned-0.5": 4.1}
    assert [test.verdict for test in of_rates(uses, {"fixed-0.5": 0.2})] == ["consistent", "undecided"]
    assert of_rates({"full": 8.0, "fixed-0.75": 6.0, "learned-0.75": 6.0}, {}) == []


def test_seeds_widen_the_intervals_of_what_is_trained_alone(tmp_path: Path) -> None:
    def swaying(system: str, task: str, snr_db: float) -> float:
        return skill(system, task, snr_db)

    answers = measured(tmp_path, swaying, seeds=(0, 1, 2))[0]
    assert answers.values["digital"].keys() == {0, 1, 2}
    at = answers.at[0.0]
    assert at.kinds["digital"] == "digital", "no training: its seeds are no deviation of trainings"
    assert at.kinds["mtsc"] == at.kinds["random-lam"] == "trained"


def test_the_crossover_lies_between_the_snrs_where_the_order_changes(tmp_path: Path) -> None:
    def crossing(system: str, task: str, snr_db: float) -> float:
        return 0.5 if system == "mtsc" else 0.5 + 0.05 * (snr_db - 4) / 6

    answers = measured(tmp_path, crossing)[0]
    found = crossover(answers, "mtsc", "digital")
    assert found.snr_db == pytest.approx(4, abs=0.01)
    assert found.low <= found.snr_db <= found.high
    assert crossover(answers, "digital", "mtsc").text() == "below -12 dB"
    assert crossover(measured(tmp_path / "up")[2], "mtsc", "random-lam").text() == "above 18 dB"


def test_only_samples_and_snrs_of_all_systems_are_compared(tmp_path: Path) -> None:
    less = {task: names[5:] for task, names in SAMPLES.items()}
    roots = [
        write_items(tmp_path / "a", {"mtsc": TASKS}, SAMPLES),
        write_items(tmp_path / "b", {"no-lam": ("answer",)}, less, snrs_db=(0.0, 12.0)),
    ]
    answers, _, captions, *_ = read_results(roots, ["mtsc", "no-lam"]).full
    assert (answers.snrs_db, len(answers.groups)) == ((0.0, 12.0), 35)
    assert len(captions.groups) == 40
