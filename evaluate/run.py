"""``sclmkb-eval run``: finds checkpoints, measures each once, resumes, and merges what was measured.

::

    DIR/config.json           settings, fingerprints of the inputs, settings of every checkpoint
    DIR/work/SYSTEM-SEED-HASH/*.parquet   measurements of one checkpoint: what a resumed run does not do again
    DIR/results.parquet       one row a checkpoint, receiver, SNR and wording
    DIR/symbol_mse.parquet    one row a checkpoint, receiver and SNR
    DIR/queries.parquet       one row a checkpoint, receiver, SNR and query
    DIR/retrievals.parquet    what some captions find
    DIR/tables.md             what is printed
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sclmkb.common.artifacts import Artifact, read_json, set_aside, sha256_file, write_json, write_parquet
from sclmkb.common.checkpoints import Checkpoint
from sclmkb.common.cli import limit_threads, progress
from sclmkb.common.errors import UserError
from sclmkb.evaluate.sweeps import RETRIEVALS, TABLES, Bench, RunInputs, RunSettings
from sclmkb.evaluate.systems import find_checkpoints, link_settings_of, warn_of_other_inputs


def run_sweep(settings: RunSettings, inputs: RunInputs, out: Path, *, new_run: bool = False) -> Path:
    """Measure every checkpoint below a folder, or go on with the measurement in ``out``.

    Raises:
        UserError: if there is no finished checkpoint, an input is missing or corrupt, or ``out`` was measured with
            other settings or inputs.
    """
    limit_threads(settings.threads)
    checkpoints = find_checkpoints(inputs.checkpoints)
    opened = {"corpus": Artifact.open(inputs.corpus, "corpus")}
    on_shards = [c for c in checkpoints if (settings.link or link_settings_of(c)).needs_csi]
    if on_shards and inputs.csi is not None:
        opened["csi"] = Artifact.open(inputs.csi, "csi")
    if any(c.settings["csi_source"] == "predicted" for c in on_shards):
        if inputs.predicted is None:
            raise UserError("a checkpoint uses predicted CSI: name it with --predicted (sclmkb-gen cdg makes it)")
        opened["predicted"] = Artifact.open(inputs.predicted, "predicted")
    fingerprints = {name: artifact.fingerprint for name, artifact in opened.items()}
    open_run("eval", settings.fingerprint_fields(), fingerprints, checkpoints, out, new_run)
    warn_of_other_inputs(checkpoints, fingerprints)
    bench = Bench(settings, inputs, opened["corpus"])
    each = len(settings.receivers) * len(settings.snrs_db)
    measure_missing(bench.measure, checkpoints, list(TABLES), out, each)
    return out


def measure_missing(
    measure: Callable[[Checkpoint, Callable[[], None]], Mapping[str, pa.Table]],
    checkpoints: Sequence[Checkpoint],
    tables: Sequence[str],
    out: Path,
    each: int,
) -> None:
    """Measure the checkpoints that were not measured before, and merge the tables of all.

    Args:
        measure: returns all tables of a checkpoint; its second argument is called ``each`` times, for the progress bar.
        checkpoints: what is measured.
        tables: names of the tables.
        out: the folder.
        each: steps of progress a checkpoint.
    """
    parts = {_part_name(c): c for c in checkpoints}
    needed = ["done.json", *(f"{table}.parquet" for table in tables)]
    missing = [name for name in parts if not all((out / "work" / name / file).exists() for file in needed)]
    with progress("eval", each * len(parts), each * (len(parts) - len(missing))) as ticker:
        for name in missing:
            for table, measured in measure(parts[name], ticker.advance).items():
                write_parquet(out / "work" / name / f"{table}.parquet", measured)
            write_json(out / "work" / name / "done.json", {"checkpoint": str(parts[name].root)})
    for table in tables:
        write_parquet(out / f"{table}.parquet", _merge(table, [out / "work" / name for name in parts]))
    for stale in {p.name for p in (out / "work").iterdir()} - set(parts):
        shutil.rmtree(out / "work" / stale)


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
) -> None:
    """Write ``config.json`` of a measurement, or go on with the one in ``out`` if settings and inputs are the same.

    Args:
        kind: of measurement.
        settings: fields that can change the output.
        inputs: fingerprints.
        checkpoints: what is measured.
        out: the folder.
        new_run: set another one in ``out`` aside.

    Raises:
        UserError: if ``out`` holds another measurement, or something else.
    """
    path = out / "config.json"
    plan = {"kind": kind, "settings": settings, "inputs": inputs}
    if path.exists():
        existing = read_json(path)
        shared = {name for name in inputs if name in existing.get("inputs", {})}
        same_inputs = all(existing["inputs"][name] == inputs[name] for name in shared)
        same_settings = existing.get("kind") == kind and existing.get("settings") == settings
        if not (same_settings and same_inputs):
            if not new_run:
                raise UserError(
                    f"{out} was measured with other settings or inputs: choose another --out, or --new-run to set it"
                    " aside"
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
    return pa.Table.from_pylist(sorted(kept, key=lambda row: (order[row["query"]], row["system"])), schema=RETRIEVALS)
