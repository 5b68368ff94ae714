"""Tables of a study of MTSC: values, what the pre-trained model earns, single tasks, inputs, and published figures."""

from collections.abc import Mapping, Sequence

import numpy as np

from sclmkb.evaluate.drawing.styles import label_of
from sclmkb.evaluate.intervals import Interval
from sclmkb.evaluate.multitask.anchors import CIFAR10_AWGN
from sclmkb.evaluate.multitask.run import FULL_RATE
from sclmkb.evaluate.studies.mtsc.claims import LEARNED
from sclmkb.evaluate.studies.mtsc.crossover import crossover
from sclmkb.evaluate.studies.mtsc.results import SHUFFLED, TaskResults, Training
from sclmkb.evaluate.studies.mtsc.settings import MAIN, SINGLE, SYSTEMS
from sclmkb.evaluate.tables import Table


def values_table(of: TaskResults) -> Table:
    """Return the value of every system at every SNR."""
    rows = [
        [label_of(name), f"{of.uses[name]:g}", *(_text(value, of) for value in of.curve(name))] for name in of.systems
    ]
    seeds = max(len(seeds) for seeds in of.values.values())
    return Table(
        title=f"{of.label} of task {of.task} over {of.channel}",
        columns=["system", "uses", *(f"{snr_db:g} dB" for snr_db in of.snrs_db)],
        rows=rows,
        note=f"{len(of.groups)} samples about {len(set(of.groups))} media. 95 % intervals over media"
        + (f" and up to {seeds} seeds." if seeds > 1 else " alone: there is one seed."),
    )


def rates_table(of: TaskResults) -> Table:
    """Return what one model gives at every rate, and what its learned rate has more at an equal budget of uses."""
    mean, rows = of.mean(of.snrs_db), []
    for name in of.systems:
        learned = f"{LEARNED}-{name.rpartition('-')[2]}"
        pairs = [(name, FULL_RATE), (learned, name)]
        cells = [
            _text(mean.difference(*pair), of, signed=True)
            if pair[0] != pair[1] and set(pair) <= set(of.systems)
            else ""
            for pair in pairs
        ]
        rows.append([name, f"{of.uses[name]:.2f}", _text(mean.mean(name), of), *cells])
    return Table(
        title=f"Variable rate: {of.label} of task {of.task} over {of.channel}",
        columns=["rate", "uses", "value", "minus all uses", "learned minus it"],
        rows=rows,
        note=f"Means over {len(of.snrs_db)} SNRs; uses count what is sent beside the symbols. The number in a rate"
        " is its budget, as a share of all uses.",
    )


def pre_training_table(results: Sequence[TaskResults], trainings: Mapping[str, Training]) -> Table:
    """Return what the main system is above those whose language model is not pre-trained."""
    rows = []
    for of in results:
        for name in [name for name in SYSTEMS if SYSTEMS[name].equal and name in of.systems]:
            own, other = trainings[MAIN], trainings[name]
            rows.append(
                [
                    of.task, of.channel, label_of(name), SYSTEMS[name].equal, f"{own.steps:,} / {other.steps:,}",
                    f"{own.seconds:.0f} / {other.seconds:.0f}",
                    *(_text(value, of, signed=True) for value in _gains(of, name)),
                ]
            )  # fmt: skip
    return Table(
        title="What the pre-trained language model earns",
        columns=["task", "channel", "compared with", "equal in", "steps", "seconds", "at 12 dB", "mean over SNR"],
        rows=rows,
        note="The main system's value less the other's, paired; in the task's unit. Steps and seconds of a training"
        " with one thread, by the clock: the main system's / the other's.",
    )


def single_table(results: Sequence[TaskResults]) -> Table:
    """Return what the model for all tasks is above that for one task, at equal uses and samples per task."""
    rows = [
        [of.task, of.channel, of.label, *(_text(value, of, signed=True) for value in _gains(of, SINGLE[of.task]))]
        for of in results
        if SINGLE.get(of.task) in of.systems
    ]
    return Table(
        title="One model for all tasks, less a model for one",
        columns=["task", "channel", "measure", "at 12 dB", "mean over SNR"],
        rows=rows,
        note="Equal uses, equal samples per task.",
    )


