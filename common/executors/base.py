"""What an executor is, and how a command's work is caught before it is handed to one."""

import importlib
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.errors import UserError
from sclmkb.common.executors.stage import Work


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
    """Only takes the work in; another executor then brings it to its end."""

    caught: list[Work] = field(default_factory=list)

    def execute(self, work: Work) -> None:
        self.caught.append(work)


_CATCHING: ContextVar[_Catch | None] = ContextVar("catching", default=None)


def catching() -> Executor | None:
    """Return the executor that a command is to take, whatever its options say; usually there is none."""
    return _CATCHING.get()


def work_of_command(program: str, arguments: Sequence[str]) -> Work:
    """Run a command of a module's ``app`` up to the point where it hands its work to an executor; return the work.

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
