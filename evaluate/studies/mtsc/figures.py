"""The paper's Figures 5a, 5b and 6 from a study, and quality over uses; each with one sentence on what it shows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import pyarrow as pa

from sclmkb.common.artifacts.files import write_csv, write_parquet
from sclmkb.evaluate.drawing.bands import bands
from sclmkb.evaluate.drawing.figures import Curve
from sclmkb.evaluate.drawing.styles import label_of
from sclmkb.evaluate.multitask.run import FULL_RATE
from sclmkb.evaluate.report.paper import PaperFigure
from sclmkb.evaluate.studies.mtsc.claims import BASELINES, FIGURES, LEARNED
from sclmkb.evaluate.studies.mtsc.results import TaskResults
from sclmkb.evaluate.studies.mtsc.settings import MAIN

LEVELS = {
    "majority": "commonest answer",
    "constant": "one caption for all",
    "nearest": "nearest neighbour",
    "consensus-5": "consensus of 5",
}
"""Rows without a channel or a training: one value for all SNRs, by system."""
_LEARNED_SYSTEMS = ("u-deepsc", "deepjscc", "adjscc", "random-lam", "no-lam", "question-only")
_DRAWN = (MAIN, "digital", "digital-packed", "digital-text", *_LEARNED_SYSTEMS)
_WORDS = {
    "answer": "Answers",
    "caption": "Captions of pictures",
    "caption_sound": "Captions of sounds",
    "caption_video": "Captions of clips",
    "reconstruct": "Pictures",
}
_POINTS = pa.schema(
    [(name, pa.string()) for name in ("system", "task", "channel", "measure")]
    + [(name, pa.float64()) for name in ("snr_db", "uses", "mean", "half_width")]
)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure of the page, and where its files lie."""

    figure: PaperFigure
    stem: Path


def draw_figures(results: Sequence[TaskResults], folder: Path) -> list[Drawing]:
    """Draw the main measure of every task over every channel, with its points beside it as Parquet and CSV."""
    return [_over_snr(of, folder) for of in results if of.is_main]


def draw_average(results: Sequence[TaskResults], folder: Path) -> list[Drawing]:
    """Draw the mean CIDEr over pictures, sounds and clips, the paper's Figure 5b, where two of them were measured."""
    drawings = []
    for channel in dict.fromkeys(of.channel for of in results):
        kinds = [of for of in results if of.is_main and of.channel == channel and of.task.startswith("caption")]
        if len(kinds) < 2:
            continue
        snrs_db = [snr_db for snr_db in kinds[0].snrs_db if all(snr_db in of.snrs_db for of in kinds)]
        drawn = [name for name in _DRAWN if all(name in of.systems for of in kinds)]
        lines = []
        for name in drawn:
            found = [[of.at[snr_db].mean(name) for of in kinds] for snr_db in snrs_db]
            means = [fmean(value.mean for value in at) for at in found]
            # Samples of different corpora are independent; seeds are counted as if they were.
            error = [math.hypot(*(value.half_width for value in at)) / len(kinds) for at in found]
            lines.append(Curve(label=label_of(name), x=snrs_db, y=means, error=error, system=name))
        stem = folder / ("figure-5b-average" if channel == "awgn" else f"figure-5b-average-{channel}")
        svg = bands(lines, x_label="SNR per complex use [dB]", y_label="mean CIDEr", files=stem)
        caption = f"Mean over {' and '.join(_WORDS[of.task].lower() for of in kinds)}, {_channel(kinds[0])}."
        drawings.append(Drawing(figure=PaperFigure(name="Figure 5b, average.", caption=caption, svg=svg), stem=stem))
    return drawings


def draw_rates(rates: Sequence[TaskResults], folder: Path) -> list[Drawing]:
    """Draw what a model gives over its mean total uses, a line for each way to choose them; means over SNRs."""
    return [_over_uses(of, folder) for of in rates]


def _over_uses(of: TaskResults, folder: Path) -> Drawing:
    stem = folder / f"rate-{of.task}{'' if of.channel == 'awgn' else f'-{of.channel}'}"
    mean = of.mean(of.snrs_db)
    ways = list(dict.fromkeys(name.rpartition("-")[0] for name in of.systems if name != FULL_RATE))
    full = mean.mean(FULL_RATE)
    lines = []
    for way in ways:
        names = sorted((name for name in of.systems if name.rpartition("-")[0] == way), key=of.uses.__getitem__)
        values = [*(mean.mean(name) for name in names), full]
        lines.append(
            Curve(
                label=way,
                x=[*(of.uses[name] for name in names), of.uses[FULL_RATE]],
                y=[value.mean for value in values],
                error=[value.half_width if way == LEARNED else 0.0 for value in values],
                system=MAIN if way == LEARNED else way,
            )
        )
    svg = bands(lines, x_label="mean complex uses, with all that is sent beside them", y_label=of.label, files=stem)
    write_points(stem, of, of.systems)
    caption = (
        f"{_WORDS[of.task]} over {_channel(of)}, means over {len(of.snrs_db)} SNRs. {rate_finding(of)}"
        " Band: 95 % interval of the learned rate."
    )
    return Drawing(figure=PaperFigure(name="Variable rate.", caption=caption, svg=svg), stem=stem)


