"""What the paper claims, in figures, and what is measured beside: a verdict in words for each.

The paper's numbers are relative gains of SC-LMKB in %, read from its text (sections V-B and V-C). It names no receiver
beside its equations, and query captions of people who did not write the training captions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sclmkb.common.tasks.retrieval import Measure
from sclmkb.evaluate.intervals import Gain, Interval
from sclmkb.evaluate.studies.sc_lmkb.settings import FigureTask

_PEDES = ("CUHK-PEDES", "ICFG-PEDES", "RSTPReid")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A gain that the paper claims, or that a baseline is better than SC-LMKB at low SNR.

    Attributes:
        figure: number of the paper's figure.
        task: what is retrieved.
        measure: ``map``, ``rank1``, ``rank5`` or ``rank10``.
        over: the system that SC-LMKB is compared with.
        percent: relative gain, by the paper's corpus [%]; empty where the baseline is better.
        snr_db: where it is claimed; None: not said, ours is at the study's, or at the lowest for a better baseline.
        zero_shot: on UMa-NLOS, trained on UMi-LOS.
        bits: of feedback; None: not said, ours are the study's.
    """

    figure: int
    task: FigureTask
    measure: Measure
    over: str
    percent: Mapping[str, float] = field(default_factory=dict)
    snr_db: float | None
    zero_shot: bool = False
    bits: int | None = None

    def text(self) -> str:
        """Return the paper's gains for a table."""
        return " / ".join(f"{value:+g}" for value in self.percent.values()) + " %" if self.percent else "no figure"


def _over_all(
    figure: int,
    task: FigureTask,
    measure: Measure,
    snr_db: float,
    gains: Mapping[str, tuple[float, float, float]],
    **more: bool,
) -> list[Claim]:
    """Return the claims over DeepSC-MIMO, Csi-LLM and LLM4CP, in this order, of one measure."""
    return [
        Claim(
            figure=figure,
            task=task,
            measure=measure,
            over=over,
            percent={corpus: of[place] for corpus, of in gains.items()},
            snr_db=snr_db,
            **more,
        )
        for place, over in enumerate(("deepsc-mimo", "csi-llm", "llm4cp"))
    ]


def _people(*gains: tuple[float, float, float]) -> dict[str, tuple[float, float, float]]:
    return dict(zip(_PEDES, gains, strict=True))


CLAIMS: tuple[Claim, ...] = (
    *_over_all(6, "person", "map", 25, _people((24.9, 65.6, 21.5), (28.0, 64.8, 19.5), (36.9, 79.6, 18.1))),
    *_over_all(7, "motion", "rank1", 30, {"KIT-ML": (72.6, 90.7, 20.0)}),
    *_over_all(7, "motion", "rank5", 30, {"KIT-ML": (29.5, 83.7, 21.0)}),
    *_over_all(7, "motion", "rank10", 30, {"KIT-ML": (32.8, 80.9, 19.6)}),
    *_over_all(8, "sound", "rank1", 30, {"Clotho": (26.9, 89.5, 22.2)}),
    *_over_all(8, "sound", "rank5", 30, {"Clotho": (26.8, 73.5, 24.0)}),
    *_over_all(8, "sound", "rank10", 30, {"Clotho": (28.7, 72.1, 23.3)}),
    Claim(
        figure=9,
        task="person",
        measure="map",
        over="deepsc-mimo",
        percent=dict(zip(_PEDES, (97.1, 101.8, 89.0), strict=True)),
        snr_db=None,
        bits=128,
    ),
    *_over_all(
        10, "person", "map", 25, _people((25.5, 53.3, 38.1), (31.4, 44.4, 31.3), (38.9, 74.9, 46.0)), zero_shot=True
    ),
    Claim(figure=12, task="person", measure="map", over="without-sdg", percent={"not said": 12.5}, snr_db=15),
    Claim(figure=12, task="person", measure="map", over="without-cdg", percent={"not said": 109.0}, snr_db=15),
    # Baselines that are better at low SNR.
    Claim(figure=6, task="person", measure="map", over="deepsc-mimo", snr_db=None),
    Claim(figure=7, task="motion", measure="rank1", over="sscc-best", snr_db=10),
    Claim(figure=8, task="sound", measure="rank1", over="sscc-best", snr_db=10),
)


def verdict(gain: Gain, percent: Sequence[float]) -> str:
    """Return in words what a measured gain makes of a claimed one.

    - holds: the gain is clear (its 95 % interval leaves out 0), and the interval reaches the least that is claimed;
    - partly: the gain is clear, and smaller than any that is claimed;
    - does not hold: the gain is not clear, or SC-LMKB is the lower one. Where the interval holds both 0 and the claimed
      gain, more queries or seeds could decide either way, and the words say so.

    Args:
        gain: of SC-LMKB over the baseline.
        percent: what the paper claims, for each of its corpora [%].
    """
    least = min(percent) / 100
    if gain.mean is None:
        return "not measured: the baseline finds nothing, a ratio has no meaning"
    if gain.low is None or gain.high is None:
        return "not measured: no interval"
    if gain.verdict == "loss":
        return "does not hold: SC-LMKB is lower"
    if gain.verdict != "gain":
        undecided = ", the interval holds the claimed gain too" if gain.high >= least else ""
        return f"does not hold: no clear difference{undecided}"
    return "holds" if gain.high >= least else "partly: a clear gain, smaller than claimed"


def lower_verdict(difference: Interval, own: str = "SC-LMKB") -> str:
    """Return in words whether what is called ``own`` is the lower one: ``difference`` is it less the other."""
    if math.isinf(difference.half_width):
        return "not measured: no interval"
    words = {"loss": "holds", "gain": f"does not hold: {own} is higher"}
    return words.get(difference.verdict, "does not hold: no clear difference")
