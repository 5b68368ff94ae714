"""The claims of the paper beside what a study measured, and what the study cost: tables, and rows for files."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sclmkb.common.tasks.retrieval import MEASURES
from sclmkb.evaluate.drawing.styles import label_of
from sclmkb.evaluate.intervals import Gain, Interval
from sclmkb.evaluate.measure.retrieval import MeasuredRetrieval
from sclmkb.evaluate.report.retrieval import RECEIVER_WORDS, WORDING_WORDS
from sclmkb.evaluate.studies.sc_lmkb.claims import CLAIMS, Claim, lower_verdict, verdict
from sclmkb.evaluate.studies.sc_lmkb.figures import PREDICTOR_TITLES
from sclmkb.evaluate.studies.sc_lmkb.plan import TRAINED, csi_name
from sclmkb.evaluate.studies.sc_lmkb.results import ENVELOPES, Results
from sclmkb.evaluate.studies.sc_lmkb.settings import MAIN, SSCC, SYSTEMS
from sclmkb.evaluate.tables import Table

CONDITIONS = [(receiver, wording) for wording in reversed(WORDING_WORDS) for receiver in RECEIVER_WORDS]
"""Receivers and wordings; the first is nearest to the paper: its receiver, captions by others than the training's."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A claim held against one corpus, receiver and wording.

    Attributes:
        claim: in words.
        paper: what the paper says.
        corpus: ours.
        receiver: which one.
        wording: of the queries.
        own: SC-LMKB.
        other: the baseline.
        gain: of SC-LMKB over the baseline; of the paper's other claims None.
        verdict: in words.
    """

    claim: str
    paper: str
    corpus: str
    receiver: str
    wording: str
    own: Interval | None = None
    other: Interval | None = None
    gain: Gain | None = None
    verdict: str = ""


def claim_rows(results: Results) -> list[Row]:
    """Return every claim under every receiver and wording."""
    return [row for condition in CONDITIONS for row in _rows(results, *condition)]


def claim_tables(rows: Sequence[Row]) -> list[Table]:
    """Return a table for each receiver and wording that something was claimed or measured under."""
    tables = []
    for receiver, wording in CONDITIONS:
        own = [row for row in rows if (row.receiver, row.wording) == (receiver, wording)]
        counts = Counter(row.verdict.split(":")[0] for row in own)
        tables.append(
            Table(
                title=f"Receiver {receiver}, {WORDING_WORDS[wording]}",
                columns=["claim", "paper", "measured on", "SC-LMKB", "the other", "gain", "verdict"],
                rows=[[row.claim, row.paper, row.corpus, *_cells(row), row.verdict] for row in own],
                note="; ".join(f"{word}: {count}" for word, count in sorted(counts.items())) + ".",
            )
        )
    return tables


def claims_columns(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Return the rows for a file; shares where tables have percent."""
    return [
        {
            **{name: getattr(row, name) for name in ("claim", "paper", "corpus", "receiver", "wording", "verdict")},
            "own": row.own.mean if row.own else None,
            "own_half_width": row.own.half_width if row.own else None,
            "other": row.other.mean if row.other else None,
            "other_half_width": row.other.half_width if row.other else None,
            "gain": row.gain.mean if row.gain else None,
            "gain_low": row.gain.low if row.gain else None,
            "gain_high": row.gain.high if row.gain else None,
        }
        for row in rows
    ]


def nmse_table(results: Results) -> Table | None:
    """Return what the paper says of Fig. 11: CDG's NMSE is the lowest, in both scenarios."""
    measured = results.csi()
    if measured is None:
        return None
    systems = {measured.kinds[name]: name for name in reversed(measured.systems)}
    main, baselines = systems.get("cdg"), [systems[kind] for kind in ("csi_llm", "llm4cp") if kind in systems]
    if main is None:
        return None
    rows = []
    for artifact, scenario in zip(measured.artifacts, ("UMi-LOS", "UMa-NLOS"), strict=True):
        condition = measured.condition(artifact, measured.shown_snr(artifact))
        for name in baselines:
            less = condition.difference(main, name)
            rows.append(
                [
                    f"Fig. 11: NMSE below that of {PREDICTOR_TITLES.get(name, name)}",
                    scenario,
                    *(f"{condition.mean(system).text()} dB" for system in (main, name)),
                    f"{less.text(signed=True)} dB",
                    lower_verdict(less, "CDG"),
                ]
            )
    return Table(
        title="NMSE of predicted CSI at the terminals of a sector",
        columns=["claim", "scenario", "CDG", "the other", "CDG less the other", "verdict"],
        rows=rows,
        note="Lower is better. One training of each predictor: intervals are over terminals alone.",
    )


