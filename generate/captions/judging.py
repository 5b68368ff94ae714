"""The filter beside the engine: a block of neighbours is judged as soon as the last of them is written."""

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress

from sclmkb.generate.captions.rows import clean
from sclmkb.generate.engines.base import Completion
from sclmkb.generate.filter.filter import Sample, Verdict

BLOCK = 128
"""Completions that are judged together."""


class Judging:
    """Hands what the engine writes to the filter, while it goes on writing.

    The places in the wave decide what is judged together, not the order in which the engine finishes. The last bits of
    the features depend on the batch, and so they are the same in every run.

    Args:
        judge: judges samples.
        beside: does so while the engine writes.
        sources: position of the source caption of each place.
    """

    def __init__(
        self, judge: Callable[[Sequence[Sample]], list[Verdict]], beside: Executor, sources: Sequence[int]
    ) -> None:
        self._judge, self._beside, self._sources = judge, beside, sources
        self._missing = [min(BLOCK, len(sources) - start) for start in range(0, len(sources), BLOCK)]
        self._samples: dict[int, Sample] = {}
        self._blocks: dict[int, tuple[Sequence[Sample], Future[list[Verdict]]]] = {}

    def take(self, place: int, completion: Completion) -> None:
        """Take a completion, which is not there yet; the last one of a block sends it to the filter."""
        self._samples[place] = Sample(
            source=self._sources[place], text=clean(completion.text), finish_reason=completion.finish_reason
        )
        block = place // BLOCK
        self._missing[block] -= 1
        if self._missing[block]:
            return
        places = range(len(self._sources))[block * BLOCK : (block + 1) * BLOCK]
        samples = [self._samples[i] for i in places]
        self._blocks[block] = samples, self._beside.submit(self._judge, samples)

    def judged(self) -> list[tuple[str, Verdict]]:
        """Return text and verdict of each place, once all are written; what is not begun yet is judged here and now."""
        left = {block for block, (_, verdicts) in self._blocks.items() if verdicts.cancel()}
        return [
            (sample.text, verdict)
            for block, (samples, verdicts) in sorted(self._blocks.items())
            for sample, verdict in zip(
                samples, self._judge(samples) if block in left else verdicts.result(), strict=True
            )
        ]


class IdleThread(ThreadPoolExecutor):
    """The filter's thread; beside an engine on the same cores it runs where they are idle, and stops at once after.

    A merely nice thread would keep a core for milliseconds, for which all threads of the engine wait.
    """

    def __init__(self, *, yields: bool) -> None:
        self._thread: int | None = None
        super().__init__(1, "filter", self._yield if yields else None)

    @contextmanager
    def hurrying(self) -> Iterator[None]:
        """Let the thread run like any other while the engine is done and its work is waited for.

        Programs of others may leave no core idle for minutes. Without the right to do so (root, or RLIMIT_NICE of 20)
        it goes on as before.
        """
        self._schedule("SCHED_OTHER")
        try:
            yield
        finally:
            self._schedule("SCHED_IDLE")

    def _yield(self) -> None:
        import torch

        torch.set_num_threads(1)  # of this thread: two of them would wait for each other most of the time
        self._thread = threading.get_native_id()
        self._schedule("SCHED_IDLE")

    def _schedule(self, policy: str) -> None:
        if self._thread is not None and sys.platform == "linux":
            with suppress(PermissionError):
                os.sched_setscheduler(self._thread, getattr(os, policy), os.sched_param(0))
