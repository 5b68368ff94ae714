"""Tables of what variable rates give at equal total uses: means over all SNRs that were measured."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from sclmkb.common.tasks.media.trained import MEDIA_TASKS
from sclmkb.evaluate.intervals import Condition
from sclmkb.evaluate.multitask.run import FULL_RATE
from sclmkb.evaluate.tables import Table

_LEARNED = "learned"
_COLUMNS = ["system", "rate", "uses", "value", "minus full", "learned minus it"]
_NOTE = (
    "Uses and values are means over SNRs and samples; uses count what is sent beside the symbols. learned minus it: "
    "what the learned rate has more at an equal budget."
)


def rate_tables(root: Path) -> Sequence[Table]:
    """Return a table of each task and channel from ``items.parquet``; none where all is sent at full rate."""
    sums: dict[tuple[str, str], dict[str, dict[int, dict[str, list[tuple[float, float]]]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    )
    group: dict[str, str] = {}
    for row in pq.read_table(root / "items.parquet").to_pylist():
        if row["inputs"] == "own" and row["measure"] == MEDIA_TASKS[row["task"]].main:
            name = f"{row['system']} {row['rate']}"
            sums[row["task"], row["channel"]][name][row["seed"]][row["row_id"]].append((row["value"], row["uses"]))
            group[row["row_id"]] = row["group"]
    found = []
    for (task, channel), systems in sums.items():
        ids = sorted(set.intersection(*(set(of) for seeds in systems.values() for of in seeds.values())))
        means = {
            name: {seed: np.array([np.mean(of[i], axis=0) for i in ids]) for seed, of in seeds.items()}
            for name, seeds in systems.items()
        }
        values = {name: {seed: of[:, 0] for seed, of in seeds.items()} for name, seeds in means.items()}
        condition = Condition(values, dict.fromkeys(values, "system"), clusters=[group[i] for i in ids])
        rows = []
        for name, seeds in means.items():
            system, rate = name.rsplit(" ", 1)
            full, learned = f"{system} {FULL_RATE}", f"{system} {_LEARNED}-{rate.rpartition('-')[2]}"
            pairs = [(name, full) if rate != FULL_RATE else (name, name), (learned, name)]
            cells = [
                condition.difference(*pair).text(3, signed=True)
                if pair[0] != pair[1] and set(pair) <= set(values)
                else ""
                for pair in pairs
            ]
            uses = float(np.mean([of[:, 1].mean() for of in seeds.values()]))
            rows.append([system, rate, f"{uses:.2f}", condition.mean(name).text(3), *cells])
        if len(means) > len({name.rsplit(" ", 1)[0] for name in means}):
            title = f"{task}, {channel}: {MEDIA_TASKS[task].measures[MEDIA_TASKS[task].main]} over total uses"
            found.append(Table(title=title, columns=_COLUMNS, rows=rows, note=_NOTE))
    return found
