"""The work of ``sclmkb-gen sdg`` on one shard after the other, in waves.

A wave is one engine call, filled with the open rows that had the fewest rounds: first rounds, and when those run out
second ones behind them, so that the batch stays full until a few rows are left of a shard. What a wave holds follows
from what was committed before it, and a wave is committed whole as a chunk of its shard; so a run that was killed
repeats at most one wave, in the same composition.

The filter works beside the engine, a block of neighbours as soon as the last of them is written::

    engine   │ wave n                                        │ wave n + 1
    filter         │ block 0 │ block 1 │ ...          │ last │ ...
                                                             └ the wave is committed

Waves do not reach over the end of a shard. They could only do so in a way that depends on which shards a process does,
and in bfloat16 a completion depends, very rarely, on what else is in the batch; the rows would then depend on how a run
was shared out. The price is small: with 8,192 rows a shard, and 30 to 45 % of the samples kept, a shard takes 14 to 16
waves where 12 to 16 full ones would do (computed, with the default rounds, samples and wave size).
"""

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sclmkb.common.artifacts.plan import Shard
from sclmkb.common.artifacts.run_folder import Run, ShardCommittedError
from sclmkb.common.artifacts.schemas import ROW_STATES, SDG_ATTEMPTS, SDG_ROWS
from sclmkb.common.console import Terminated, Ticker
from sclmkb.common.errors import UserError
from sclmkb.common.executors.runlog import RunLog
from sclmkb.common.seeds import derive_seed
from sclmkb.generate.captions.rows import (
    Row,
    clean,
    failed,
    last_tries,
    make_rows,
    mark_near_copies,
    passed,
    valid_utf8,
)
from sclmkb.generate.captions.source_features import share_features
from sclmkb.generate.engines.base import Completion, Hear, Request, refused
from sclmkb.generate.filter.filter import Candidate, Verdict

if TYPE_CHECKING:
    from sclmkb.generate.captions.sdg import Backend, SdgSettings

MAX_ERROR_LENGTH = 300
_BLOCK = 128


@dataclass(kw_only=True)
class _Progress:
    """How far a row is.

    Attributes:
        num_attempts: rounds so far.
        has_passed: whether the filter passed anything.
        failures: attempt and sample of those that the engine failed to write, with the number of the last try.
        again: which of these to try again now.
    """

    num_attempts: int = 0
    has_passed: bool = False
    failures: dict[tuple[int, int], int] = field(default_factory=dict)
    again: tuple[tuple[int, int], ...] = ()

    def add(self, attempts: Iterable[Row]) -> None:
        """Take in attempts in the order in which they were made."""
        for attempt in attempts:
            key = attempt["attempt"], attempt["sample"]
            self.num_attempts = max(self.num_attempts, attempt["attempt"] + 1)
            self.has_passed = self.has_passed or passed(attempt)
            if failed(attempt):
                self.failures[key] = attempt["retry"]
            else:
                self.failures.pop(key, None)

    def after(self, attempts: Iterable[Row]) -> "_Progress":
        """Return how far the row is after a wave."""
        new = replace(self, failures=dict(self.failures), again=())
        new.add(attempts)
        return new

    def state(self, max_attempts: int) -> str:
        """Return how the row ends as things stand, empty if it goes on."""
        if self.has_passed:
            return "ok"
        if self.failures:
            return "error"
        return "rejected" if self.num_attempts >= max_attempts else ""

    def is_open(self, max_attempts: int) -> bool:
        """Return whether there is something to ask for."""
        return bool(self.again) or not self.state(max_attempts)

    def jobs(self, num_samples: int) -> list[tuple[int, int, int]]:
        """Return attempt, sample and retry of what to ask for next."""
        if self.again:
            return [(*key, self.failures[key] + 1) for key in self.again]
        return [(self.num_attempts, sample, 0) for sample in range(num_samples)]


