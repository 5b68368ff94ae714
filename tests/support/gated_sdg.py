"""``sclmkb-gen sdg`` whose engine stands still in the middle of a process's first shard, until ``--moods`` has ``go``.

Before its second call, an engine adds a line to the file ``at-work-sdg`` in that folder. So a node or a task can be
lost where a wave is committed and the next one is under way.
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sclmkb.common.console import run_app
from sclmkb.common.executors.choose import choose_executor
from sclmkb.common.options import RunOptions, takes_run_options
from sclmkb.generate.captions.backend import make_backend
from sclmkb.generate.captions.sdg import SdgSettings, plan_captions
from sclmkb.generate.engines.base import Completion, Engine, Hear, Request, unheard

app = typer.Typer()


class GatedEngine:
    """Any engine behind the gate."""

    def __init__(self, engine: Engine, moods: Path) -> None:
        self._engine, self._moods, self._calls = engine, moods, 0

    def generate(self, requests: Sequence[Request], hear: Hear = unheard) -> list[Completion]:
        self._calls += 1
        if self._calls == 2:
            with (self._moods / "at-work-sdg").open("a") as file:
                file.write("at work\n")
            while not (self._moods / "go").exists():
                time.sleep(0.1)
        return self._engine.generate(requests, hear)


@app.command()
@takes_run_options
def sdg(
    out: Path, moods: Annotated[Path, typer.Option()], corpus: Annotated[Path, typer.Option()], *, run: RunOptions
) -> None:
    executor = choose_executor(run, "sdg", out, "gated_sdg")
    settings = SdgSettings.resolve(presets="sclmkb.generate", section="sdg", **run.layers)
    backend = make_backend(settings)
    gated = dataclasses.replace(backend, engine=lambda: GatedEngine(backend.engine(), moods))
    executor.execute(plan_captions(settings, corpus, out, gated, join=run.join))


if __name__ == "__main__":
    run_app(app)
