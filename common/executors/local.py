"""Runs shards in this process."""

from dataclasses import dataclass

from sclmkb.common.artifacts.artifact import Artifact, UnfinishedError
from sclmkb.common.artifacts.plan import format_ranges
from sclmkb.common.console import say
from sclmkb.common.executors.base import NO_SHARDS, Work

_LOOKS = 5


@dataclass(frozen=True)
class Local:
    """Makes shards here and now; whichever of several processes makes the last one does the last step too.

    Attributes:
        shards: numbers of the shards to make, such as ``0-3,7``; others are left to other processes. ``none``: only
            the last step, which is an error if shards are left. Nothing: all of them.
    """

    shards: str | None = None

    def execute(self, work: Work) -> Artifact | None:
        """Make the shards; return the artifact, or nothing if shards are left to others.

        Raises:
            UserError: of the stage, or if ``shards`` names none.
        """
        if chosen := work.shards(self.shards):
            work.make(chosen)
        for _ in range(_LOOKS):
            try:
                return work.finish()
            except UnfinishedError:
                if self.shards == NO_SHARDS:
                    raise
                if left := {shard.name for shard in work.run.pending()}:  # also what others have just opened again
                    numbers = [i for i, shard in enumerate(work.run.plan.shards) if shard.name in left]
                    say(f"{work.name}: these shards are done, others are left: {format_ranges(numbers)}")
                    return None
            # Another process has committed the last of them between the two looks.
        return work.finish()
