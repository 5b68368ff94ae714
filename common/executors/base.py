"""What an executor needs to know of a run, whatever the stage.

::

    stage ─► Work: frozen plan, how to make shards, the last step ─► Executor ─► artifact
                                                                     local: here and now
                                                                     ray: actors, each with the same command's Work
                                                                     slurm: a job array, each task the same command

The unit of work is the committed shard. Its manifest alone says that it is done, so every executor gets resuming,
retries and the same bytes from the artifact contract (:mod:`sclmkb.common.artifacts.run_folder`). None keeps books.
"""

import importlib
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

from sclmkb.common.artifacts import storage
from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.plan import Shard, parse_ranges
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.errors import UserError

NO_SHARDS = "none"
"""Stands for no shard at all: only the last step is left to do."""


def _never(shard: Shard) -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Work:
    """A run whose plan is frozen, and how to bring it to its end; nothing is loaded before there is work to do.

    Attributes:
        name: the command that does it, such as ``sdg``.
        run: the run.
        make: makes, in this process, those of some shards that are not committed, and whatever is ``again`` of them.
            It may be called again and again, until it raises something.
        finish: the last step, once all shards are committed; raises
            :class:`~sclmkb.common.artifacts.artifact.UnfinishedError` before.
        again: whether a committed shard is to be worked on once more.
    """

    name: str
    run: Run
    make: Callable[[Sequence[Shard]], None]
    finish: Callable[[], Artifact]
    again: Callable[[Shard], bool] = _never

    def shards(self, numbers: str | None) -> list[Shard]:
        """Return the shards that ``0-3,7`` stands for; all without it, nothing for ``none``.

        Raises:
            UserError: if it stands for nothing that is there.
        """
        planned = self.run.plan.shards
        if numbers == NO_SHARDS:
            return []
        return [planned[i] for i in parse_ranges(numbers, len(planned))] if numbers else list(planned)

    def left(self) -> list[int]:
        """Return the numbers of the shards that are still to be made."""
        shards = self.run.plan.shards
        found = storage.for_each(
            self.run.root, lambda shard: not self.run.is_committed(shard) or self.again(shard), shards
        )
        return [number for number, is_left in enumerate(found) if is_left]


def split_overrides(overrides: Sequence[str] | None, sections: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Return the ``--set`` items of a command that are its own, and those of each executor's section, by its name.

    Example:
        >>> split_overrides(["seed=1", "slurm.hours=2"], ["ray", "slurm"])
        (['seed=1'], {'ray': [], 'slurm': ['hours=2']})
    """
    items = list(overrides or ())
    own = [item for item in items if not item.startswith(tuple(f"{name}." for name in sections))]
    return own, {name: [i.removeprefix(f"{name}.") for i in items if i.startswith(f"{name}.")] for name in sections}


class Executor(Protocol):
    """Runs the shards of a plan."""

    def execute(self, work: Work) -> Artifact | None:
        """Bring a run to its end, or its shards under way.

        Returns:
            The artifact; nothing if shards are left to others.

        Raises:
            UserError: of the stage, or if the executor cannot run it.
        """
        ...


@dataclass
class _Catch:
    """Only takes the work in, which is then brought to its end by somebody else."""

    caught: list[Work] = field(default_factory=list)

    def execute(self, work: Work) -> None:
        self.caught.append(work)


_CATCHING: ContextVar[_Catch | None] = ContextVar("catching", default=None)


def catching() -> Executor | None:
    """Return the executor that a command is to take, whatever its options say; usually there is none."""
    return _CATCHING.get()


def work_of_command(program: str, arguments: Sequence[str]) -> Work:
    """Run a command up to the point where it hands its work to an executor, and return the work.

    Args:
        program: module of the command line, with a Typer application ``app``.
        arguments: as typed, without the program.

    Raises:
        UserError: of the command, or if it has no work to hand over.
    """
    catch = _Catch()
    token = _CATCHING.set(catch)
    try:
        importlib.import_module(program).app(list(arguments), standalone_mode=False)
    finally:
        _CATCHING.reset(token)
    if not catch.caught:
        raise UserError(f"{program} {' '.join(arguments)}: this command has no shards to hand out")
    return catch.caught[0]
