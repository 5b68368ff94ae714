"""``sclmkb-eval run``: finds checkpoints, measures each once, resumes, and merges what was measured.

::

    DIR/config.json           settings, fingerprints of the inputs, settings of every checkpoint
    DIR/work/SYSTEM-SEED-HASH/RECEIVER+SNRdB/*.parquet   one checkpoint, receiver and SNR: what is not measured again
    DIR/work/SYSTEM-SEED-HASH/shown+SNRdB/retrievals.parquet   what some captions find
    DIR/results.parquet       one row per checkpoint, receiver, SNR and wording
    DIR/symbol_mse.parquet    one row per checkpoint, receiver and SNR
    DIR/queries.parquet       one row per checkpoint, receiver, SNR and query
    DIR/retrievals.parquet    what some captions find
    DIR/tables.md             what is printed

Several processes of one command, as torchrun starts them, share the parts: each measures its own parts, and the
process that finds all parts there merges the tables. The processes need not communicate; they only need the same
folder.
"""

import errno
import os
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from sclmkb.common.artifacts.artifact import UnfinishedError
from sclmkb.common.artifacts.files import sha256_file, write_json, write_parquet
from sclmkb.common.artifacts.plan import plan_differences
from sclmkb.common.artifacts.run_folder import holds_run
from sclmkb.common.console import limit_threads, progress
from sclmkb.evaluate.measure.schemas import tables_of
from sclmkb.evaluate.measure.settings import RunInputs, RunSettings
from sclmkb.evaluate.measure.sweeps import Bench
from sclmkb.evaluate.measure.systems import find_checkpoints, the_task, warn_of_other_inputs

COLUMNS = ("snrs_db", "receivers", "shown_snrs_db", "seeds")
"""Settings that choose the columns and checkpoints to measure. The value of one column does not depend on the
others."""

_ABANDONED_S = 3600.0
"""A folder under way that is older belongs to no living process."""


class Measured(Protocol):
    """What was trained, of whichever kind: where it lies, its settings, and what a measurement keeps of it."""

    @property
    def root(self) -> Path: ...  # noqa: D102
    @property
    def settings(self) -> Any: ...  # noqa: D102
    def record(self) -> dict[str, Any]: ...  # noqa: D102


M = TypeVar("M")
MeasureParts = Callable[[M, Sequence[str], Callable[[], None]], Iterable[tuple[str, Mapping[str, pa.Table]]]]
"""Yields the named parts of a system's measurement, and calls its last argument to report progress."""


@dataclass(frozen=True)
class Share:
    """Which of several processes of the same command this is.

    Attributes:
        number: from 0.
        processes: how many there are.
    """

    number: int = 0
    processes: int = 1

    @classmethod
    def of_process(cls) -> "Share":
        """Return what ``RANK`` and ``WORLD_SIZE`` say, which torchrun sets; the whole without them."""
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))

    def has(self, index: int, total: int) -> bool:
        """Return whether number ``index`` of ``total`` parts is this process's; neighbours stay together."""
        return index * self.processes // total == self.number


def run_sweep(settings: RunSettings, inputs: RunInputs, out: Path, *, new_run: bool = False) -> Path:
    """Measure every checkpoint below a folder, or go on with the measurement in ``out``.

    Raises:
        UnfinishedError: if what is left is the share of other processes.
        UserError: if there is no finished checkpoint, an input is missing or corrupt, or ``out`` was measured with
            other settings or inputs.
    """
    limit_threads(settings.threads)
    checkpoints = find_checkpoints(inputs.checkpoints, settings.seeds)
    sources = [c.settings.csi_source for c in checkpoints if (settings.link or c.settings.link).needs_csi]
    opened = inputs.open(csi=bool(sources), predicted="predicted" in sources)
    fingerprints = {name: artifact.fingerprint for name, artifact in opened.items()}
    open_run("eval", settings.fingerprint_fields(), fingerprints, checkpoints, out, new_run, free=COLUMNS)
    warn_of_other_inputs(checkpoints, fingerprints)
    bench = Bench(settings, inputs, opened["corpus"], the_task(checkpoints))
    measure_missing(bench.measure, by_work_name(checkpoints), bench.parts, tables_of(bench.task), out)
    return out


