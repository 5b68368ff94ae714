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
from pathlib import Path

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
    _open_run(settings, fingerprints, checkpoints, out, new_run)
    warn_of_other_inputs(checkpoints, fingerprints)
    parts = {_part_name(c): c for c in checkpoints}
    needed = ["done.json", *(f"{table}.parquet" for table in TABLES)]
    missing = [name for name in parts if not all((out / "work" / name / file).exists() for file in needed)]
    bench = Bench(settings, inputs, opened["corpus"])
    each = len(settings.receivers) * len(settings.snrs_db)
    with progress("eval", each * len(parts), each * (len(parts) - len(missing))) as ticker:
        for name in missing:
            tables = bench.measure(parts[name], ticker.advance)
            for table, measured in tables.items():
                write_parquet(out / "work" / name / f"{table}.parquet", measured)
            write_json(out / "work" / name / "done.json", {"checkpoint": str(parts[name].root)})
    for table in TABLES:
        write_parquet(out / f"{table}.parquet", _merge(table, [out / "work" / name for name in parts]))
    for stale in {p.name for p in (out / "work").iterdir()} - set(parts):
        shutil.rmtree(out / "work" / stale)
    return out


def _part_name(checkpoint: Checkpoint) -> str:
    digest = sha256_file(checkpoint.root / "model.safetensors")[:12]
    return f"{checkpoint.settings['system']}-{checkpoint.settings['seed']}-{digest}"


def _open_run(
    settings: RunSettings, inputs: dict[str, str], checkpoints: list[Checkpoint], out: Path, new_run: bool
) -> None:
    path = out / "config.json"
    plan = {"kind": "eval", "settings": settings.fingerprint_fields(), "inputs": inputs}
    if path.exists():
        existing = read_json(path)
        shared = {name for name in inputs if name in existing.get("inputs", {})}
        same_inputs = all(existing["inputs"][name] == inputs[name] for name in shared)
        if existing.get("settings") != plan["settings"] or not same_inputs:
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