def rate_finding(of: TaskResults) -> str:
    """Return in one sentence what the learned rate loses against all uses, and gains over the others."""
    mean = of.mean(of.snrs_db)
    shares = sorted({float(name.rpartition("-")[2]) for name in of.systems if name != FULL_RATE})
    said = []
    for share in shares:
        learned = f"{LEARNED}-{share:g}"
        if learned in of.systems:
            less = 1 - of.uses[learned] / of.uses[FULL_RATE]
            loss = mean.difference(learned, FULL_RATE).text(of.digits, signed=True)
            others = [name for name in of.systems if name.endswith(f"-{share:g}") and name != learned]
            above = [name.rpartition("-")[0] for name in others if mean.difference(learned, name).verdict == "gain"]
            said.append(
                f"{100 * less:.0f} % fewer uses change it by {loss}, above {', '.join(above) or 'no other rate'}"
            )
    return f"The learned rate: {'; '.join(said)}." if said else ""


def _over_snr(of: TaskResults, folder: Path) -> Drawing:
    number = FIGURES[of.task]
    name = f"figure-{number.replace(', ', '-')}"
    stem = folder / (name if of.channel == "awgn" else f"{name}-{of.channel}")
    drawn = [name for name in _DRAWN if name in of.systems]
    values = {name: of.curve(name) for name in drawn}
    lines = [
        Curve(
            label=label_of(name), x=of.snrs_db, y=[v.mean for v in values[name]],
            error=[v.half_width for v in values[name]], system=name,
        )
        for name in drawn
    ]  # fmt: skip
    levels = {LEVELS[name]: of.curve(name)[-1].mean for name in LEVELS if name in of.systems}
    svg = bands(lines, x_label="SNR per complex use [dB]", y_label=of.label, levels=levels, files=stem)
    write_points(stem, of, drawn)
    caption = f"{_WORDS[of.task]} over {_channel(of)}, {_uses(of, drawn)}. {finding(of)} Bands: 95 % intervals."
    return Drawing(figure=PaperFigure(name=f"Figure {number}.", caption=caption, svg=svg), stem=stem)


def finding(of: TaskResults) -> str:
    """Return in one sentence where the main system is above the baselines by its interval, and where below."""
    parts = []
    for name in [one for one in BASELINES if one in of.systems]:
        verdicts = {snr_db: found.verdict for snr_db, found in of.differences(MAIN, name).items()}
        said: list[str] = []
        for word, verdict in (("above", "gain"), ("below", "loss")):
            if snrs_db := [snr_db for snr_db in verdicts if verdicts[snr_db] == verdict]:
                said.append(f"{word} {'it' if said else label_of(name)} at {_at(snrs_db, of)}")
        parts.append(" and ".join(said) or f"level with {label_of(name)} within the intervals")
    if parts:
        return f"{label_of(MAIN)} is {'; '.join(parts)}."
    values = of.curve(MAIN)
    ends = [f"{value.text(of.digits)} at {snr_db:g} dB" for snr_db, value in zip(of.snrs_db, values, strict=True)]
    return f"{label_of(MAIN)} goes from {ends[0]} to {ends[-1]}; no baseline was measured."


def write_points(stem: Path, of: TaskResults, systems: Sequence[str]) -> None:
    """Write the numbers of a figure beside it."""
    shared: Mapping[str, object] = {"task": of.task, "channel": of.channel, "measure": of.measure}
    points = [
        {**shared, "system": name, "uses": of.uses[name], "snr_db": snr_db, "mean": value.mean}
        | {"half_width": value.half_width}
        for name in systems
        for snr_db, value in zip(of.snrs_db, of.curve(name), strict=True)
    ]
    table = pa.Table.from_pylist(points, schema=_POINTS)
    write_parquet(stem.with_name(f"{stem.name}.parquet"), table)
    write_csv(stem.with_name(f"{stem.name}.csv"), table)


def _channel(of: TaskResults) -> str:
    return "AWGN" if of.channel == "awgn" else of.channel


def _uses(of: TaskResults, drawn: Sequence[str]) -> str:
    uses = sorted({round(of.uses[name]) for name in drawn})
    return f"{' or '.join(map(str, uses))} complex uses each"


def _at(snrs_db: Sequence[float], of: TaskResults) -> str:
    """Return SNRs in words."""
    if len(snrs_db) == len(of.snrs_db):
        return "every SNR"
    if len(snrs_db) > 2 and list(snrs_db) == [s for s in of.snrs_db if snrs_db[0] <= s <= snrs_db[-1]]:
        return f"{snrs_db[0]:g} to {snrs_db[-1]:g} dB"
    names = [f"{snr_db:g}" for snr_db in snrs_db]
    return f"{', '.join(names[:-1])} and {names[-1]} dB" if len(names) > 1 else f"{names[0]} dB"
