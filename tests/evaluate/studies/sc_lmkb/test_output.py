"""Figures and claims from the cells of a study: numbers made up, everything else as the commands write it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from measuring import table_rows, write_config, write_measurement

from sclmkb.common.errors import UserError
from sclmkb.common.studies.cells import Record, Study
from sclmkb.evaluate.intervals import Gain, Interval
from sclmkb.evaluate.studies.sc_lmkb.claims import CLAIMS, lower_verdict, verdict
from sclmkb.evaluate.studies.sc_lmkb.output import write_output
from sclmkb.evaluate.studies.sc_lmkb.plan import make_study
from sclmkb.evaluate.studies.sc_lmkb.results import Results
from sclmkb.evaluate.studies.sc_lmkb.settings import SYSTEMS, PaperSettings
from sclmkb.evaluate.studies.sc_lmkb.tables import claim_rows, claims_columns

SNRS = (-10.0, 10.0, 15.0, 25.0, 30.0)
SKILL = {"sc-lmkb": 0.6, "perfect-csi": 0.62, "llm4cp": 0.45, "csi-llm": 0.4, "deepsc-mimo": 0.35, "sscc-best": 0.1}


def settings(**more: object) -> PaperSettings:
    one = {"title": "people", "task": "person", "reader": "people-emoji", "preset": "demo", "ablation": True}
    other = {"title": "motion", "task": "motion", "reader": "bandai-motion", "preset": "bandai-motion"}
    whole = {"corpora": {"people": one, "motion": other}, "snrs_db": SNRS, "swept_bits": (128, 512), "seeds": (0, 1)}
    return PaperSettings.model_validate(whole | more)


def measure(folder: Path, system: str, snrs_db: tuple[float, ...], receivers: tuple[str, ...], num_steps: int) -> None:
    """Write what a measurement of a system leaves behind; that of SSCC has two schemes, and what retrieves."""
    draw, coded = np.random.default_rng(0), system == "sscc"
    sources = {name: of.csi_source for name, of in SYSTEMS.items()}
    write_measurement(
        folder,
        ["sscc-best", "sscc-4qam-rs0.5"] if coded else [system],
        lambda at: np.clip(SKILL.get(at["system"], 0.5) + draw.normal(0, 0.1, 30), 0.01, 1),
        lambda ap: np.where(ap > 0.4, 1, 7),
        snrs_db=snrs_db,
        receivers=receivers,
        wordings=("label", "sentence"),
        sources={**sources, "sscc-best": "stale"},
    )
    name = "no-link" if coded else system
    trained = {"system": name, "num_steps": num_steps, "csi_source": sources[name]}
    trained |= {"model": {"num_streams": 4, "num_uses": 2}, "link": {"channel": "none"} if name == "no-link" else {}}
    settings = {"snrs_db": list(snrs_db), "receivers": list(receivers)}
    settings |= {"csi_source": "stale", "link": {}} if coded else {}
    both = [{**trained, "seed": seed} for seed in (0, 1)]
    write_config(folder, both, kind="sscc" if coded else "eval", settings=settings)


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., Study]:
    """Return a function that makes a study whose retrieval cells are done, but for those in ``leave``."""

    def make(
        settings: PaperSettings,
        leave: tuple[str, ...] = (),
        odd: str = "",
        receivers: tuple[str, ...] = ("literal",),
    ) -> Study:
        (tmp_path / "data").mkdir(exist_ok=True)
        made = make_study(settings, tmp_path / "out", tmp_path / "data")
        keys = made.keys()
        for name, cell in made.cells.items():
            if "/eval/" not in name or name in leave:
                continue
            *_, condition, system = name.split("/")
            snrs = SNRS if condition.endswith("-512bit") else (settings.swept_snr_db,)
            measure(cell.out, system, snrs, receivers, 20 if name == odd else 10)
            made.write_record(cell, Record(key=keys[name], seconds=2.0, peak_gb=0.5, command=cell.line()))
        return made

    return make


def claims_of(settings: PaperSettings, made: Study) -> list[dict[str, Any]]:
    """Return what the file of the claims holds, without drawing anything."""
    return claims_columns(claim_rows(Results(settings, made)))


def test_every_figure_is_drawn_in_all_forms_with_its_numbers(study: Callable[..., Study]) -> None:
    made = study(settings(), receivers=("literal", "dmrs"))
    text = write_output(settings(), made)
    stems = {path.stem for path in (made.out / "figures").iterdir()}
    wanted = [f"figure-{n}-people" for n in (6, 9, 10, 12)] + ["figure-7-motion"]
    assert stems == {f"{name}-{receiver}" for name in wanted for receiver in ("literal", "dmrs")}
    for stem in stems:
        for suffix in ("svg", "pdf", "png", "parquet", "csv"):
            assert (made.out / "figures" / f"{stem}.{suffix}").stat().st_size > 0
    points = table_rows(made.out / "figures", "figure-6-people-literal")
    assert {row["system"] for row in points} == {
        *("sc-lmkb", "deepsc-mimo", "csi-llm", "llm4cp", "no-link", "without-cdg", "perfect-csi", "sscc-best")
    }
    assert {row["wording"] for row in points} == {"same", "changed"}
    main = [row for row in points if row["system"] == "sc-lmkb"]
    assert all(abs(row["mean"] - 0.6) < 0.1 and 0 < row["half_width"] < 0.3 for row in main)
    swept = table_rows(made.out / "figures", "figure-9-people-dmrs")
    assert {row["feedback_bits"] for row in swept} == {128, 512}
    assert "| Fig. 6: mAP at 25 dB over DeepSC-MIMO" in text
    page = (made.out / "report.html").read_text("utf-8")
    assert page.count("<svg") >= len(stems)
    for shown in (
        "The paper's claims",
        "Fig. 7: Rank@5 at 30 dB over LLM4CP + SDG",
        "4 streams × 2 channel uses = 8",
        "sclmkb-train jscc",
    ):
        assert shown in page or shown.replace("'", "&#39;") in page, shown


def test_claims_are_held_against_what_was_measured(study: Callable[..., Study]) -> None:
    rows = claims_of(settings(), study(settings()))
    of = {
        row["claim"]: row
        for row in rows
        if (row["corpus"], row["receiver"], row["wording"]) == ("people", "literal", "changed")
    }
    over = of["Fig. 6: mAP at 25 dB over DeepSC-MIMO"]
    assert over["verdict"] == "holds"
    assert over["gain"] == pytest.approx(over["own"] / over["other"] - 1, rel=1e-6)
    assert over["gain_low"] < over["gain"] < over["gain_high"]
    assert of["Fig. 6: DeepSC-MIMO is slightly better at -10 dB"]["verdict"].startswith("does not hold")
    assert of["Fig. 12: mAP at 15 dB over without SDG"]["verdict"].startswith(("partly", "holds", "does not"))
    assert {row["claim"] for row in rows if row["corpus"] == "motion"} >= {
        "Fig. 7: Rank@5 at 30 dB over LLM4CP + SDG",
        "Fig. 7: SSCC is slightly better at 10 dB",
    }


def test_a_missing_cell_leaves_its_figures_and_claims_out_and_says_which(
    study: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    made = study(settings(), leave=("people/eval/umi-los-512bit/llm4cp",))
    write_output(settings(), made)
    stems = {path.stem for path in (made.out / "figures").iterdir()}
    assert not any(stem.startswith(("figure-6", "figure-9")) for stem in stems)
    assert "figure-10-people-literal" in stems
    assert "Figure 6, people is not drawn: people/eval/umi-los-512bit/llm4cp not measured" in capsys.readouterr().err
    rows = table_rows(made.out, "claims")
    verdicts = {row["verdict"] for row in rows if row["claim"].startswith("Fig. 6: mAP")}
    assert verdicts == {"not measured: people/eval/umi-los-512bit/llm4cp is not done"}


def test_no_figure_is_drawn_from_unequal_runs(study: Callable[..., Study]) -> None:
    made = study(settings(), odd="people/eval/umi-los-512bit/csi-llm")
    with pytest.raises(UserError, match=r"num_steps is 20 .*csi-llm.* and 10"):
        write_output(settings(), made)
    assert not (made.out / "figures").exists()


def test_what_a_study_leaves_out_is_not_measured(study: Callable[..., Study]) -> None:
    few = settings(systems=("sc-lmkb", "deepsc-mimo"), swept_bits=(64, 512), snrs_db=(-10, 10, 15, 25))
    verdicts = {row["claim"]: row["verdict"] for row in claims_of(few, study(few))}
    assert verdicts["Fig. 6: mAP at 25 dB over LLM4CP + SDG"] == (
        "not measured: llm4cp is not among the systems of this study"
    )
    assert verdicts["Fig. 9: mAP at 15 dB, 128 bits over DeepSC-MIMO"].startswith("not measured")


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (Gain(0.3, 0.1, 0.5), "holds"),
        (Gain(0.1, 0.05, 0.15), "partly"),
        (Gain(0.1, -0.05, 0.15), "does not hold: no clear difference"),
        (Gain(0.1, -0.05, 0.3), "does not hold: no clear difference, the interval holds the claimed gain too"),
        (Gain(-0.2, -0.3, -0.1), "does not hold: SC-LMKB is lower"),
        (Gain(None), "not measured"),
        (Gain(0.1), "not measured"),
    ],
)
def test_verdicts(gain: Gain, words: str) -> None:
    assert verdict(gain, [24.9, 36.9]).startswith(words)


def test_verdicts_at_low_snr() -> None:
    assert lower_verdict(Interval(mean=-0.1, half_width=0.05)) == "holds"
    assert lower_verdict(Interval(mean=0.1, half_width=0.05)) == "does not hold: SC-LMKB is higher"
    assert lower_verdict(Interval(mean=0.5, half_width=np.inf)) == "not measured: no interval"
    assert lower_verdict(Interval(mean=0.0, half_width=0.05)) == "does not hold: no clear difference"


def test_the_claims_are_those_of_the_paper() -> None:
    said = {(c.figure, c.measure, c.over): tuple(c.percent.values()) for c in CLAIMS if c.percent}
    assert (len(said), len(CLAIMS)) == (27, 27 + 3)
    assert said[6, "map", "csi-llm"] == (65.6, 64.8, 79.6)
    assert said[7, "rank10", "llm4cp"] == (19.6,)
    assert said[8, "rank5", "deepsc-mimo"] == (26.8,)
    assert said[10, "map", "llm4cp"] == (38.1, 31.3, 46.0)
    assert said[9, "map", "deepsc-mimo"] == (97.1, 101.8, 89.0)
