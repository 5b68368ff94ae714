"""A stage that needs nothing: each shard is a table of its own row ids."""

from collections.abc import Generator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from sclmkb.common.artifacts.plan import Plan, Shard, make_shards
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.executors.stage import Made, Session, Work

SCHEMA = pa.schema([("row_id", pa.string())])


class Stage:
    """Makes 10 rows in 5 shards; ``made`` are those that it was asked for, in order."""

    def __init__(self, out: Path) -> None:
        self.out, self.made = out, list[str]()

    def work(self, *, join: bool = False) -> Work:
        shards = make_shards("train", [f"row-{i}" for i in range(10)], 2)
        plan = Plan(kind="toy", tables={"rows": SCHEMA}, settings={}, shards=shards, inputs={})
        run = Run.open(self.out, plan, join=join)

        def produce(pending: Sequence[Shard], session: Session) -> Generator[Made, None, None]:
            for shard in pending:
                self.made.append(shard.name)
                yield Made(shard=shard, tables={"rows": pa.table({"row_id": list(shard.row_ids)}, schema=SCHEMA)})

        return Work(name="toy", run=run, produce=produce, finish=lambda: run.finish("Toy", "Rows."))


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path / "toy run")
