"""``sclmkb-eval paper`` of a small study: FOLDER OUT [options]; its cells are runs of a program in FOLDER.

Their words are in the file ``words`` there: ``fail``, or ``slow``.
"""

import sys
from pathlib import Path

import typer

from sclmkb.common.console import run_app, say
from sclmkb.common.errors import UserError
from sclmkb.common.options import SetOption
from sclmkb.evaluate.studies.sc_lmkb import runner
from sclmkb.evaluate.studies.sc_lmkb.cells import Cell, Study
from sclmkb.evaluate.studies.sc_lmkb.options import split_options
from sclmkb.evaluate.studies.sc_lmkb.submission import submit_study

PROGRAM = """
import sys, time
from pathlib import Path
out = Path(sys.argv[sys.argv.index("--out") + 1])
if "fail" in sys.argv:
    sys.exit("error: no such thing: make it first")
if "slow" in sys.argv:
    print("at work", flush=True)
    time.sleep(300)
out.mkdir(parents=True, exist_ok=True)
with (out / "runs").open("a") as runs:
    runs.write(" ".join(sys.argv[1:]) + "\\n")
"""


def small_study(out: Path, word: str = "x") -> Study:
    """Return the cells a, b/1 and c, each of which needs those before it, and one that needs nothing."""
    needs: dict[str, tuple[str, ...]] = {"a": (), "b/1": ("a",), "c": ("a", "b/1"), "alone": ()}
    cells = {}
    for name, of in needs.items():
        program = "sclmkb-eval" if name == "c" else "sclmkb-gen"
        command = (program, "run", word if name == "a" else "x", "--out", str(out / name))
        cells[name] = Cell(name=name, command=command, out=out / name, needs=of)
    return Study(out=out, cells=cells, missing={})


def write_program(folder: Path) -> None:
    """Make the program that stands for every command."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fake_command.py").write_text(PROGRAM)


app = typer.Typer()


@app.command()
def paper(
    folder: Path,
    out: Path,
    cell: str | None = None,
    jobs: int | None = None,
    draw: bool = False,
    executor: str = "local",
    overrides: SetOption = None,
) -> None:
    sys.path.insert(0, str(folder))
    runner._MODULES = dict.fromkeys(runner._MODULES, "fake_command")
    words = folder / "words"
    study = small_study(out, words.read_text() if words.exists() else "x")
    _, slurm = split_options(None, None, overrides or ())
    command, failures = [__file__, str(folder), str(out)], ""
    if executor == "slurm":
        submit_study(study, slurm, [sys.executable, *command])
        return
    if cell is not None:
        failures = runner.run_cell(study, cell, jobs)
    else:
        out.mkdir(exist_ok=True)
        (out / "commands.sh").write_text(runner.listing(study) + "\n")
        say("drawn")
    if failures:
        raise UserError(failures)


if __name__ == "__main__":
    run_app(app)
