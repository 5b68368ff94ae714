"""``sclmkb-eval study`` of a small study: FOLDER OUT [options]; its cells are runs of a program in FOLDER.

What the first one does is in the file ``words`` there: ``fail``, or ``slow``.
"""

import sys
from pathlib import Path

import typer

from sclmkb.common.console import run_app, say
from sclmkb.common.errors import UserError
from sclmkb.common.options import SetOption
from sclmkb.common.studies.cells import Planner, Study
from sclmkb.common.studies.runner import run_cell, run_study
from sclmkb.common.studies.slurm import split_options, submit_study

MODULE = "fake_command"
PROGRAMS = dict.fromkeys(("sclmkb-gen", "sclmkb-eval"), MODULE)
PROGRAM = """
import sys, time
from pathlib import Path
out = Path(sys.argv[sys.argv.index("--out") + 1])
print("at work", flush=True)
if "fail" in sys.argv:
    sys.exit("error: no such thing: make it first")
if "slow" in sys.argv:
    time.sleep(300)
out.mkdir(parents=True, exist_ok=True)
with (out / "runs").open("a") as runs:
    runs.write(" ".join(sys.argv[1:]) + "\\n")
"""


def make_study(out: Path, planner: Planner, **more: object) -> Study:
    """Return a study of toy commands."""
    return Study(**{"name": "toy", "out": out, "cells": planner.cells, "programs": PROGRAMS, **more})


def small_study(out: Path, word: str = "x") -> Study:
    """Return the cells a, b/1 and c, each of which needs those before it, and one that needs nothing."""
    planner = Planner(out)
    a = planner.add("a", "sclmkb-gen", "run", word)
    b = planner.add("b/1", "sclmkb-gen", "run", a)
    planner.add("c", "sclmkb-eval", "run", a, b)
    planner.add("alone", "sclmkb-gen", "run", "x")
    return make_study(out, planner)


def write_program(folder: Path, program: str = PROGRAM) -> None:
    """Make the program that stands for every command."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{MODULE}.py").write_text(program)


app = typer.Typer()


@app.command()
def study(
    folder: Path,
    out: Path,
    cell: str | None = None,
    jobs: int | None = None,
    draw: bool = False,
    executor: str = "local",
    overrides: SetOption = None,
) -> None:
    words = folder / "words"
    study = small_study(out, words.read_text() if words.exists() else "x")
    _, slurm = split_options("sclmkb.evaluate", None, None, overrides or ())
    failures = ""
    if executor == "slurm":
        submit_study(study, slurm, [sys.executable, __file__, str(folder), str(out)], draws=True)
    elif cell is not None:
        failures = run_cell(study, cell, jobs)
    elif draw:
        out.mkdir(exist_ok=True)
        study.write_listing()
        say("drawn")
    else:
        failures = run_study(study, jobs)
    if failures:
        raise UserError(failures)


if __name__ == "__main__":
    run_app(app)
