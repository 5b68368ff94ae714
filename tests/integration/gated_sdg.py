"""``sclmkb-gen sdg`` whose engine stands still in the middle of a process's first shard, for ``GATE`` to open.

Before its second call, an engine adds a line to the file ``at-work`` in the folder that the environment variable
``GATE`` names, and waits until there is a file ``go``. So a node or a task can be lost where a wave is committed and
the next one is under way.
"""

import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path

import typer

from sclmkb.common.console import run_app
from sclmkb.common.executors.choose import Choice
from sclmkb.common.options import ExecutorName, ExecutorOption, JoinOption, RayAddressOption, SetOption, ShardsOption
from sclmkb.generate.captions.backend import make_backend
from sclmkb.generate.captions.sdg import SdgSettings, plan_captions
from sclmkb.generate.engines.base import Completion, Engine, Hear, Request, unheard

app = typer.Typer()


class GatedEngine:
    """Any engine behind the gate."""

    def __init__(self, engine: Engine, gate: Path) -> None:
        self._engine, self._gate, self._calls = engine, gate, 0

    def generate(self, requests: Sequence[Request], hear: Hear = unheard) -> list[Completion]:
        self._calls += 1
        if self._calls == 2:
            with (self._gate / "at-work").open("a") as file:
                file.write("at work\n")
            while not (self._gate / "go").exists():
                time.sleep(0.1)
        return self._engine.generate(requests, hear)


@app.command()
def sdg(
    corpus: Path,
    out: Path,
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
        program="gated_sdg",
    )
    own, runner = choice.of_command("sdg", out, None, None, overrides)
    settings = SdgSettings.resolve(presets="sclmkb.generate", section="sdg", overrides=own)
    backend = make_backend(settings)
    gated = dataclasses.replace(backend, engine=lambda: GatedEngine(backend.engine(), Path(os.environ["GATE"])))
    runner.execute(plan_captions(settings, corpus, out, gated, join=join))


if __name__ == "__main__":
    run_app(app)
