"""A stage that needs nothing: each shard is a table of its own row ids."""

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from sclmkb.common.artifacts import Artifact, Plan, Run, Shard, make_shards
from sclmkb.common.executors.base import Work

SCHEMA = pa.schema([("row_id", pa.string())])


class Stage:
    """Makes 10 rows in 5 shards; ``made`` are those that it was asked for, in order."""

    def __init__(self, out: Path) -> None:
        self.out, self.made = out, list[str]()

    def work(self, *, join: bool = False, again: Callable[[Shard], bool] = lambda _: False) -> Work:
        shards = make_shards("train", [f"row-{i}" for i in range(10)], 2)
        plan = Plan(kind="toy", tables={"rows": SCHEMA}, settings={}, shards=shards, inputs={})
        run = Run.open(self.out, plan, join=join)

        def make(mine: Sequence[Shard]) -> None:
            for shard in mine:
                if not run.is_committed(shard):
                    self.made.append(shard.name)
                    run.commit_shard(shard, {"rows": pa.table({"row_id": list(shard.row_ids)}, schema=SCHEMA)})

        def finish() -> Artifact:
            return run.finish("Toy", "Rows.")

        return Work(name="toy", run=run, make=make, finish=finish, again=again)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path / "toy run")


class FakeSlurm:
    """Programs on the path that keep what they are given, and print what a test puts into ``queue``."""

    def __init__(self, root: Path) -> None:
        self.root, self.programs = root, root / "bin"
        self.programs.mkdir(parents=True)
        (root / "queue").touch()
        self.write(
            "sbatch",
            'n=$(($(ls "$D" | grep -c "\\.script$") + 101)); cat > "$D/$n.script"; echo "$@" > "$D/$n.options"'
            '; env > "$D/$n.env"; echo "$n;cluster"',
        )
        self.write("squeue", 'echo "$@" > "$D/asked"; cat "$D/queue"')
        self.write("scontrol", 'echo "$@" >> "$D/scontrol"')
        self.write("srun", 'while [[ "$1" == --* ]]; do shift; done; exec "$@"')

    def write(self, name: str, text: str) -> None:
        """Make a program; ``$D`` is the folder of all that is kept."""
        path = self.programs / name
        path.write_text(f"#!/bin/bash\nD={self.root}\n{text}\n")
        path.chmod(path.stat().st_mode | stat.S_IEXEC)

    def submitted(self) -> dict[str, tuple[str, str]]:
        """Return script and options of every job, by number."""
        return {
            path.stem: (path.read_text(), path.with_suffix(".options").read_text().strip())
            for path in sorted(self.root.glob("*.script"))
        }


@pytest.fixture
def fake_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake = FakeSlurm(tmp_path / "fake-slurm")
    monkeypatch.setenv("PATH", f"{fake.programs}:{os.environ['PATH']}")
    return fake
