"""``sclmkb-eval run``: finds checkpoints, measures each once, resumes, and merges what was measured.

::

    DIR/config.json           settings, fingerprints of the inputs, settings of every checkpoint
    DIR/work/SYSTEM-SEED-HASH/RECEIVER+SNRdB/*.parquet   one checkpoint, receiver and SNR: what is not measured again
    DIR/work/SYSTEM-SEED-HASH/shown+SNRdB/retrievals.parquet   what some captions find
    DIR/results.parquet       one row a checkpoint, receiver, SNR and wording
    DIR/symbol_mse.parquet    one row a checkpoint, receiver and SNR
    DIR/queries.parquet       one row a checkpoint, receiver, SNR and query
    DIR/retrievals.parquet    what some captions find
    DIR/tables.md             what is printed
"""

import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sclmkb.common.artifacts import Artifact, read_json, set_aside, sha256_file, write_json, write_parquet
from sclmkb.common.checkpoints import Checkpoint
from sclmkb.common.cli import limit_threads, progress
from sclmkb.common.errors import UserError
from sclmkb.evaluate.sweeps import RETRIEVALS, Bench, RunInputs, RunSettings
from sclmkb.evaluate.systems import find_checkpoints, link_settings_of, warn_of_other_inputs

COLUMNS = ("snrs_db", "receivers", "shown_snrs_db", "seeds")
"""Settings that say which columns, of which checkpoints, are measured; what one is does not depend on the others."""

_NONE = object()

Measure = Callable[[Checkpoint, Sequence[str], Callable[[], None]], Iterable[tuple[str, Mapping[str, pa.Table]]]]
"""Yields the named parts of a checkpoint's measurement, and calls its last argument to report progress."""


def run_sweep(settings: RunSettings, inputs: RunInputs, out: Path, *, new_run: bool = False) -> Path:
    """Measure every checkpoint below a folder, or go on with the measurement in ``out``.

    Raises:
        UserError: if there is no finished checkpoint, an input is missing or corrupt, or ``out`` was measured with
            other settings or inputs.
    """
    limit_threads(settings.threads)
    checkpoints = find_checkpoints(inputs.checkpoints, settings.seeds)
    opened = {"corpus": Artifact.open(inputs.corpus, "corpus")}
    on_shards = [c for c in checkpoints if (settings.link or link_settings_of(c)).needs_csi]
    if on_shards and inputs.csi is not None:
        opened["csi"] = Artifact.open(inputs.csi, "csi")
    if any(c.settings["csi_source"] == "predicted" for c in on_shards):
        if inputs.predicted is None:
            raise UserError("a checkpoint uses predicted CSI: name it with --predicted (sclmkb-gen cdg makes it)")
        opened["predicted"] = Artifact.open(inputs.predicted, "predicted")
    fingerprints = {name: artifact.fingerprint for name, artifact in opened.items()}
    open_run("eval", settings.fingerprint_fields(), fingerprints, checkpoints, out, new_run, free=COLUMNS)
    warn_of_other_inputs(checkpoints, fingerprints)
    bench = Bench(settings, inputs, opened["corpus"])
    measure_missing(bench.measure, checkpoints, bench.parts, out)
    return out


def measure_missing(
    measure: Measure, checkpoints: Sequence[Checkpoint], parts: Mapping[str, Sequence[str]], out: Path, ticks: int = 1
) -> None:
    """Measure what was not measured before, and merge the tables of all parts of all checkpoints.

    Parts that are not wanted any more stay in ``out/work``, so that they need not be measured again when they are;
    those of other checkpoints are deleted.

    Args:
        measure: yields the tables of the missing parts of a checkpoint.
        checkpoints: what is measured.
        parts: of a checkpoint's measurement: names, and the tables of each.
        out: the folder.
        ticks: how often ``measure`` reports progress a part.
    """
    folders = {_part_name(c): c for c in checkpoints}
    missing = {
        folder: [
            part
            for part, tables in parts.items()
            if not all((out / "work" / folder / part / f"{table}.parquet").exists() for table in tables)
        ]
        for folder in folders
    }
    left = sum(map(len, missing.values()))
    with progress("eval", ticks * len(parts) * len(folders), ticks * (len(parts) * len(folders) - left)) as ticker:
        for folder, wanted in missing.items():
            if wanted:
                for part, tables in measure(folders[folder], wanted, ticker.advance):
                    for name, table in tables.items():
                        write_parquet(out / "work" / folder / part / f"{name}.parquet", table)
    for name in dict.fromkeys(table for tables in parts.values() for table in tables):
        found = [out / "work" / folder / part for folder in folders for part, of in parts.items() if name in of]
        write_parquet(out / f"{name}.parquet", _merge(name, found))
    _sweep_work(out / "work", set(folders))


def _sweep_work(work: Path, current: set[str]) -> None:
    """Delete what was measured of other checkpoints, and files that lie where an older version put them."""
    for folder in work.iterdir():
        if folder.name not in current:
            shutil.rmtree(folder)
            continue
        for path in folder.iterdir():
            if path.is_file():
                path.unlink()


def _part_name(checkpoint: Checkpoint) -> str:
    digest = sha256_file(checkpoint.root / "model.safetensors")[:12]
    return f"{checkpoint.settings['system']}-{checkpoint.settings['seed']}-{digest}"


def open_run(
    kind: str,
    settings: dict[str, Any],
    inputs: dict[str, str],
    checkpoints: Sequence[Checkpoint],
    out: Path,
    new_run: bool,
    free: Collection[str] = (),
) -> None:
    """Write ``config.json`` of a measurement, or go on with the one in ``out`` if settings and inputs are the same.

    Args:
        kind: of measurement.
        settings: fields that can change the output.
        inputs: fingerprints.
        checkpoints: what is measured.
        out: the folder.
        new_run: set another one in ``out`` aside.
        free: settings that may be others than those before: they say what is measured, and change no number of it.

    Raises:
        UserError: if ``out`` holds another measurement, or something else.
    """
    path = out / "config.json"
    plan = {"kind": kind, "settings": settings, "inputs": inputs}
    if path.exists():
        existing = read_json(path)
        before, given = existing.get("settings", {}), existing.get("inputs", {})
        other = [name for name in settings | before if before.get(name, _NONE) != settings.get(name, _NONE)]
        other = [name for name in other if name not in free]
        other += [name for name in inputs if given.get(name, inputs[name]) != inputs[name]]
        if existing.get("kind") != kind or other:
            if not new_run:
                named = f" ({', '.join(other)})" if existing.get("kind") == kind else ""
                raise UserError(
                    f"{out} was measured with other settings or inputs{named}: choose another --out, or --new-run to"
                    " set it aside"
                )
            set_aside(out)
    elif out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty and holds no config.json: choose another --out")
    described = [{"folder": str(c.root), "settings": c.settings, **c.info} for c in checkpoints]
    write_json(path, {**plan, "checkpoints": described})


def _merge(table: str, parts: list[Path]) -> pa.Table:
    merged = pa.concat_tables([pq.read_table(part / f"{table}.parquet") for part in parts])
    if table != "retrievals":
        return merged
    rows = merged.to_pylist()
    first = {row["system"]: min(r["seed"] for r in rows if r["system"] == row["system"]) for row in rows}
    order = {query: i for i, query in reversed(list(enumerate(row["query"] for row in rows)))}
    kept = [row for row in rows if row["seed"] == first[row["system"]]]
    kept.sort(key=lambda row: (order[row["query"]], row["snr_db"], row["system"]))
    return pa.Table.from_pylist(kept, schema=RETRIEVALS)
