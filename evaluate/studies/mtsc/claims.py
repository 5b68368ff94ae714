"""What the second paper claims of its Figures 4b, 5a, 5b and 6, held against what a study measured.

The paper gives no numbers: its claims are relative. Its Fig. 4b draws a variable rate: how many uses it shall save, at
what loss and above what, is this project's reading. Each has a verdict by its 95 % interval, which is paired over
samples:

- consistent: the interval leaves no doubt that it is so, at every SNR that the claim is about;
- contradicted: the interval of one of them leaves no doubt that it is not so;
- undecided: all else; more samples or seeds could decide either way.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sclmkb.evaluate.drawing.styles import label_of
from sclmkb.evaluate.intervals import Interval
from sclmkb.evaluate.multitask.run import FULL_RATE
from sclmkb.evaluate.studies.mtsc.results import TaskResults
from sclmkb.evaluate.studies.mtsc.settings import MAIN
from sclmkb.evaluate.tables import Table

BASELINES = {"digital": "baseline 1 (LAM without SemCom)", "u-deepsc": "baseline 2 (SemCom without LAM)"}
PICTURE_RIVALS = ("digital", "digital-packed", "u-deepsc", "deepjscc", "adjscc")
"""Systems that Fig. 6 may be held against."""
TEXT_RIVAL = {"digital-text": "a digital link that sends the text itself (not in the paper)"}
WITHOUT_PRE_TRAINING = ("random-lam", "no-lam")
FIGURES = {
    "answer": "5a",
    "caption": "5b",
    "caption_sound": "5b, sounds",
    "caption_video": "5b, clips",
    "reconstruct": "6",
}
"""Figure of the paper, by task."""
FLAT_FROM_DB, FLAT_WITHIN = 6.0, 0.02
"""Baseline 1 counts as flat where its accuracy stays within this of that at 6 dB."""
LEARNED = "learned"
"""The rate that a model chooses by itself."""
SAVED = 0.3
"""Share of the uses that a variable rate shall at least save."""
_MOST_LOST_DB, _MOST_LOST = 0.3, 0.01
_EQUAL_USES = 0.01
"""Uses are equal up to this share of them."""
VERDICTS = ("consistent", "contradicted", "undecided", "not measured")
CONSISTENT, CONTRADICTED, UNDECIDED, NOT_MEASURED = VERDICTS


@dataclass(frozen=True, kw_only=True)
class ClaimTest:
    """A claim of the paper, and what was measured of it.

    Attributes:
        figure: of the paper.
        channel: that it was measured over.
        claim: in words.
        compared: systems, in words.
        value: what decides, with its interval; None: not measured.
        where: SNRs of the value, in words.
        verdict: consistent, contradicted, undecided or not measured.
        digits: of the value in tables.
    """

    figure: str
    channel: str
    claim: str
    compared: str
    value: Interval | None = None
    where: str = ""
    verdict: str = NOT_MEASURED
    digits: int = 3

    @property
    def text(self) -> str:
        """The value for a table."""
        return "" if self.value is None else self.value.text(self.digits, signed=True)


def claim_tests(results: Sequence[TaskResults]) -> list[ClaimTest]:
    """Return every claim held against the main measure of every task, over every channel."""
    return [test for of in results if of.is_main for test in _TESTS[of.task](of)]


def rate_claims(rates: Sequence[TaskResults]) -> list[ClaimTest]:
    """Return what is claimed of the learned rate, at the most uses that save the share that it shall save.

    It shall lose little against all uses. It shall be above every other rate at equal total uses, also above ``snr``,
    which knows nothing of the sample. Values are means over SNRs.

    Args:
        rates: rates of one model in the place of systems, see :class:`MtscResults`.
    """
    return [test for of in rates for test in _of_rates(of)]


def claims_table(tests: Sequence[ClaimTest], channel: str) -> Table:
    """Return the claims over one channel; the last column is the verdict."""
    rows = [
        [f"Fig. {test.figure}: {test.claim}", test.compared, test.text, test.where, test.verdict]
        for test in tests
        if test.channel == channel
    ]
    return Table(
        title=f"Claims over {channel.upper() if channel == 'awgn' else channel}",
        columns=["claim", "compared", "measured", "at", "verdict"],
        rows=rows,
        note="consistent: the interval says so at every SNR of the claim; contradicted: it says the opposite at one of"
        " them; undecided: neither. Values are differences in the figure's own unit, with 95 % intervals.",
    )


def at_every(differences: Mapping[float, Interval]) -> tuple[Interval, str, str]:
    """Return what decides whether all differences are above 0, its SNR in words, and the verdict."""
    low = {snr_db: of.mean - of.half_width for snr_db, of in differences.items()}
    high = {snr_db: of.mean + of.half_width for snr_db, of in differences.items()}
    worst = min(high, key=high.__getitem__)
    if high[worst] < 0:
        return differences[worst], f"{worst:g} dB, the worst of {len(low)} SNRs", CONTRADICTED
    least = min(low, key=low.__getitem__)
    where = f"{least:g} dB, the least certain of {len(low)} SNRs"
    return differences[least], where, CONSISTENT if low[least] > 0 else UNDECIDED


def loses_at_most(difference: Interval, margin: float) -> str:
    """Return the verdict on a difference that is claimed to lie above minus a margin."""
    if difference.mean + difference.half_width < -margin:
        return CONTRADICTED
    return CONSISTENT if difference.mean - difference.half_width >= -margin else UNDECIDED


def above_zero(difference: Interval) -> str:
    """Return the verdict on a difference that is claimed to be above 0."""
    return {"gain": CONSISTENT, "loss": CONTRADICTED}.get(difference.verdict, UNDECIDED)


def stays_within(changes: Mapping[float, Interval], margin: float) -> tuple[Interval, str, str]:
    """Return what decides whether changes are small, its SNR in words, and the verdict."""
    most = max(changes, key=lambda snr_db: abs(changes[snr_db].mean) + changes[snr_db].half_width)
    moved = max(changes, key=lambda snr_db: abs(changes[snr_db].mean) - changes[snr_db].half_width)
    if abs(changes[moved].mean) - changes[moved].half_width > margin:
        return changes[moved], f"{moved:g} dB", CONTRADICTED
    small = abs(changes[most].mean) + changes[most].half_width <= margin
    return changes[most], f"{most:g} dB", CONSISTENT if small else UNDECIDED


def _answers(of: TaskResults) -> Iterator[ClaimTest]:
    yield from _above(of, BASELINES)
    for baseline, words in BASELINES.items():
        yield _more_at_low_snr(of, baseline, f"the gain over {words} is larger below 0 dB than above")
    yield _flat(of)
    yield from _above(of, {name: words for name, words in TEXT_RIVAL.items() if name in of.systems})
    yield from _pre_training(of)


def _captions(of: TaskResults) -> Iterator[ClaimTest]:
    yield from _above(of, BASELINES)
    yield _more_at_low_snr(of, "digital", "the gap to baseline 1 is large below 0 dB and shrinks above")
    yield from _above(of, {name: words for name, words in TEXT_RIVAL.items() if name in of.systems})
    yield from _pre_training(of)


def _pictures(of: TaskResults) -> Iterator[ClaimTest]:
    for name in (MAIN, *PICTURE_RIVALS):
        claim = replace(_claim(of, "PSNR rises with SNR"), compared=label_of(name))
        if name in of.systems:
            steps = zip(of.snrs_db, of.snrs_db[1:], strict=False)
            rises = {b: of.weighted({a: -1.0, b: 1.0}).mean(name) for a, b in steps}
            claim = _decided(claim, at_every, rises)
        if name in (MAIN, *BASELINES) or name in of.systems:
            yield claim
    yield from _above(of, {n: BASELINES.get(n, label_of(n)) for n in PICTURE_RIVALS if n in (*BASELINES, *of.systems)})
    yield from _pre_training(of)


_TESTS: Mapping[str, Callable[[TaskResults], Iterator[ClaimTest]]] = {
    "answer": _answers,
    "caption": _captions,
    "caption_sound": _captions,
    "caption_video": _captions,
    "reconstruct": _pictures,
}


def _of_rates(of: TaskResults) -> Iterator[ClaimTest]:
    shares = [float(name.rpartition("-")[2]) for name in of.systems if name.startswith(f"{LEARNED}-")]
    saved = {share: 1 - of.uses[f"{LEARNED}-{share:g}"] / of.uses[FULL_RATE] for share in shares}
    share = max((share for share in shares if saved[share] >= SAVED), default=None)
    if share is None:
        return
    mean, learned = of.mean(of.snrs_db), f"{LEARNED}-{share:g}"
    shared = ClaimTest(figure="4b", channel=of.channel, claim="", compared="", digits=of.digits)
    margin, words = (_MOST_LOST_DB, "0.3 dB") if of.label.endswith("[dB]") else (_MOST_LOST, "1 point")
    loss = mean.difference(learned, FULL_RATE)
    yield replace(
        shared,
        claim=f"{of.task}: at least {100 * SAVED:.0f} % fewer uses lose at most {words}",
        compared="learned rate less all uses",
        value=loss,
        where=f"{100 * saved[share]:.0f} % fewer uses, mean of {len(of.snrs_db)} SNRs",
        verdict=loses_at_most(loss, margin),
    )
    for other in [name for name in of.systems if name.endswith(f"-{share:g}") and name != learned]:
        gain, uses = mean.difference(learned, other), (of.uses[learned], of.uses[other])
        verdict = above_zero(gain)
        if verdict == CONSISTENT and uses[0] > (1 + _EQUAL_USES) * uses[1]:
            verdict = UNDECIDED
        rival = other.rpartition("-")[0]
        yield replace(
            shared,
            claim=f"{of.task}: the learned rate is above {rival} at equal uses",
            compared=f"learned less {rival}",
            value=gain,
            where=f"{uses[0]:.2f} and {uses[1]:.2f} uses, mean of {len(of.snrs_db)} SNRs",
            verdict=verdict,
        )


def _claim(of: TaskResults, claim: str, other: str = "") -> ClaimTest:
    compared = f"{label_of(MAIN)} less {label_of(other)}" if other else ""
    return ClaimTest(figure=FIGURES[of.task], channel=of.channel, claim=claim, compared=compared, digits=of.digits)


def _decided(
    claim: ClaimTest,
    decide: Callable[[Mapping[float, Interval]], tuple[Interval, str, str]],
    differences: Mapping[float, Interval],
) -> ClaimTest:
    if not differences:
        return claim
    value, where, verdict = decide(differences)
    return replace(claim, value=value, where=where, verdict=verdict)


def _above(of: TaskResults, others: Mapping[str, str]) -> Iterator[ClaimTest]:
    for other, words in others.items():
        claim = _claim(of, f"{of.label.removesuffix(' [dB]')} above {words} at every SNR", other)
        yield _decided(claim, at_every, of.differences(MAIN, other)) if other in of.systems else claim


def _more_at_low_snr(of: TaskResults, other: str, words: str) -> ClaimTest:
    """Return whether the gain is above 0 below 0 dB, and larger than that above 0 dB."""
    claim = _claim(of, words, other)
    low, high = ([snr for snr in of.snrs_db if sign * snr > 0] for sign in (-1, 1))
    if other not in of.systems or not (low and high):
        return claim
    weights = dict.fromkeys(low, 1 / len(low)) | dict.fromkeys(high, -1 / len(high))
    more, gain = (condition.difference(MAIN, other) for condition in (of.weighted(weights), of.mean(low)))
    verdicts = {above_zero(more), above_zero(gain)}
    verdict = next(name for name in (CONTRADICTED, UNDECIDED, CONSISTENT) if name in verdicts)
    where = f"mean gain below 0 dB ({gain.text(3, signed=True)}) less that above"
    return replace(claim, value=more, where=where, verdict=verdict)


def _flat(of: TaskResults) -> ClaimTest:
    claim = replace(_claim(of, f"baseline 1 is flat above {FLAT_FROM_DB:g} dB"), compared=label_of("digital"))
    if "digital" not in of.systems or FLAT_FROM_DB not in of.snrs_db:
        return claim
    later = [snr_db for snr_db in of.snrs_db if snr_db > FLAT_FROM_DB]
    changes = {snr_db: of.weighted({FLAT_FROM_DB: -1.0, snr_db: 1.0}).mean("digital") for snr_db in later}
    found = _decided(claim, lambda given: stays_within(given, FLAT_WITHIN), changes)
    return replace(found, where=f"{found.where}, less that at {FLAT_FROM_DB:g} dB; flat: within {FLAT_WITHIN:g}")


def _pre_training(of: TaskResults) -> Iterator[ClaimTest]:
    for other in WITHOUT_PRE_TRAINING:
        claim = _claim(of, "higher because the language model is pre-trained", other)
        if other in of.systems:
            gain = of.mean(of.snrs_db).difference(MAIN, other)
            where = f"mean of {len(of.snrs_db)} SNRs"
            claim = replace(claim, value=gain, where=where, verdict=above_zero(gain))
        yield claim
