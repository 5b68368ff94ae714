"""The commands of ``sclmkb-gen`` for runs that are there: how far they are, whether they are whole, their merge."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sclmkb.common.artifacts.storage import FOLDER, LOCAL
from sclmkb.common.console import EXIT_USER_ERROR, Interrupted, say
from sclmkb.common.options import NewRunOption, PresetOption, preset_folder

if TYPE_CHECKING:
    from sclmkb.generate.runs.status import Status


def status(
    folder: Annotated[Path | None, typer.Argument(help="Folder of a run, finished or not.", **FOLDER)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, to standard output.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Repeat until the run is done, or Ctrl-C.")] = False,
    every: Annotated[float, typer.Option("--every", min=0.1, help="Seconds between two looks.")] = 5.0,
    metrics: Annotated[
        bool, typer.Option("--metrics", help="Also write metrics.prom into the folder, for Prometheus.")
    ] = False,
    preset: PresetOption = None,
) -> None:
    """Show the progress of a run: rows, samples, speed, time left, who is at work, which shards to submit again.

    --watch refreshes it, in place on a terminal. With --json each look is one line.
    """
    from sclmkb.generate.runs.metrics_file import write_metrics
    from sclmkb.generate.runs.status import read_status, show
    from sclmkb.generate.runs.status import watch as look_again

    root = folder or preset_folder(preset) / "sdg"

    def looks() -> Iterator["Status"]:
        for found in look_again(root, every) if watch else [read_status(root)]:
            if metrics:
                write_metrics(found, root)
            yield found

    with suppress(*([Interrupted] if watch else [])):  # Ctrl-C is how one stops watching
        show(looks(), as_json=as_json, watching=watch)


def verify(folder: Annotated[Path, typer.Argument(help="Folder of any artifact.", **FOLDER)]) -> None:
    """Check an artifact against its plan and manifests: hashes, counts, ids, schemas. Exit code 2: it is wrong."""
    from sclmkb.generate.runs.verify import find_problems

    wrong = 0
    for problem in find_problems(folder):
        wrong += 1
        typer.echo(problem)
    if wrong:
        say(f"verify: {folder}: {wrong} found wrong")
        raise typer.Exit(EXIT_USER_ERROR)
    say(f"verify: {folder} is whole")


def merge(
    folders: Annotated[list[Path], typer.Argument(help="Folders with shards of runs of the same plan.", **LOCAL)],
    out: Annotated[Path, typer.Option("--out", help="Folder of the artifact to write.", **LOCAL)],
    new_run: NewRunOption = False,
) -> None:
    """Merge shards that sdg --shards made in several folders into one artifact."""
    from sclmkb.generate.captions.summary import summarise
    from sclmkb.generate.runs.merge import merge as merge_folders

    for line in summarise(merge_folders(folders, out, new_run=new_run)):
        say(f"merge: {line}")
