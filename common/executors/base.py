"""What an executor needs to know of a run, whatever the stage.

::

    stage ─► Work: frozen plan, how to make shards, the last step ─► Executor ─► artifact
                                                                     local: here and now
                                                                     slurm: a job array, each task the same command

The unit of work is the committed shard. Its manifest alone says that it is done, so every executor gets resuming,
retries and the same bytes from the artifact contract (:mod:`sclmkb.common.artifacts`), and none keeps books of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sclmkb.common.artifacts import Artifact, Run, Shard
from sclmkb.common.plans import parse_ranges

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
        finish: the last step, once all shards are committed; raises
            :class:`~sclmkb.common.artifacts.UnfinishedError` before.
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
        planned = enumerate(self.run.plan.shards)
        return [i for i, shard in planned if not self.run.is_committed(shard) or self.again(shard)]


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
