"""A study is a list of commands that a user could type. What each needs is read off the folders that it names.

::

    Planner.add("corpus", "sclmkb-gen", "corpus", "esc10")                       makes OUT/corpus, needs nothing
    Planner.add("sdg", "sclmkb-gen", "sdg", "--corpus", OUT/corpus, cores=0)     makes OUT/sdg, needs the one before
    Planner.add("eval", "sclmkb-eval", "run", "--checkpoints", OUT/jscc)         needs all that made a folder below it
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sclmkb.common.artifacts.files import read_json, sha256_file, write_bytes, write_json
from sclmkb.common.config import fingerprint, load_preset
from sclmkb.common.errors import UserError

PROGRAMS = {name: f"sclmkb.{stage}.cli" for name, stage in
            {"sclmkb-gen": "generate", "sclmkb-train": "train", "sclmkb-eval": "evaluate"}.items()}  # fmt: skip
"""Module of each program; its package has the presets. Any other program is called by its name."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One command of a study.

    Attributes:
        name: unique; also the place of its log and of its record.
        command: as typed, the program first.
        out: folder or file that it makes.
        part: of the study that it belongs to.
        needs: names of the cells whose folders it reads.
        cores: how many it keeps busy; 0: all there are.
        again: whether it runs each time, since it takes whatever is there, as a report does.
        new_run: whether it takes ``--new-run``, which sets aside what was made with other settings.
        optional: whether those that need it run without it if it fails.
    """

    name: str
    command: tuple[str, ...]
    out: Path
    part: str = ""
    needs: tuple[str, ...] = ()
    cores: int = 1
    again: bool = False
    new_run: bool = True
    optional: bool = False

    def line(self) -> str:
        """Return the command as typed."""
        return shlex.join(self.command)


def sets(*items: str) -> list[str]:
    """Return ``--set`` options for ``key=value`` items."""
    return [word for item in items for word in ("--set", item)]


@dataclass
class Planner:
    """Collects the commands of a study, in an order in which they can run.

    Attributes:
        out: folder of the study.
        part: of the study that the next cells belong to.
        cells: by name.
    """

    out: Path
    part: str = ""
    cells: dict[str, Cell] = field(default_factory=dict)
    _makers: dict[str, list[str]] = field(default_factory=dict)

    def add(
        self,
        name: str,
        *words: object,
        cores: int = 1,
        again: bool = False,
        new_run: bool = True,
        says_out: bool = True,
        optional: bool = False,
    ) -> Path:
        """Add a command that makes a folder or file of this name below that of the study; return its path.

        The command needs the cells that make what its words name, or something below that. Unless ``says_out`` is
        False, ``--out`` and the path are added to it. The rest is as in :class:`Cell`.
        """
        out = self.out / name
        command = tuple(str(word) for word in (*words, *(["--out", out] if says_out else [])))
        needs = dict.fromkeys(need for word in command for need in self._makers.get(word, ()))
        self.cells[name] = Cell(
            name=name, command=command, out=out, part=self.part, needs=tuple(needs), cores=cores, again=again,
            new_run=new_run, optional=optional,
        )  # fmt: skip
        for folder in (out, *out.parents):
            if folder == self.out:
                break
            self._makers.setdefault(str(folder), []).append(name)
        return out


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
        name: of the study.
        out: the folder.
        cells: by name.
        parts: titles of its parts, in order.
        chosen: parts to run; what they need of the others is taken to be there. None: all.
        missing: what is left out, and why.
        inputs: folders that commands read from, by a name that stands for them wherever they are.
        environment: variables of the commands, unless they are set.
        side_by_side: cells of one core at work at once, unless something else is asked for; None: one for each core.
        shown: whether commands are printed as they start, and one of those at work has the terminal.
        programs: module of each program.
    """

    name: str
    out: Path
    cells: Mapping[str, Cell]
    parts: Mapping[str, str] = field(default_factory=dict)
    chosen: frozenset[str] | None = None
    missing: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, Path] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    side_by_side: int | None = None
    shown: bool = False
    programs: Mapping[str, str] = field(default_factory=lambda: PROGRAMS)

    def only(self, parts: Sequence[str]) -> "Study":
        """Return the study with these parts chosen; all without any.

        Raises:
            UserError: if there is no such part, or it is left out.
        """
        if unknown := [part for part in parts if part not in self.parts]:
            raise UserError(f"study {self.name} has no part '{unknown[0]}': {', '.join(self.parts)}")
        if left_out := [part for part in parts if part in self.missing]:
            raise UserError(f"{left_out[0]} is left out: {self.missing[left_out[0]]}")
        return replace(self, chosen=frozenset(parts)) if parts else self

    def to_run(self) -> dict[str, Cell]:
        """Return the cells of the chosen parts, done or not."""
        return {name: cell for name, cell in self.cells.items() if self.chosen is None or cell.part in self.chosen}

    def keys(self) -> dict[str, str]:
        """Return what each cell's result depends on, as a hash: its command, its preset, and the cells it needs.

        Folders are named relative to the study's, so that a study may be moved. An artifact of another study counts by
        its plan.
        """
        found: dict[str, str] = {}
        for cell in self.cells.values():
            command = [self._relative(word) for word in cell.command]
            needs = [found[name] for name in cell.needs]
            plans = list(self._foreign_plans(cell))
            key = {"command": command, "preset": self._preset_of(cell), "needs": needs}
            found[cell.name] = fingerprint({**key, "plans": plans} if plans else key)
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

    def listing(self) -> str:
        """Return every chosen command in order, as a shell script; a comment says what stands already."""
        done = self.done()
        lines = [f"# {name}: left out, {why}" for name, why in self.missing.items()]
        for cell in self.to_run().values():
            lines += [f"# {cell.name}{': done' if cell.name in done else ''}", cell.line()]
        return "\n".join(lines)

    def write_listing(self) -> None:
        """Keep the commands, and which are done, beside what was drawn of them."""
        write_bytes(self._listing_path, f"{self.listing()}\n".encode())

    def has_listing(self) -> bool:
        """Return whether what is kept is as it would be written now."""
        return self._listing_path.exists() and self._listing_path.read_text("utf-8") == f"{self.listing()}\n"

    @property
    def _listing_path(self) -> Path:
        return self.out / "commands.sh"

    def _record_path(self, cell: Cell) -> Path:
        return self.out / "cells" / f"{cell.name}.json"

    def _relative(self, word: str) -> str:
        for name, folder in (("OUT", self.out), *self.inputs.items()):
            if Path(word).is_relative_to(folder):
                return f"{name}/{Path(word).relative_to(folder)}"
        return word

    def _foreign_plans(self, cell: Cell) -> Iterator[str]:
        for word in cell.command:
            if any(Path(word).is_relative_to(folder) for folder in self.inputs.values()):
                plan = Path(word) / "plan.json"
                if plan.exists():
                    yield sha256_file(plan)

    def _preset_of(self, cell: Cell) -> dict[str, Any]:
        """Return the section of the preset that a cell's command reads."""
        program, section, *_ = cell.command
        if "--preset" not in cell.command or program not in self.programs:
            return {}
        package = self.programs[program].rpartition(".")[0]
        preset = load_preset(package, cell.command[cell.command.index("--preset") + 1])
        return dict(preset.get(section) or {})
