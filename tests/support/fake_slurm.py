"""Programs of Slurm that only keep what they are given."""

import re
import stat
from pathlib import Path


def option(script: str, name: str) -> str:
    """Return an option of a batch script; empty if it has none."""
    found = re.search(rf"^#SBATCH --{name}=(.*)$", script, re.MULTILINE)
    return found[1] if found else ""


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

    def queue(self, *lines: str) -> None:
        """Let these be in the queue, in the form that was asked for."""
        (self.root / "queue").write_text("".join(f"{line}\n" for line in lines))

    def kept(self, program: str) -> str:
        """Return what ``squeue`` (``asked``) was asked at last, or ``scontrol`` ever; empty if it was never called."""
        path = self.root / program
        return path.read_text() if path.exists() else ""