class _Judging:
    """Hands what the engine writes to the filter, while it goes on writing.

    What is judged in one go follows from the places in the wave and not from the order in which the engine finishes, so
    that the last bits of the features, which depend on the batch, are those of every other run.

    Args:
        judge: judges candidates.
        beside: does so while the engine writes.
        sources: position of the source caption of each place.
    """

    def __init__(
        self, judge: Callable[[Sequence[Candidate]], list[Verdict]], beside: Executor, sources: Sequence[int]
    ) -> None:
        self._judge, self._beside, self._sources = judge, beside, sources
        self._missing = [min(_BLOCK, len(sources) - start) for start in range(0, len(sources), _BLOCK)]
        self._candidates: dict[int, Candidate] = {}
        self._blocks: dict[int, tuple[Sequence[Candidate], Future[list[Verdict]]]] = {}

    def take(self, place: int, completion: Completion) -> None:
        """Take a completion, which is not there yet; the last one of a block sends it to the filter."""
        self._candidates[place] = Candidate(
            source=self._sources[place], text=clean(completion.text), finish_reason=completion.finish_reason
        )
        block = place // _BLOCK
        self._missing[block] -= 1
        if self._missing[block]:
            return
        places = range(len(self._sources))[block * _BLOCK : (block + 1) * _BLOCK]
        candidates = [self._candidates[i] for i in places]
        self._blocks[block] = candidates, self._beside.submit(self._judge, candidates)

    def texts(self) -> list[str]:
        """Return the captions as judged, once all are written."""
        return [self._candidates[place].text for place in range(len(self._sources))]

    def verdicts(self) -> list[Verdict]:
        """Return those on all places, once all are written; what is not begun yet is judged here and now."""
        left = {block for block, (_, verdicts) in self._blocks.items() if verdicts.cancel()}
        return [
            verdict
            for block, (candidates, verdicts) in sorted(self._blocks.items())
            for verdict in (self._judge(candidates) if block in left else verdicts.result())
        ]


class _Beside(ThreadPoolExecutor):
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


