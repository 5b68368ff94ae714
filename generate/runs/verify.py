"""``sclmkb-gen verify``: is an artifact what its manifests and its plan say? Whatever is wrong is named."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from sclmkb.common.artifacts.artifact import read_plan, read_row_ids
from sclmkb.common.artifacts.files import checked_file, list_folder, read_json, read_parquet
from sclmkb.common.artifacts.plan import SavedPlan, Shard, format_ranges
from sclmkb.common.artifacts.schemas import SCHEMA_VERSION, TABLES
from sclmkb.common.config import fingerprint
from sclmkb.common.errors import UserError
from sclmkb.generate.captions.rows import Row, failed, last_tries, make_rows

ID_COLUMNS = {"rows": "row_id", "csi": "drop_id", "predicted": "drop_id", "captions": "row_id", "items": "item_id"}
"""The column that names a row of a table, and is never the same twice."""
PLANNED = ("rows", "csi", "predicted")
"""Tables with one row for each id of the plan, in its order."""


def find_problems(root: Path) -> Iterator[str]:
    """Yield what is wrong with an artifact, one line each: hashes, counts, ids, schemas, strays, sums of SDG.

    Raises:
        UserError: if the folder holds no artifact of this schema version.
    """
    if not (root / "plan.json").exists():
        raise UserError(f"{root} holds no plan.json: that is no artifact")
    plan = read_json(root / "plan.json")
    if plan.get("schema_version") != SCHEMA_VERSION:
        raise UserError(f"{root} has schema version {plan.get('schema_version')}, this program reads {SCHEMA_VERSION}")
    if plan["fingerprint"] != fingerprint({k: v for k, v in plan.items() if k not in ("fingerprint", "notes")}):
        yield "plan.json was changed after the run began: its fingerprint is not that of its contents"
    saved = read_plan(root, plan["kind"])
    try:
        read_row_ids(root, plan["row_ids"])
    except UserError as error:
        yield str(error)
        return
    seen: dict[str, Counter[str]] = {table: Counter() for table in saved.tables}
    schemas: dict[str, pa.Schema] = {}
    known, unfinished = set(), []
    for number, shard in enumerate(saved.shards):
        path = root / "manifests" / f"{shard.name}.json"
        if not path.exists():
            unfinished.append(number)
            continue
        try:
            manifest = read_json(path)
            known.update(manifest["files"])
            tables = {}
            for name, entry in manifest["files"].items():
                tables[name.partition("/")[0]] = _read_file(root / name, entry)
        except (UserError, KeyError) as error:
            yield str(error) if isinstance(error, UserError) else f"{path} has no entry {error}"
            continue
        yield from _check_shard(saved, shard, manifest, tables, schemas)
        for name, table in tables.items():
            if (column := ID_COLUMNS.get(name)) in table.column_names:
                seen[name].update(table.column(column).to_pylist())
    for name, ids in seen.items():
        if repeated := [row_id for row_id, count in ids.items() if count > 1]:
            yield f"table {name}: {len(repeated)} ids are there more than once, first {repeated[0]}"
    if unfinished:
        yield f"shards {format_ranges(unfinished)} have no manifest: the run is unfinished, run its command again"
    for table in saved.tables:
        for path in list_folder(root / table, "*.parquet"):
            if f"{table}/{path.name}" not in known and not unfinished:
                yield f"{path} belongs to no manifest: delete it, a process that was killed has left it"


def _read_file(path: Path, entry: dict[str, Any]) -> pa.Table:
    mend = "delete the manifest of its shard and run the command that makes it again"
    table = read_parquet(checked_file(path, entry["sha256"], mend))
    if table.num_rows != entry["num_rows"]:
        raise UserError(f"{path} holds {table.num_rows} rows, its manifest says {entry['num_rows']}")
    return table


def _check_shard(
    plan: SavedPlan,
    shard: Shard,
    manifest: dict[str, Any],
    tables: dict[str, pa.Table],
    schemas: dict[str, pa.Schema],
) -> Iterator[str]:
    where = f"shard {shard.name}"
    if set(tables) != set(plan.tables):
        yield f"{where} holds the tables {sorted(tables)}, planned were {plan.tables}"
    counts = manifest["counts"]
    if counts and sum(counts.values()) != len(shard.row_ids):
        yield f"{where}: {counts} does not add up to the {len(shard.row_ids)} rows of the plan"
    for name, table in tables.items():
        expected = TABLES.get(name) or schemas.setdefault(name, table.schema)
        if not table.schema.equals(expected):
            yield f"{where}: table {name} has another schema than it should have"
        if (table.schema.metadata or {}).get(b"sclmkb.schema_version") != SCHEMA_VERSION.encode():
            yield f"{where}: table {name} does not say that its schema has version {SCHEMA_VERSION}"
        column = ID_COLUMNS.get(name)
        if name in PLANNED and column in table.column_names:
            found = table.column(column).to_pylist()
            if found != list(shard.row_ids):
                wrong = set(found) ^ set(shard.row_ids)
                yield f"{where}: the ids of table {name} are not those of the plan" + (
                    f", first {min(wrong)}" if wrong else ": another order, or some twice"
                )
    if plan.kind == "sdg" and {"rows", "attempts"} <= set(tables):
        yield from _check_sdg(where, counts, tables["rows"].to_pylist(), tables["attempts"].to_pylist())


def _check_sdg(where: str, counts: dict[str, int], rows: list[Row], attempts: list[Row]) -> Iterator[str]:
    """Compute the rows once more from the attempts."""
    states = Counter(row["state"] for row in rows)
    if any(states[state] != count for state, count in counts.items()):
        yield f"{where}: its rows end as {dict(states)}, its manifest says {counts}"
    ids = {row["row_id"] for row in rows}
    if strangers := {a["row_id"] for a in attempts} - ids:
        yield f"{where}: {len(strangers)} attempts belong to no row, first {min(strangers)}"
        return
    keys = Counter((a["row_id"], a["attempt"], a["sample"], a["retry"]) for a in attempts)
    if twice := [key for key, count in keys.items() if count > 1]:
        yield f"{where}: {len(twice)} attempts are there more than once, first {twice[0]}"
    if any(a["accepted"] and (failed(a) or a["reason"]) for a in attempts):
        yield f"{where}: an attempt is accepted and rejected at once"
    if len({a["seed"] for a in last_tries(attempts)}) != len(last_tries(attempts)):
        yield f"{where}: two samples have the same seed"
    captions = [{**row, "text": row["source_text"]} for row in rows]
    for row, computed in zip(rows, make_rows(captions, attempts), strict=True):
        if wrong := [key for key in row if row[key] != computed[key]]:
            yield f"{where}: row {row['row_id']} is not what its attempts say ({', '.join(wrong)})"
            return
