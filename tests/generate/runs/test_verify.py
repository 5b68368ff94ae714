import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import run_command
from sdg_fakes import FlakyEngine, Job

from sclmkb.common.artifacts.files import sha256_file
from sclmkb.common.errors import UserError
from sclmkb.generate.runs.verify import find_problems


def test_nothing_is_found_in_what_was_not_touched(job: Job) -> None:
    done = run_command(["sclmkb-gen", "verify", job(writer=FlakyEngine()).root])
    assert (done.code, done.out) == (0, "")
    assert "is whole" in done.err
    assert list(find_problems(job.corpus)) == []


def second(root: Path, pattern: str) -> Path:
    return sorted(root.glob(pattern))[1]


def change_manifest(root: Path, change: Callable[[Any], None]) -> None:
    path = second(root, "manifests/*.json")
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def rewrite(root: Path, table: str, change: Callable[[list[Any]], list[Any]]) -> None:
    """Change rows of the second shard, and its manifest with them, as somebody might who means well."""
    path = second(root, f"{table}/*.parquet")
    old = pq.read_table(path)
    changed = change(old.to_pylist())
    pq.write_table(pa.Table.from_pylist(changed, schema=old.schema), path)
    entry = {"num_rows": len(changed), "sha256": sha256_file(path)}
    change_manifest(root, lambda m: m["files"].update({f"{table}/{path.name}": entry}))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def edit_plan(root: Path) -> None:
    path = root / "plan.json"
    path.write_text(path.read_text().replace('"max_attempts": 3', '"max_attempts": 4'))


DAMAGE = {
    "sha256": lambda root: flip(second(root, "rows/*.parquet")),
    "missing": lambda root: second(root, "attempts/*.parquet").unlink(),
    "shards 1 have no manifest": lambda root: second(root, "manifests/*.json").unlink(),
    "cannot be read as JSON": lambda root: second(root, "manifests/*.json").write_text("{"),
    "fingerprint": edit_plan,
    "row ids of the plan are missing": lambda root: next(root.glob("plan-rows-*")).unlink(),
    "row ids of the plan are corrupt": lambda root: next(root.glob("plan-rows-*")).write_bytes(b"PAR1"),
    "does not add up": lambda root: change_manifest(root, lambda m: m["counts"].update(ok=0)),
    "belongs to no manifest": lambda root: (root / "rows" / "train-x.parquet").write_bytes(b""),
    "ids of table rows are not those of the plan": lambda root: rewrite(root, "rows", lambda r: r[:-1]),
    "more than once": lambda root: rewrite(root, "attempts", lambda a: [*a, a[-1]]),
    "belong to no row": lambda root: rewrite(root, "attempts", lambda a: [*a[:-1], {**a[-1], "row_id": "stranger"}]),
    "is not what its attempts say": lambda root: rewrite(root, "rows", lambda r: [{**r[0], "error": "x"}, *r[1:]]),
}


@pytest.mark.parametrize("message", DAMAGE)
def test_what_is_wrong_is_named(job: Job, message: str) -> None:
    root = job().root
    DAMAGE[message](root)
    done = run_command(["sclmkb-gen", "verify", root])
    assert done.code == 2
    assert message in done.out


def test_something_else_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no artifact"):
        list(find_problems(tmp_path))
