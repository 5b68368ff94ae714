"""A command with three shards that does what files in ``--moods`` say.

``slow-N``: shard N takes until there is a file ``go``; ``bad-N``: it cannot be made; ``deadly-N``: it kills who makes
it. Every start of work on a slow or deadly shard adds a line to ``at-work-N``.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import typer

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.plan import Plan, Shard, make_shards
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.console import run_app
from sclmkb.common.console import stop_in_good_order as in_good_order
from sclmkb.common.errors import UserError
from sclmkb.common.executors.base import Work
from sclmkb.common.executors.choose import Choice
from sclmkb.common.options import ExecutorName, ExecutorOption, JoinOption, RayAddressOption, SetOption, ShardsOption

SCHEMA = pa.schema([("row_id", pa.string())])
app = typer.Typer()


@app.command()
def toy(
    out: Path,
    moods: Annotated[Path, typer.Option()],
    overrides: SetOption = None,
    shards: ShardsOption = None,
    join: JoinOption = False,
    executor: ExecutorOption = ExecutorName.LOCAL,
    ray_address: RayAddressOption = None,
) -> None:
    choice = Choice(
        executor=executor,
        shards=shards,
        join=join,
        print_script=False,
        new_run=False,
        ray_address=ray_address,
        program="toy_stage",
    )
    _, runner = choice.of_command("toy", out, None, None, overrides)
    planned = make_shards("train", [f"row-{i}" for i in range(6)], 2)
    plan = Plan(kind="toy", tables={"rows": SCHEMA}, settings={}, shards=planned, inputs={})
    run = Run.open(out, plan, join=join)

    def make(mine: Sequence[Shard]) -> None:
        with in_good_order() as check_stop:
            for shard in mine:
                number = int(shard.name.split("-")[1])
                if (moods / f"bad-{number}").exists():
                    raise UserError(f"shard {shard.name} is bad")
                slow, deadly = ((moods / f"{mood}-{number}").exists() for mood in ("slow", "deadly"))
                if slow or deadly:
                    with (moods / f"at-work-{number}").open("a") as file:
                        file.write("at work\n")
                if deadly:
                    os._exit(1)
                if slow:
                    while not (moods / "go").exists():
                        time.sleep(0.1)
                        check_stop()
                run.commit_shard(shard, {"rows": pa.table({"row_id": list(shard.row_ids)}, schema=SCHEMA)})

    def finish() -> Artifact:
        return run.finish("Toy", "Rows.")

    runner.execute(Work(name="toy", run=run, make=make, finish=finish))


if __name__ == "__main__":
    run_app(app)