def measure_missing(
    measure: MeasureParts[M],
    systems: Mapping[str, M],
    parts: Mapping[str, Sequence[str]],
    schemas: Mapping[str, pa.Schema],
    out: Path,
    ticks: int = 1,
) -> None:
    """Measure what was not measured before, and merge the tables of all parts of all systems.

    Parts that are not wanted any more stay in ``out/work``, so that they need not be measured again when they are;
    those of other systems are deleted.

    Args:
        measure: yields the tables of the missing parts of a system.
        systems: what is measured, by the name of its folder in ``out/work``; checkpoints: see :func:`by_work_name`.
        parts: of a system's measurement: names, and the tables of each.
        schemas: of the tables, by name.
        out: the folder.
        ticks: how often ``measure`` reports progress per part.

    Raises:
        UnfinishedError: if what is left is the share of other processes.
    """
    share, work = Share.of_process(), out / "work"
    everything = [(folder, part) for folder in systems for part in parts]
    # Shares are those of all parts, not of the missing ones, of which every process finds others.
    own = [pair for i, pair in enumerate(everything) if share.has(i, len(everything))]

    def is_missing(folder: str, part: str) -> bool:
        return not all((work / folder / part / f"{table}.parquet").exists() for table in parts[part])

    missing: dict[str, list[str]] = {}
    for folder, part in own:
        if is_missing(folder, part):
            missing.setdefault(folder, []).append(part)
    left = sum(map(len, missing.values()))
    with progress("eval", ticks * len(own), ticks * (len(own) - left)) as ticker:
        for folder, wanted in missing.items():
            for part, tables in measure(systems[folder], wanted, ticker.advance):
                _keep(work / folder / part, tables)
    if of_others := sum(is_missing(folder, part) for folder, part in everything):
        raise UnfinishedError(
            f"process {share.number + 1} of {share.processes} measured its share; {of_others} of {len(everything)}"
            f" columns in {work} are still to come from the others, the last of which writes the tables"
        )
    for name in dict.fromkeys(table for tables in parts.values() for table in tables):
        found = [work / folder / part for folder in systems for part, of in parts.items() if name in of]
        write_parquet(out / f"{name}.parquet", _merge(name, found, schemas[name]))
    _sweep_work(work, set(systems))


def _keep(folder: Path, tables: Mapping[str, pa.Table]) -> None:
    """Give the tables of a part their place, all at once; of several processes the first one wins."""
    made = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    for name, table in tables.items():
        write_parquet(made / f"{name}.parquet", table)
    try:
        made.rename(folder)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        for name in tables:  # those that were there already stay
            if not (folder / f"{name}.parquet").exists():
                (made / f"{name}.parquet").replace(folder / f"{name}.parquet")
        shutil.rmtree(made)


def _sweep_work(work: Path, current: set[str]) -> None:
    """Delete what was measured of other systems, and what killed processes left."""
    for folder in work.iterdir():
        if folder.name not in current:
            shutil.rmtree(folder, ignore_errors=True)  # another process may do the same
            continue
        for path in folder.glob(".*.tmp"):
            if time.time() - path.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(path, ignore_errors=True)


T = TypeVar("T", bound=Measured)


def by_work_name(checkpoints: Sequence[T]) -> dict[str, T]:
    """Return checkpoints by the name of the folder that keeps what was measured of each: it names the weights."""
    return {
        f"{c.settings.system}-{c.settings.seed}-{sha256_file(c.root / 'model.safetensors')[:12]}": c
        for c in checkpoints
    }


def open_run(
    kind: str,
    settings: dict[str, Any],
    inputs: dict[str, str],
    checkpoints: Sequence[Measured],
    out: Path,
    new_run: bool,
    free: Collection[str] = (),
) -> None:
    """Write ``config.json`` of a measurement, or go on with the one in ``out`` if settings and inputs are the same.

    Settings in ``free`` may be others than those before: they say what is measured, and change no number of it.

    Raises:
        UserError: if ``out`` holds another measurement, or something else; or if several processes would set it aside.
    """
    plan = {"kind": kind, "settings": settings, "inputs": inputs}

    def differences(existing: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
        there, now = (
            {**config, "settings": {k: v for k, v in config.get("settings", {}).items() if k not in free}}
            for config in (existing, wanted)
        )
        given = existing.get("inputs", {})
        return plan_differences({**there, "inputs": {name: given.get(name, inputs[name]) for name in inputs}}, now)

    processes = Share.of_process().processes
    holds_run(out, "config.json", plan, new_run=new_run, processes=processes, differences=differences)
    write_json(out / "config.json", {**plan, "checkpoints": [trained.record() for trained in checkpoints]})


def _merge(table: str, parts: list[Path], schema: pa.Schema) -> pa.Table:
    merged = pa.concat_tables([pq.read_table(part / f"{table}.parquet") for part in parts])
    if table != "retrievals":
        return merged
    rows = merged.to_pylist()
    first = {row["system"]: min(r["seed"] for r in rows if r["system"] == row["system"]) for row in rows}
    order = {query: i for i, query in reversed(list(enumerate(row["query"] for row in rows)))}
    kept = [row for row in rows if row["seed"] == first[row["system"]]]
    kept.sort(key=lambda row: (order[row["query"]], row["snr_db"], row["system"]))
    return pa.Table.from_pylist(kept, schema=schema)
