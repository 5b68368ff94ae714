"""What ``sclmkb-eval mtsc`` writes from its items: a table and a figure of each task, with intervals.

A system's value is the mean over samples and seeds. Intervals are those of :mod:`sclmkb.evaluate.intervals`, clustered
by medium. The column "input" is the value minus that with shuffled media: what looking at the input is worth.
"""

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq

from sclmkb.common.artifacts.files import replacing
from sclmkb.common.tasks.media.trained import MEDIA_TASKS
from sclmkb.evaluate.drawing.figures import Curve, curves
from sclmkb.evaluate.intervals import Array, Condition, Interval
from sclmkb.evaluate.multitask.rate_tables import rate_tables
from sclmkb.evaluate.multitask.run import FULL_RATE
from sclmkb.evaluate.tables import Table

_SHUFFLED = " (shuffled)"


class Point(NamedTuple):
    """One measure of one task at one SNR of one channel and one rate."""

    task: str
    channel: str
    measure: str
    rate: str
    snr_db: float


class Value(NamedTuple):
    """A system's value, and what its own input is worth beside that of another sample; None: not measured."""

    value: Interval
    input: Interval | None


def read_conditions(root: Path) -> dict[Point, Condition]:
    """Return what all systems do with the same samples, of every measure, from ``items.parquet``."""
    table = pq.read_table(root / "items.parquet")
    values: dict[Point, dict[str, dict[int, dict[str, float]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(dict))
    )
    group: dict[str, str] = {}
    for row in table.to_pylist():
        point = Point(row["task"], row["channel"], row["measure"], row["rate"], row["snr_db"])
        name = row["system"] + (_SHUFFLED if row["inputs"] == "shuffled" else "")
        values[point][name][row["seed"]][row["row_id"]] = row["value"]
        group[row["row_id"]] = row["group"]
    found = {}
    for point, systems in sorted(values.items()):
        ids = sorted(set.intersection(*(set(of) for seeds in systems.values() for of in seeds.values())))
        arrays: dict[str, dict[int, Array]] = {
            name: {seed: np.array([of[i] for i in ids]) for seed, of in seeds.items()}
            for name, seeds in systems.items()
        }
        kinds = {name: "shuffled" if name.endswith(_SHUFFLED) else "system" for name in arrays}
        found[point] = Condition(arrays, kinds, clusters=[group[i] for i in ids])
    return found


def values_of(condition: Condition) -> dict[str, Value]:
    """Return the value of every system of a condition."""
    found = {}
    for name in condition.values:
        if not name.endswith(_SHUFFLED):
            other = name + _SHUFFLED
            worth = condition.difference(name, other) if other in condition.values else None
            found[name] = Value(condition.mean(name), worth)
    return found


def write_output(root: Path) -> str:
    """Write ``tables.md`` and ``figures/TASK-CHANNEL-MEASURE.{svg,pdf,png}``, and return the tables as Markdown."""
    of_curve: dict[tuple[str, str, str], dict[float, dict[str, Value]]] = defaultdict(dict)
    for point, condition in read_conditions(root).items():
        if point.rate == FULL_RATE:
            of_curve[point[:3]][point.snr_db] = values_of(condition)
    tables = []
    (root / "figures").mkdir(exist_ok=True)
    for (task, channel, measure), by_snr in of_curve.items():
        label = MEDIA_TASKS[task].measures[measure]
        tables.append(_table(f"{task}, {channel}: {label}", by_snr))
        lines = [
            Curve(
                label=name,
                x=list(by_snr),
                y=[of[name].value.mean for of in by_snr.values()],
                error=[of[name].value.half_width for of in by_snr.values()],
            )
            for name in next(iter(by_snr.values()))
        ]
        curves(
            lines,
            title=f"{task} over {channel}",
            x_label="SNR per complex use [dB]",
            y_label=label,
            files=root / "figures" / f"{task}-{channel}-{measure}",
        )
    tables += rate_tables(root)
    text = "\n".join(table.to_markdown() for table in tables)
    with replacing(root / "tables.md") as temporary:
        temporary.write_text(text, "utf-8")
    return text


def _table(title: str, by_snr: dict[float, dict[str, Value]]) -> Table:
    rows = [
        [name, f"{snr_db:g}", of.value.text(3), of.input.text(3, signed=True) if of.input is not None else ""]
        for snr_db, systems in by_snr.items()
        for name, of in systems.items()
    ]
    note = "input: value minus the value with media of other samples; above 0 by its interval: the input is looked at."
    return Table(title=title, columns=["system", "SNR [dB]", "value", "input"], rows=rows, note=note)
