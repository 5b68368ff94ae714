"""Cells: commands that a user could type, what they need, and whether what they made still stands."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sclmkb.common.artifacts.files import read_json, write_json
from sclmkb.common.config import fingerprint, load_preset

STAGES = {"sclmkb-gen": "sclmkb.generate", "sclmkb-train": "sclmkb.train", "sclmkb-eval": "sclmkb.evaluate"}
"""Packages of the programs."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One command of a study.

    Attributes:
        name: unique; also the place of its log and of its record.
        command: as typed, ``sclmkb-…`` first.
        out: folder that it makes.
        needs: names of the cells whose folders it reads.
        cores: how many it keeps busy; 0: all there are.
    """

    name: str
    command: tuple[str, ...]
    out: Path
    needs: tuple[str, ...] = ()
    cores: int = 1

    def line(self) -> str:
        """Return the command as typed."""
        return shlex.join(self.command)


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is kept of a cell that was run.

    Attributes:
        key: of :meth:`Study.keys` when it ended well; empty if it did not yet.
        seconds: of all attempts up to now that led to the folder as it is.
        peak_gb: most memory of one of its processes [GB].
        command: as typed.
    """

    key: str
    seconds: float
    peak_gb: float
    command: str


@dataclass(frozen=True, kw_only=True)
class Study:
    """Cells in an order in which they can run, and the folder that holds all of them.

    Attributes:
        out: the folder.
        cells: by name.
        missing: corpora that are left out, and why.
        data: folder of corpora that are not embedded.
    """

    out: Path
    cells: Mapping[str, Cell]
    missing: Mapping[str, str]
    data: Path | None = None

    def keys(self) -> dict[str, str]:
        """Return what each cell's result depends on, as a hash: its command, its preset, and the cells it needs.

        Folders are named relative to the study's, so that a study may be moved.
        """
        found: dict[str, str] = {}
        for cell in self.cells.values():
            command = [self._relative(word) for word in cell.command]
            needs = [found[name] for name in cell.needs]
            found[cell.name] = fingerprint({"command": command, "preset": _preset_of(cell), "needs": needs})
        return found

    def record(self, cell: Cell) -> Record | None:
        """Return what is kept of a cell; None if it was never run, or its folder is gone."""
        path = self._record_path(cell)
        if not path.exists() or not cell.out.exists():
            return None
        return Record(**read_json(path))

    def write_record(self, cell: Cell, record: Record) -> None:
        """Keep what became of a cell."""
        write_json(self._record_path(cell), vars(record))

    def done(self) -> dict[str, Record]:
        """Return the cells whose result stands."""
        keys = self.keys()
        records = {name: self.record(cell) for name, cell in self.cells.items()}
        return {name: r for name, r in records.items() if r is not None and r.key == keys[name]}

    def log_path(self, cell: Cell) -> Path:
        """Return the file that a cell's output is added to."""
        return self.out / "logs" / f"{cell.name}.log"

    def _record_path(self, cell: Cell) -> Path:
        return self.out / "cells" / f"{cell.name}.json"

    def _relative(self, word: str) -> str:
        for name, folder in (("OUT", self.out), ("DATA", self.data)):
            if folder is not None and Path(word).is_relative_to(folder):
                return f"{name}/{Path(word).relative_to(folder)}"
        return word


def _preset_of(cell: Cell) -> dict[str, Any]:
    """Return the section of the preset that a cell's command reads."""
    if "--preset" not in cell.command:
        return {}
    program, section, *_ = cell.command
    preset = load_preset(STAGES[program], cell.command[cell.command.index("--preset") + 1])
    return dict(preset.get(section) or {})
