"""The one loop over the shards of a run, for every stage.

::

    stage ─► Work: frozen plan, how to make shards, the last step ─► Executor ─► artifact
                                                                     local: here and now
                                                                     ray: actors, each with the same command's Work
                                                                     slurm: a job array, each task the same command

    Work.make: shards not committed ─► the stage makes their tables, one shard after the other
                                        └─► commit ─► run log ─► progress ─► stop in good order, if asked to

The unit of work is the committed shard. Its manifest alone says that it is done, so every executor gets resuming and
the same bytes from the artifact contract (:mod:`sclmkb.common.artifacts.run_folder`). None keeps books.
"""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.plan import Shard, parse_ranges
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.console import Ticker, progress, stop_in_good_order
from sclmkb.common.executors.runlog import RunLog

NO_SHARDS = "none"
"""Stands for no shard at all: only the last step is left to do."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a stage made of a shard.

    Attributes:
        shard: the shard.
        tables: its tables, by name.
        counts: its rows by state; without it all are ``ok``.
        figures: a few numbers for those who watch the run.
        seconds: how long it took [s]; without it the time since the shard before.
    """

    shard: Shard
    tables: Mapping[str, pa.Table]
    counts: Mapping[str, int] | None = None
    figures: Mapping[str, Any] | None = None
    seconds: float | None = None


class Session:
    """What a stage has at hand while it makes shards.

    Attributes:
        log: the log of this process.
        check_stop: raises if the process shall stop; called where nothing would be lost.
    """

    def __init__(self, log: RunLog, ticker: Ticker, check_stop: Callable[[], None]) -> None:
        """Take log and progress of one call of :meth:`Work.make`."""
        self.log, self.check_stop = log, check_stop
        self._ticker, self._shown = ticker, 0

    def advance(self, count: int = 1, note: str = "") -> None:
        """Show that this many more rows of the current shard are done; the rest is shown when it is committed."""
        self.show(self._shown + count, note)

    def show(self, done: int, note: str = "") -> None:
        """Show how many rows of the shard under way are done."""
        self._ticker.advance(done - self._shown, note)
        self._shown = done

    def beside(self, description: str, total: int) -> Ticker:
        """Begin to show how far something is that goes on beside the rows."""
        return self._ticker.beside(description, total)

    def leave(self, shard: Shard) -> None:
        """Leave a shard that another process has committed."""
        self.log.write("left", shard=shard.name)
        self.close(shard, "done elsewhere")

    def close(self, shard: Shard, note: str = "") -> None:
        """Show the rest of a shard as done."""
        if note or self._shown < len(shard.row_ids):
            self.show(len(shard.row_ids), note)
        self._shown = 0


@dataclass(frozen=True, kw_only=True)
class Work:
    """A run whose plan is frozen, and how to bring it to its end; nothing is loaded before there is work to do.

    Attributes:
        name: the command that does it, such as ``sdg``.
        run: the run.
        produce: makes some shards that are not committed, in order. It is called in each call of :meth:`make` that
            has any, and loads then what it needs; what takes long to load it keeps for the next call.
        finish: the last step, once all shards are committed; raises
            :class:`~sclmkb.common.artifacts.artifact.UnfinishedError` before.
        unit: what a row is, for the progress.
    """

    name: str
    run: Run
    produce: Callable[[Sequence[Shard], Session], Generator[Made, None, None]]
    finish: Callable[[], Artifact]
    unit: str = "rows"

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
        names = {shard.name for shard in self.run.pending()}
        return [number for number, shard in enumerate(self.run.plan.shards) if shard.name in names]

    def make(self, mine: Sequence[Shard]) -> None:
        """Make those of some shards, in this process, that are not committed.

        It may be called again and again, until it raises something.

        Raises:
            UserError: of the stage.
        """
        if not (pending := self.run.pending(mine)):
            return
        total, left = (sum(len(shard.row_ids) for shard in shards) for shards in (mine, pending))
        with (
            RunLog.open(self.run, mine) as log,
            progress(f"{self.name}: {self.unit}", total, total - left) as ticker,
            stop_in_good_order() as check_stop,
        ):
            session = Session(log, ticker, check_stop)
            started = time.monotonic()
            with closing(self.produce(pending, session)) as produced:
                for made in produced:
                    self._commit(made, session, time.monotonic() - started)
                    check_stop()
                    started = time.monotonic()

    def _commit(self, made: Made, session: Session, seconds: float) -> None:
        shard = made.shard
        counts = {"ok": len(shard.row_ids)} if made.counts is None else made.counts
        seconds = seconds if made.seconds is None else made.seconds
        if self.run.commit_shard(shard, made.tables, counts=counts, figures=made.figures, seconds=seconds):
            figures = {**(made.figures or {}), "seconds": round(seconds, 3)}
            session.log.write("shard", shard=shard.name, rows=counts, **figures)
            session.close(shard)
        else:
            session.leave(shard)

    def run_here(self) -> Artifact:
        """Make every shard in this process and return the artifact."""
        self.make(self.run.plan.shards)
        return self.finish()
