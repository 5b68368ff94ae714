"""What ``sclmkb-eval run`` measured, read back: systems side by side at one SNR, and their differences."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sclmkb.common.artifacts import replacing
from sclmkb.common.corpora.retrieval import SAME_WORDING
from sclmkb.common.errors import UserError
from sclmkb.evaluate.statistics import Array, Condition, Interval, mean_and_deviation
from sclmkb.evaluate.systems import MAIN_SYSTEM
from sclmkb.evaluate.tables import Table

Row = Mapping[str, Any]

_OLD_CSI = ("stale", "feedback")
_LEVEL_NOTE = "± : standard deviation over training seeds."
_DIFFERENCE_NOTE = (
    "± : half a 95 % interval over queries (paired bootstrap, those of an identity drawn together) and over seeds"
    " (deviation pooled over systems whose CSI is old, and over the others)."
)


class MeasuredRetrieval:
    """The measurements in a folder of ``sclmkb-eval run`` at one SNR.

    Args:
        root: the folder.
        snr_db: the SNR.
        main: name of the system that the others are compared with.

    Attributes:
        systems: names; the main one first, the bound of perfect CSI last.
        csi: the CSI at the transmitter of each. The deviation between seeds is pooled over systems whose CSI is old,
            and over the others: with stale CSI seeds scatter several times as much.
        receivers: names.
        wordings: of queries; ``changed`` are all but ``same`` together.

    Raises:
        UserError: if something is missing, or was not measured at that SNR.
    """

    def __init__(self, root: Path, snr_db: float, main: str = MAIN_SYSTEM) -> None:
        self.root, self.snr_db, self.main = root, snr_db, main
        rows = read_rows(root / "results.parquet")
        self.results = [row for row in rows if row["snr_db"] == snr_db]
        if not self.results:
            measured = sorted({row["snr_db"] for row in rows})
            raise UserError(f"nothing was measured at {snr_db} dB, only at {measured}")
        self.systems = ordered_systems(self.results, main)
        self.csi = {row["system"]: row["csi_source"] for row in self.results}
        self.receivers = list(dict.fromkeys(row["receiver"] for row in self.results))
        self.wordings = list(dict.fromkeys(row["wording"] for row in self.results))
        if not (root / "queries.parquet").exists():
            raise UserError(f"no queries.parquet in {root}: run sclmkb-eval run with --out {root} again")
        self._queries = pq.read_table(root / "queries.parquet", filters=[("snr_db", "=", snr_db)])
        self._conditions: dict[tuple[str, str], Condition] = {}

    def condition(self, receiver: str, wording: str) -> Condition:
        """Return the average precisions of all systems.

        Raises:
            UserError: if systems were measured on different queries.
        """
        key = (receiver, wording)
        if key not in self._conditions:
            column = self._queries.column("wording")
            named = pc.equal(column, SAME_WORDING if wording in ("same", "changed") else wording)
            chosen = pc.and_(
                pc.invert(named) if wording == "changed" else named,
                pc.equal(self._queries.column("receiver"), receiver),
            )
            self._conditions[key] = self._compare(self._queries.filter(chosen).sort_by("row_id").to_pydict())
        return self._conditions[key]

    def _compare(self, rows: dict[str, list[Any]]) -> Condition:
        columns = {name: np.asarray(of) for name, of in rows.items()}
        values: dict[str, dict[int, Array]] = {}
        first: Any = None
        for system in self.systems:
            for seed in np.unique(columns["seed"][columns["system"] == system]).tolist():
                mask = (columns["system"] == system) & (columns["seed"] == seed)
                first = mask if first is None else first
                if not np.array_equal(columns["row_id"][mask], columns["row_id"][first]):
                    raise UserError(
                        f"{self.root}: {system} seed {seed} was measured on other queries than {self.systems[0]}"
                    )
                values.setdefault(system, {})[seed] = columns["ap"][mask]
        clusters = columns["identity"][first].tolist()
        kinds = {name: "old" if self.csi[name] in _OLD_CSI else "current" for name in values}
        return Condition(values, kinds, clusters=clusters)

    def difference(self, reference: str, receiver: str, wording: str) -> Interval:
        """Return mAP of the main system less that of another; not clear where no system of the kind has two seeds."""
        condition = self.condition(receiver, wording)
        found = condition.difference(self.main, reference)
        unknown = any(condition.lacks_seeds(name) for name in (self.main, reference))
        return Interval(mean=found.mean, half_width=np.inf) if unknown else found

    def values(self, system: str, receiver: str, wording: str, measure: str = "map") -> list[float]:
        """Return a measure of each seed."""
        wanted = {"system": system, "receiver": receiver, "wording": wording}
        return [row[measure] for row in self.results if all(row[name] == value for name, value in wanted.items())]


def retrieval_tables(measured: MeasuredRetrieval) -> list[Table]:
    """Return mAP of every system, a table a receiver, and the differences to the main one."""
    sizes = {row["wording"]: row["queries"] for row in measured.results}
    wordings = [f"{wording}, {sizes[wording]} queries" for wording in measured.wordings]
    others = [name for name in measured.systems if name != measured.main]
    tables = []
    for receiver in measured.receivers:
        at = f"at {measured.snr_db:g} dB, receiver {receiver}"
        levels = [_level_row(measured, system, receiver) for system in measured.systems]
        columns = ["system", "CSI", "captions", "seeds", *wordings]
        tables.append(Table(title=f"mAP {at}", columns=columns, rows=levels, note=_LEVEL_NOTE))
        if measured.main in measured.systems and others:
            less = [
                [name, *(measured.difference(name, receiver, w).text(3, signed=True) for w in measured.wordings)]
                for name in others
            ]
            title = f"mAP of {measured.main} less that of another system, {at}"
            tables.append(Table(title=title, columns=["less", *wordings], rows=less, note=_DIFFERENCE_NOTE))
    return tables


def snr_tables(results: Sequence[Row], main: str = MAIN_SYSTEM) -> list[Table]:
    """Return the mean mAP of every system at every SNR, a table a receiver; ``same`` and ``changed`` wordings alone."""
    snrs = sorted({row["snr_db"] for row in results})
    wordings = [wording for wording in ("same", "changed") if any(row["wording"] == wording for row in results)]
    tables = []
    for receiver in dict.fromkeys(row["receiver"] for row in results):
        of: dict[tuple[str, str, float], list[float]] = defaultdict(list)
        for row in results:
            if row["receiver"] == receiver:
                of[row["wording"], row["system"], row["snr_db"]].append(row["map"])
        rows = [
            [system, wording, *(f"{fmean(of[wording, system, snr]):.3f}" for snr in snrs)]
            for wording in wordings
            for system in ordered_systems(results, main)
        ]
        columns = ["system", "wording", *(f"{snr:g} dB" for snr in snrs)]
        tables.append(Table(title=f"mAP over SNR, receiver {receiver}", columns=columns, rows=rows))
    return tables


def write_tables(root: Path, snr_db: float, more: Sequence[Table] = ()) -> str:
    """Write ``tables.md`` at the measured SNR that is nearest to a wanted one, with more tables, and return it.

    Raises:
        UserError: see :class:`MeasuredRetrieval`.
    """
    results = read_rows(root / "results.parquet")
    nearest = min({row["snr_db"] for row in results}, key=lambda value: (abs(value - snr_db), value))
    tables = [*retrieval_tables(MeasuredRetrieval(root, nearest)), *snr_tables(results), *more]
    text = "\n".join(table.to_markdown() for table in tables)
    with replacing(root / "tables.md") as temporary:
        temporary.write_text(text, "utf-8")
    return text


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a table of ``sclmkb-eval run``.

    Raises:
        UserError: if it is missing or empty.
    """
    if not path.exists():
        raise UserError(f"no {path.name} in {path.parent}: run sclmkb-eval run with --out {path.parent} first")
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    if not rows:
        raise UserError(f"{path} is empty: run sclmkb-eval run again")
    return rows


def ordered_systems(results: Sequence[Row], main: str) -> list[str]:
    """Return the names of the systems: the main one first, the bound of perfect CSI last."""
    systems = {row["system"] for row in results}
    return sorted(systems, key=lambda name: (name != main, name == "perfect-csi", name))


def _level_row(measured: MeasuredRetrieval, system: str, receiver: str) -> list[str]:
    found = next(row for row in measured.results if row["system"] == system)
    cells = []
    for wording in measured.wordings:
        mean, deviation = mean_and_deviation(measured.values(system, receiver, wording))
        cells.append(f"{mean:.3f} ± {deviation:.3f}")
    seeds = len(measured.values(system, receiver, measured.wordings[0]))
    return [system, found["csi_source"], found["fusion"] if found["sdg"] else "sources", str(seeds), *cells]