def inputs_table(results: Sequence[TaskResults]) -> Table:
    """Return what looking at the input is worth to each trained system."""
    rows = []
    for of in results:
        for name in [name for name in of.systems if name + SHUFFLED in of.values]:
            worth = of.differences(name, name + SHUFFLED)
            rows.append([of.task, of.channel, label_of(name), *(_text(worth[at], of, signed=True) for at in _ends(of))])
    return Table(
        title="What the input is worth",
        columns=["task", "channel", "system", "at the lowest SNR", "at 12 dB"],
        rows=rows,
        note="Value less that with the media of other samples. A system whose interval holds 0 does not look.",
    )


def crossover_table(results: Sequence[TaskResults]) -> Table:
    """Return the SNRs at which the digital links catch up with the main system."""
    rows = [
        [of.task, of.channel, label_of(name), crossover(of, MAIN, name).text()]
        for of in results
        for name in of.systems
        if name.startswith("digital")
    ]
    return Table(
        title="Where the digital link catches up",
        columns=["task", "channel", "link", "SNR"],
        rows=rows,
        note="The lowest SNR from which the digital link is level or better, between measured SNRs by straight lines;"
        " 95 % interval by bootstrap over media.",
    )


def published_table(of: TaskResults) -> Table:
    """Return PSNR beside published figures of the same rate and true SNR; between our SNRs by straight lines."""
    rows: list[list[str]] = []
    uses = {round(count) for count in of.uses.values()}
    anchors = [anchor for anchor in CIFAR10_AWGN if anchor.uses in uses]
    snrs_db = sorted({snr_db for anchor in anchors for snr_db in anchor.psnr_db})
    for count in dict.fromkeys(anchor.uses for anchor in anchors):
        for anchor in [anchor for anchor in anchors if anchor.uses == count]:
            cells = [f"{anchor.psnr_db[at]:.1f}" if at in anchor.psnr_db else "" for at in snrs_db]
            rows.append([anchor.label, str(count), *cells])
        for name in [name for name in of.systems if round(of.uses[name]) == count]:
            inside = [of.snrs_db[0] <= snr_db <= of.snrs_db[-1] for snr_db in snrs_db]
            values = np.interp(snrs_db, of.snrs_db, [value.mean for value in of.curve(name)])
            cells = [f"{value:.1f}" if there else "" for value, there in zip(values, inside, strict=True)]
            rows.append([label_of(name), str(count), *cells])
    return Table(
        title=f"PSNR [dB] beside published figures, {of.channel}",
        columns=["system", "uses", *(f"{snr_db:g} dB" for snr_db in snrs_db)],
        rows=rows,
        note="SNR per complex use; 512 uses are 1/6 of a picture's values, 256 are 1/12. "
        + ". ".join(dict.fromkeys(f"{anchor.label}: {anchor.source}" for anchor in anchors))
        + ".",
    )


def trainings_table(trainings: Mapping[str, Training]) -> Table:
    """Return what each system is, and what its training took."""
    rows = [
        [label_of(name), SYSTEMS[name].what, ", ".join(of.tasks), f"{of.seeds}", f"{of.steps:,}", f"{of.seconds:.0f}"]
        for name, of in trainings.items()
    ]
    return Table(
        title="Systems",
        columns=["system", "what it is", "tasks", "seeds", "steps", "seconds"],
        rows=rows,
        note="Seconds: by the clock, of one training with its validations, the mean over seeds.",
    )


def _gains(of: TaskResults, other: str) -> list[Interval]:
    """Return how much the main system is above another, at the greatest SNR up to 12 dB and over all."""
    return [of.at[_ends(of)[1]].difference(MAIN, other), of.mean(of.snrs_db).difference(MAIN, other)]


def _ends(of: TaskResults) -> tuple[float, float]:
    """Return the lowest SNR, and the greatest up to 12 dB."""
    return of.snrs_db[0], max([snr_db for snr_db in of.snrs_db if snr_db <= 12], default=of.snrs_db[0])


def _text(value: Interval, of: TaskResults, *, signed: bool = False) -> str:
    return value.text(of.digits, signed=signed)
