"""What ``sclmkb-eval run`` and ``sscc`` measured, read back: systems side by side at one SNR, and their differences."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from sclmkb.common.artifacts.files import write_bytes
from sclmkb.common.errors import UserError
from sclmkb.evaluate.intervals import Array, Condition, Gain, Interval, mean_and_deviation
from sclmkb.evaluate.measure.fairness import shared_conditions
from sclmkb.evaluate.measure.query_rows import Queries, read_queries
from sclmkb.evaluate.measure.record import read_measurement
from sclmkb.evaluate.measure.systems import MAIN_SYSTEM, the_task
from sclmkb.evaluate.tables import Table

Row = Mapping[str, Any]
_OLD_CSI = ("stale", "feedback")
_LEVEL_NOTE = "± : standard deviation over training seeds."
_DIFFERENCE_NOTE = (
    "± : half a 95 % interval over queries (paired bootstrap, those of an identity drawn together) and over seeds"
    " (deviation pooled over systems whose CSI is old, and over the others)."
)


class Measurements:
    """The measurements in folders of ``sclmkb-eval run`` and ``sclmkb-eval sscc`` at all SNRs, read once.

    Args:
        roots: the folders; if there are several, their systems must have been measured and trained alike.

    Attributes:
        records: what each folder says of its measurement.
        conditions: what systems of several folders have in common; None for a single folder.
        results: rows of ``results.parquet``; a column that a folder lacks is None.
        snrs_db: what was measured, in order.
        queries: what every query found.
        task: that the systems are for.

    Raises:
        UserError: if something is missing, conditions differ (see :func:`shared_conditions`), or two folders hold the
            same system and seed.
    """

    def __init__(self, *roots: Path) -> None:
        self.records = [read_measurement(root) for root in roots]
        of_roots = [read_rows(root / "results.parquet") for root in roots]
        _check_apart(roots, of_roots)
        self.conditions = shared_conditions(self.records) if len(roots) > 1 else None
        columns = dict.fromkeys(name for rows in of_roots for name in rows[0])
        self.results: list[Row] = [{name: row.get(name) for name in columns} for rows in of_roots for row in rows]
        self.snrs_db = sorted({row["snr_db"] for row in self.results})
        self.task = the_task(self.records[0].systems)
        self.queries = read_queries(roots, self.task)
        self._at: dict[tuple[float, str], MeasuredRetrieval] = {}

    @property
    def named(self) -> str:
        """The folders, for a message."""
        return ", ".join(str(record.folder) for record in self.records)

    def at(self, snr_db: float, main: str = MAIN_SYSTEM) -> "MeasuredRetrieval":
        """Return what was measured at one SNR beside a main system, the same object each time: it keeps results.

        Raises:
            UserError: if nothing was.
        """
        if (snr_db, main) not in self._at:
            self._at[snr_db, main] = MeasuredRetrieval(self, snr_db, main)
        return self._at[snr_db, main]


class MeasuredRetrieval:
    """What was measured at one SNR; see :meth:`Measurements.at`.

    Attributes:
        systems: names; the main one first, the bound of perfect CSI last.
        csi: the CSI at the transmitter of each. The deviation between seeds is pooled over systems whose CSI is old,
            and over the others: with stale CSI seeds scatter several times as much.
        coded: those of separate source and channel coding, whose deviation is pooled apart.
        receivers: names.
        wordings: of queries; ``changed`` are all but ``same`` together.
        task: that the systems are for.

    Raises:
        UserError: if nothing was measured at that SNR.
    """

    def __init__(self, measurements: Measurements, snr_db: float, main: str) -> None:
        self.measurements, self.task, self.snr_db, self.main = measurements, measurements.task, snr_db, main
        self.results = [row for row in measurements.results if row["snr_db"] == snr_db]
        if not self.results:
            raise UserError(
                f"{measurements.named}: nothing was measured at {snr_db} dB, only at {measurements.snrs_db}: name one"
                " of these"
            )
        self.systems = ordered_systems(self.results, main)
        self.csi = {row["system"]: row["csi_source"] for row in self.results}
        self.coded = {row["system"] for row in self.results if row.get("scheme")}
        self.receivers = list(dict.fromkeys(row["receiver"] for row in self.results))
        self.wordings = list(dict.fromkeys(row["wording"] for row in self.results))
        self._conditions: dict[tuple[str, str, str, bool], Condition] = {}

    def condition(
        self, receiver: str, wording: str, measure: str | None = None, *, relative: bool = False
    ) -> Condition:
        """Return a measure of every query of all systems, such as its average precision; default: the main measure.

        With ``relative``, means are compared by their logarithm; systems that found nothing with some seed are left
        out.

        Raises:
            UserError: if systems were measured on different queries, or all queries are about one identity.
        """
        measure = measure or self.task.main
        key = (receiver, wording, measure, relative)
        if key not in self._conditions:
            found = self.found(receiver, wording)
            values = {
                name: {seed: self.task.values(measure, q.scores) for seed, q in of.items()}
                for name, of in found.items()
            }
            clusters = next(q.identity for of in found.values() for q in of.values()).tolist() if found else []
            if len(set(clusters)) < 2:
                raise UserError(
                    f"{self.measurements.named}: {len(clusters)} queries ({wording} wording, receiver {receiver}) about"
                    f" {len(set(clusters))} identities; an interval needs at least 2 identities: take a larger test"
                    " split"
                )
            if relative:
                values = {name: of for name, of in values.items() if all(float(one.mean()) > 0 for one in of.values())}
            kinds = {name: self.kind(name) for name in values}
            self._conditions[key] = Condition(values, kinds, clusters=clusters, scale=_log if relative else np.asarray)
        return self._conditions[key]

    def found(self, receiver: str, wording: str) -> dict[str, dict[int, Queries]]:
        """Return what the queries of a wording found, of each system and seed.

        Raises:
            UserError: if systems were measured on different queries.
        """
        found: dict[str, dict[int, Queries]] = {name: {} for name in self.systems}
        first: Queries | None = None
        for system, seed in dict.fromkeys((row["system"], row["seed"]) for row in self.results):
            whole = self.measurements.queries.get((self.snr_db, receiver, system, seed))
            if whole is None:
                continue
            of = whole.worded(wording)
            first = of if first is None else first
            if not np.array_equal(of.caption, first.caption):
                raise UserError(
                    f"{self.measurements.named}: {system} seed {seed} was measured on other queries than"
                    f" {self.systems[0]}"
                )
            found[system][seed] = of
        return {name: of for name, of in found.items() if of}

    def kind(self, system: str) -> str:
        """Return the kind of systems that the deviation between seeds is pooled with."""
        if system in self.coded:
            return "coded"  # nothing of it is trained but what retrieves
        return "old" if self.csi[system] in _OLD_CSI else "current"

    def level(self, system: str, receiver: str, wording: str, measure: str | None = None) -> Interval:
        """Return a measure of a system, mean over seeds; the interval of one seed alone is over queries alone."""
        return self._with(self.condition(receiver, wording, measure), system).mean(system)

    def difference(self, reference: str, receiver: str, wording: str, measure: str | None = None) -> Interval:
        """Return the main system less another one; not clear where no system of the kind has two seeds."""
        condition = self._with(self.condition(receiver, wording, measure), self.main, reference)
        found = condition.difference(self.main, reference)
        unknown = any(condition.lacks_seeds(name) for name in (self.main, reference))
        return Interval(mean=found.mean, half_width=np.inf) if unknown else found

    def relative_gain(self, reference: str, receiver: str, wording: str, measure: str | None = None) -> Gain:
        """Return by how much the main system is over another one, as a share of the other.

        The interval is that of the difference of logarithms. Systems of one kind are compared on the seeds that both
        have, as :meth:`difference` does.

        Raises:
            UserError: see :meth:`condition`.
        """
        levels = self._with(self.condition(receiver, wording, measure), self.main, reference)
        means = [levels.mean(name).mean for name in (self.main, reference)]
        if means[1] <= 0:
            return Gain(mean=None)
        condition = self.condition(receiver, wording, measure, relative=True)
        if not {self.main, reference} <= set(condition.values):
            return Gain(mean=means[0] / means[1] - 1)
        with np.errstate(invalid="ignore"):  # resamples without a hit
            found = condition.difference(self.main, reference)
        unknown = any(condition.lacks_seeds(name) for name in (self.main, reference))
        if unknown or not np.isfinite(found.half_width):
            return Gain(mean=float(np.expm1(found.mean)))
        low, high = found.mean - found.half_width, found.mean + found.half_width
        return Gain(*(float(np.expm1(value)) for value in (found.mean, low, high)))

    def _with(self, condition: Condition, *systems: str) -> Condition:
        if missing := [name for name in systems if name not in condition.values]:
            raise UserError(
                f"system '{missing[0]}' was not measured at {self.snr_db:g} dB in {self.measurements.named}: there are"
                f" {', '.join(condition.values)}"
            )
        return condition

    def values(self, system: str, receiver: str, wording: str, measure: str | None = None) -> list[float]:
        """Return a measure of each seed."""
        rows = select(self.results, system=system, receiver=receiver, wording=wording)
        return [row[measure or self.task.main] for row in rows]


def retrieval_tables(measured: MeasuredRetrieval) -> list[Table]:
    """Return the main measure of every system, one table per receiver, and the differences to the main system."""
    label = measured.task.measures[measured.task.main]
    sizes = {row["wording"]: row["queries"] for row in measured.results}
    wordings = [f"{wording}, {sizes[wording]} queries" for wording in measured.wordings]
    others = [name for name in measured.systems if name != measured.main]
    tables = []
    for receiver in measured.receivers:
        at = f"at {measured.snr_db:g} dB, receiver {receiver}"
        levels = [_level_row(measured, system, receiver) for system in measured.systems]
        columns = ["system", "CSI", "captions", "seeds", *wordings]
        tables.append(Table(title=f"{label} {at}", columns=columns, rows=levels, note=_LEVEL_NOTE))
        if measured.main in measured.systems and others:
            less = [
                [name, *(measured.difference(name, receiver, w).text(3, signed=True) for w in measured.wordings)]
                for name in others
            ]
            title = f"{label} of {measured.main} less that of another system, {at}"
            tables.append(Table(title=title, columns=["less", *wordings], rows=less, note=_DIFFERENCE_NOTE))
    return tables


def snr_tables(measured: Measurements) -> list[Table]:
    """Return the mean of the main measure of every system at every SNR, one table per receiver.

    Wordings ``same`` and ``changed`` stand alone.
    """
    results, snrs, task = measured.results, measured.snrs_db, measured.task
    wordings = [wording for wording in ("same", "changed") if any(row["wording"] == wording for row in results)]
    tables = []
    for receiver in dict.fromkeys(row["receiver"] for row in results):
        rows = []
        for wording, system in product(wordings, ordered_systems(results, MAIN_SYSTEM)):
            own = select(results, receiver=receiver, wording=wording, system=system)
            means = [fmean(row[task.main] for row in select(own, snr_db=snr)) for snr in snrs]
            rows.append([system, wording, *(f"{mean:.3f}" for mean in means)])
        columns = ["system", "wording", *(f"{snr:g} dB" for snr in snrs)]
        title = f"{task.measures[task.main]} over SNR, receiver {receiver}"
        tables.append(Table(title=title, columns=columns, rows=rows))
    return tables


def write_tables(root: Path, snr_db: float, more: Sequence[Table] = ()) -> str:
    """Write ``tables.md`` at the measured SNR that is nearest to a wanted one, with more tables, and return it.

    Raises:
        UserError: see :class:`Measurements`.
    """
    measured = Measurements(root)
    nearest = min(measured.snrs_db, key=lambda value: (abs(value - snr_db), value))
    tables = [*retrieval_tables(measured.at(nearest)), *snr_tables(measured), *more]
    text = "\n".join(table.to_markdown() for table in tables)
    write_bytes(root / "tables.md", text.encode())
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


def select(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    """Return the rows that have certain values."""
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def ordered_systems(results: Sequence[Row], main: str) -> list[str]:
    """Return the names of the systems: the main one first, the bound of perfect CSI last."""
    systems = {row["system"] for row in results}
    return sorted(systems, key=lambda name: (name != main, name == "perfect-csi", name))


def _check_apart(roots: Sequence[Path], of_roots: Sequence[Sequence[Row]]) -> None:
    """Refuse folders that hold the same system and seed."""
    known: dict[tuple[str, int], Path] = {}
    for root, rows in zip(roots, of_roots, strict=True):
        own = dict.fromkeys((row["system"], row["seed"]) for row in rows)
        if both := next((key for key in own if key in known), None):
            raise UserError(
                f"{known[both]} and {root} both measured system '{both[0]}' seed {both[1]}: leave one of them out"
            )
        known |= dict.fromkeys(own, root)


def _log(value: Any) -> Array:
    """Return natural logarithms; -inf for 0."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(value))


def _level_row(measured: MeasuredRetrieval, system: str, receiver: str) -> list[str]:
    found = next(row for row in measured.results if row["system"] == system)
    cells = []
    for wording in measured.wordings:
        mean, deviation = mean_and_deviation(measured.values(system, receiver, wording))
        cells.append(f"{mean:.3f} ± {deviation:.3f}")
    seeds = len(measured.values(system, receiver, measured.wordings[0]))
    return [system, found["csi_source"], found["fusion"] if found["sdg"] else "sources", str(seeds), *cells]