def systems_table(results: Results) -> Table:
    """Return what each system is."""
    chosen = [name for name in SYSTEMS if name in results.settings.systems]
    rows = [
        [label_of(name), name, SYSTEMS[name].csi_source, "yes" if SYSTEMS[name].sdg else "no", SYSTEMS[name].what]
        for name in chosen
    ]
    if results.settings.sscc:
        what = "Huffman, Reed-Solomon, QAM; retrieval by the model without a link; the best scheme at each SNR"
        rows.append([label_of(ENVELOPES[0]), SSCC, "stale", "", what])
    return Table(
        title="Systems",
        columns=["system", "name", "CSI at the transmitter", "generated captions", "what it is"],
        rows=rows,
    )


def _rows(results: Results, receiver: str, wording: str) -> Iterator[Row]:
    for claim in CLAIMS:
        for name, corpus in results.corpora(claim.task, ablation=claim.zero_shot or claim.figure in (9, 12)).items():
            yield _row(results, claim, name, corpus.title, receiver, wording)


def _row(results: Results, claim: Claim, name: str, title: str, receiver: str, wording: str) -> Row:
    settings = results.settings
    condition = csi_name(TRAINED, claim.bits) if claim.bits else results.trained
    condition = results.zero_shot if claim.zero_shot else condition
    snr_db = claim.snr_db
    if snr_db is None:
        snr_db = settings.swept_snr_db if claim.percent else min(settings.snrs_db)
    where = f"{snr_db:g} dB"
    where += ", zero-shot UMa-NLOS" if claim.zero_shot else f", {claim.bits} bits" if claim.bits else ""
    other = label_of(claim.over)
    gained = f"{MEASURES[claim.measure]} at {where} over {other}"
    text = f"Fig. {claim.figure}: {gained if claim.percent else f'{other} is slightly better at {where}'}"
    row = Row(claim=text, paper=claim.text(), corpus=title, receiver=receiver, wording=wording)
    cell = SSCC if claim.over in ENVELOPES else claim.over
    found = _measured(results, name, condition, [MAIN, cell], snr_db, receiver, wording)
    if isinstance(found, str):
        return replace(row, verdict=f"not measured: {found}")
    compared = (claim.over, receiver, wording, claim.measure)
    row = replace(row, own=found.level(MAIN, *compared[1:]), other=found.level(*compared))
    if not claim.percent:
        return replace(row, verdict=lower_verdict(found.difference(*compared)))
    gain = found.relative_gain(*compared)
    return replace(row, gain=gain, verdict=verdict(gain, list(claim.percent.values())))


def _measured(
    results: Results, name: str, condition: str, cells: Sequence[str], snr_db: float, receiver: str, wording: str
) -> MeasuredRetrieval | str:
    """Return what was measured of all systems of the figure, or why it was not.

    Deviations between seeds are pooled over all of a figure's systems, so a claim reads the same measurements.
    """
    corpus = results.settings.corpora[name]
    chosen = results.compared(corpus) if condition == results.trained else results.swept(corpus)
    wanted = [*chosen, *(cell for cell in cells if cell not in chosen)]
    if lacking := [cell for cell in cells if cell not in (*results.ablated(corpus), *chosen)]:
        return f"{lacking[0]} is not among the systems of this study"
    if missing := results.unmeasured(name, condition, wanted):
        return f"{missing[0]} is not done"
    measured = results.retrieval(name, condition, wanted)
    if snr_db not in measured.snrs_db:
        return f"{snr_db:g} dB is not among the SNRs of this study"
    at = measured.at(snr_db)
    if receiver not in at.receivers:
        return f"receiver {receiver} is not among those of this study"
    return at if wording in at.wordings else f"there are no {WORDING_WORDS[wording]}"


def _cells(row: Row) -> list[str]:
    levels = [level.text(3) if level else "" for level in (row.own, row.other)]
    return [*levels, row.gain.text() if row.gain else ""]
