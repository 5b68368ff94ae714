"""A command with three shards that does what files in ``--moods`` say.

``slow-N``: shard N takes until there is a file ``go``; ``bad-N``: it cannot be made; ``deadly-N``: it kills who makes
it. Every start of work on a slow or deadly shard adds a line to ``at-work-N``.
"""

import os
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import typer

from sclmkb.common.artifacts.plan import Plan, Shard, make_shards
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.console import run_app
from sclmkb.common.errors import UserError
from sclmkb.common.executors.choose import choose_executor
from sclmkb.common.executors.stage import Made, Session, Work
from sclmkb.common.options import RunOptions, takes_run_options

SCHEMA = pa.schema([("row_id", pa.string())])
app = typer.Typer()


def plan_toy(out: Path, moods: Path, *, num_shards: int = 3, join: bool = False) -> Work:
    """Plan shards of two rows, each a table of its own row ids."""
    planned = make_shards("train", [f"row-{i}" for i in range(2 * num_shards)], 2)
    plan = Plan(kind="toy", tables={"rows": SCHEMA}, settings={}, shards=planned, inputs={})
    run = Run.open(out, plan, join=join)

    def produce(pending: Sequence[Shard], session: Session) -> Generator[Made, None, None]:
        for shard in pending:
            number = int(shard.name.split("-")[1])
            if (moods / f"bad-{number}").exists():
                raise UserError(f"shard {shard.name} is bad")
            slow, deadly = ((moods / f"{mood}-{number}").exists() for mood in ("slow", "deadly"))
            if slow or deadly:
                with (moods / f"at-work-{number}").open("a") as file:
                    file.write("at work\n")
            if deadly:
                os._exit(1)
            while slow and not (moods / "go").exists():
                time.sleep(0.1)
                session.check_stop()
            yield Made(shard=shard, tables={"rows": pa.table({"row_id": list(shard.row_ids)}, schema=SCHEMA)})

    return Work(name="toy", run=run, produce=produce, finish=lambda: run.finish("Toy", "Rows."))


@app.command()
@takes_run_options
def toy(out: Path, moods: Annotated[Path, typer.Option()], *, run: RunOptions) -> None:
    executor = choose_executor(run, "toy", out, "toy_stage")
    executor.execute(plan_toy(out, moods, join=run.join))


if __name__ == "__main__":
    run_app(app)
