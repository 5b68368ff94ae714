"""Runs shards in this process."""

from dataclasses import dataclass

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.plan import format_ranges
from sclmkb.common.console import say
from sclmkb.common.executors.stage import NO_SHARDS, Work


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
        if self.shards != NO_SHARDS and (left := work.left()):
            say(f"{work.name}: these shards are done, others are left: {format_ranges(left)}")
            return None
        return work.finish()