class Worker:
    """Engine, filter and the waves of one shard after the other."""

    def __init__(
        self,
        settings: "SdgSettings",
        run: Run,
        captions: Mapping[str, Row],
        backend: "Backend",
        log: RunLog,
        check_stop: Callable[[], None],
        beside: Callable[[str, int], Ticker],
    ) -> None:
        """Build filter and engine.

        Args:
            settings: how to write and filter.
            run: where to write.
            captions: the source captions by row id, those of all shards.
            backend: builds engine and filter.
            log: gets a line a wave.
            check_stop: called where nothing would be lost; raises if the process shall stop.
            beside: begins to show how far something is that goes on beside the rows.
        """
        import torch  # before the thread beside does; a run that has nothing to do never comes here

        self.settings, self.run, self.captions, self.prompt = settings, run, captions, backend.prompt
        self.log, self.check_stop = log, check_stop
        self.position = {row_id: i for i, row_id in enumerate(captions)}
        self.identities = {row_id: caption["identity"] for row_id, caption in captions.items()}
        self.texts = {row_id: valid_utf8(caption["text"]) for row_id, caption in captions.items()}
        shares_cores = settings.engine in ("vllm", "transformers")
        self._beside = _Beside(yields=shares_cores)
        sources = list(self.texts.values()), list(self.identities.values())
        self._gave_up = False
        self._filter = self._beside.submit(
            backend.filter, *sources, partial(share_features, run, self._before_part, beside)
        )
        self.engine = backend.engine()
        if shares_cores:
            torch.set_num_threads(1)  # as beside: the last bits of a feature depend on it
        self.num_finished = self.num_errors = 0
        self.last_error = ""

    def give_up(self) -> None:
        """End what goes on beside the engine soon: nobody waits for it any more."""
        self._gave_up = True

    def _before_part(self, **figures: int) -> None:
        """Say that source captions are embedded here, which may take long; raise if nobody waits for them."""
        if self._gave_up:
            raise Terminated
        self.check_stop()
        self.log.write("sources", **figures)

    def run_shard(self, shard: Shard, advance: Callable[[int, str], None], *, retry: bool = False) -> None:
        """Run the waves of a shard that are left, then commit it; or leave it when another process commits it.

        Args:
            shard: the shard.
            advance: told how many rows are finished, with a note.
            retry: ask once more for the samples that failed.

        Raises:
            UserError: if too many rows end in an error, or a chunk is corrupt.
        """
        counted = 0

        def count(states: Mapping[str, _Progress], note: str) -> None:
            nonlocal counted
            finished = sum(not s.is_open(self.settings.max_attempts) for s in states.values())
            advance(finished - counted, note)
            counted = finished

        try:
            self._run_shard(shard, count, retry)
        except ShardCommittedError:
            self.log.write("left", shard=shard.name)
            advance(len(shard.row_ids) - counted, "done elsewhere")

    def _run_shard(self, shard: Shard, count: Callable[[Mapping[str, _Progress], str], None], retry: bool) -> None:
        indices = self.run.chunk_indices(shard)
        attempts = self.run.read_chunks(shard, "attempts", indices).to_pylist()
        states = {row_id: _Progress() for row_id in shard.row_ids}
        for row_id, own in _by_row(attempts).items():
            states[row_id].add(own)
        if retry:
            for state in states.values():
                state.again = tuple(state.failures)
        index = len(indices)
        count(states, "")
        while wave := self._next_wave(states):
            if self.run.is_committed(shard):
                raise ShardCommittedError(shard.name)
            started = time.monotonic()
            written = self._run_wave(shard, wave, states)
            new = {row_id: states[row_id].after(own) for row_id, own in _by_row(written).items()}
            before, after = (self._count_states(part[row_id] for row_id in wave) for part in (states, new))
            figures = _figures(written, time.monotonic() - started)
            figures["rows"] = {state: after[state] - before[state] for state in ROW_STATES}
            self.last_error = next((a["reason"] for a in reversed(written) if failed(a)), self.last_error)
            table = pa.Table.from_pylist(written, schema=SDG_ATTEMPTS)
            if self.run.commit_chunk(shard, index, {"attempts": table}, figures):
                self.num_finished += sum(after.values())
                self.num_errors += after["error"]
            else:  # another process works on this shard too, and was first
                written = self.run.read_chunk(shard, index, "attempts").to_pylist()
                new = {row_id: states[row_id].after(own) for row_id, own in _by_row(written).items()}
            states.update(new)
            self.log.write("chunk", shard=shard.name, index=index, **figures)
            attempts += written
            index += 1
            kept = sum(a["accepted"] for a in written)
            count(states, f"{kept}/{len(written)} samples kept, {len(written) / (time.monotonic() - started):.1f}/s")
            self.check_stop()
            if not retry:
                self._check_errors()
        self._commit(shard, attempts)
        self.check_stop()

    def _next_wave(self, states: Mapping[str, _Progress]) -> list[str]:
        """Return the rows of the next engine call: those with the fewest rounds first, in plan order."""
        open_rows = [i for i, s in states.items() if s.is_open(self.settings.max_attempts)]
        size = max(1, self.settings.wave_size // self.settings.num_samples)
        return sorted(open_rows, key=lambda row_id: states[row_id].num_attempts)[:size]

    def _run_wave(self, shard: Shard, wave: Sequence[str], states: Mapping[str, _Progress]) -> list[Row]:
        """Let the engine write and the filter judge; return the rows of table ``attempts``."""
        jobs = [(row_id, *job) for row_id in wave for job in states[row_id].jobs(self.settings.num_samples)]
        seeds = [derive_seed(self.settings.seed, row_id, attempt, sample) for row_id, attempt, sample, _ in jobs]
        judging = _Judging(self._judge, self._beside, [self.position[job[0]] for job in jobs])
        completions = self._ask([job[0] for job in jobs], seeds, judging.take)
        with self._beside.hurrying():
            verdicts = judging.verdicts()
        written = []
        for (row_id, attempt, sample, retry), seed, c, text, verdict in zip(
            jobs, seeds, completions, judging.texts(), verdicts, strict=True
        ):
            reason = f"error: {_one_line(c.error)}" if c.error else verdict.reason
            written.append(
                {
                    "row_id": row_id,
                    "split": shard.split,
                    "attempt": attempt,
                    "sample": sample,
                    "retry": retry,
                    "text": text,
                    "similarity": verdict.similarity,
                    "margin": verdict.margin,
                    "accepted": not reason,
                    "reason": reason,
                    "finish_reason": "error" if c.error else c.finish_reason,
                    "num_tokens": c.num_tokens,
                    "seed": seed,
                }
            )
        return written

    def _judge(self, candidates: Sequence[Candidate]) -> list[Verdict]:
        return self._filter.result().judge(candidates)

    def _ask(self, row_ids: Sequence[str], seeds: Sequence[int], hear: Hear) -> list[Completion]:
        """Ask the engine, but not about captions that are none; those come back as errors."""
        refusals = [_why_unusable(self.captions[row_id]["text"]) for row_id in row_ids]
        asked = [i for i, refusal in enumerate(refusals) if not refusal]
        requests = [Request(messages=self.prompt.messages(self.texts[row_ids[i]]), seed=seeds[i]) for i in asked]
        found = {i: refused(refusal) for i, refusal in enumerate(refusals) if refusal}
        for i, completion in found.items():
            hear(i, completion)
        written = self.engine.generate(requests, lambda i, completion: hear(asked[i], completion)) if requests else ()
        found.update(zip(asked, written, strict=True))
        return [found[i] for i in range(len(row_ids))]

    def _count_states(self, rows: Iterable[_Progress]) -> dict[str, int]:
        """Count how rows end as things stand."""
        found = Counter(row.state(self.settings.max_attempts) for row in rows)
        return {state: found[state] for state in ROW_STATES}

    def _check_errors(self) -> None:
        limit = self.settings.max_error_rate
        if self.num_finished < self.settings.min_rows_for_error_rate or self.num_errors <= limit * self.num_finished:
            return
        raise UserError(
            f"{self.num_errors} of {self.num_finished} rows failed, more than max_error_rate {limit:g}"
            f" ({self.last_error.removeprefix('error: ')}): mend that, then run the same command with --retry-failed,"
            " which also asks for these again"
        )

    def _commit(self, shard: Shard, attempts: list[Row]) -> None:
        place = self.position
        attempts.sort(key=lambda a: (place[a["row_id"]], a["attempt"], a["sample"], a["retry"]))
        attempts = mark_near_copies(attempts, self.identities, self.settings.filter.rules.max_overlap)
        sources = [{**self.captions[row_id], "text": self.texts[row_id]} for row_id in shard.row_ids]
        rows = make_rows(sources, attempts)
        earlier, chunks = self.run.figures(shard)
        figures = _figures(attempts, sum(f.get("seconds", 0.0) for f in (earlier, *chunks)))
        self.run.commit_shard(
            shard,
            {
                "rows": pa.Table.from_pylist(rows, schema=SDG_ROWS),
                "attempts": pa.Table.from_pylist(attempts, schema=SDG_ATTEMPTS),
            },
            counts={state: sum(r["state"] == state for r in rows) for state in ROW_STATES},
            figures=figures,
            seconds=figures["seconds"],
        )


def _by_row(attempts: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for attempt in attempts:
        found.setdefault(attempt["row_id"], []).append(attempt)
    return found


def _figures(attempts: Sequence[Row], seconds: float) -> dict[str, Any]:
    return {
        "samples": len(attempts),
        "kept": sum(a["accepted"] for a in attempts),
        "failed": sum(failed(a) for a in last_tries(attempts)),
        "tokens": sum(a["num_tokens"] for a in attempts),
        "seconds": round(seconds, 3),
    }


def _why_unusable(text: str) -> str:
    if not text.strip():
        return "the caption is empty"
    return "" if valid_utf8(text) == text else "the caption is not valid UTF-8"


def _one_line(error: str) -> str:
    return " ".join(valid_utf8(error).split())[:MAX_ERROR_LENGTH]
