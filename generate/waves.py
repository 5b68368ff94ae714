"""The work of ``sclmkb-gen sdg`` on one shard after the other, in waves.

A wave is one engine call, filled with the open rows that had the fewest rounds: first rounds, and when those run out
second ones behind them, so that the batch stays full until a few rows are left of a shard. What a wave holds follows
from what was committed before it, and a wave is committed whole as a chunk of its shard; so a run that was killed
repeats at most two waves, in the same composition.

The filter works beside the engine::

    engine   │ wave 0 │ wave 1 │ wave 2 │ wave 3 │
    filter            │ wave 0 │ wave 1 │ wave 2 │ ...     each committed when it is judged

Wave n + 1 is therefore put together without the verdicts on wave n, from the other rows, as long as these fill it;
where they do not, it waits for the verdicts.

Waves do not reach over the end of a shard. They could only do so in a way that depends on which shards a process does,
and in bfloat16 a completion depends, very rarely, on what else is in the batch; the rows would then depend on how a run
was shared out. The price is small: with 8,192 rows a shard, and 30 to 45 % of the samples kept, waves are 97 to 99 %
full on average (computed, with the default rounds, samples and wave size).
"""

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sclmkb.common.artifacts import Run, Shard, ShardCommittedError
from sclmkb.common.errors import UserError
from sclmkb.common.schemas import ROW_STATES, SDG_ATTEMPTS, SDG_ROWS
from sclmkb.common.seeds import derive_seed
from sclmkb.generate.engines.base import Completion, Request
from sclmkb.generate.filter.filter import Candidate, Verdict
from sclmkb.generate.rows import Row, clean, failed, last_tries, make_rows, mark_near_copies, passed, valid_utf8
from sclmkb.generate.runlog import RunLog

if TYPE_CHECKING:
    from sclmkb.generate.sdg import Backend, SdgSettings

MAX_ERROR_LENGTH = 300


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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wave:
    """What the engine wrote in one call.

    Attributes:
        index: number of its chunk.
        row_ids: its rows.
        jobs: row, attempt, sample and retry of each completion.
        seeds: theirs.
        completions: what was written.
        texts: that, cleaned.
        verdicts: what the filter will say.
        seconds: time that the engine took [s].
    """

    index: int
    row_ids: Sequence[str]
    jobs: Sequence[tuple[str, int, int, int]]
    seeds: Sequence[int]
    completions: Sequence[Completion]
    texts: Sequence[str]
    verdicts: Future[list[Verdict]]
    seconds: float


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
    ) -> None:
        """Build filter and engine.

        Args:
            settings: how to write and filter.
            run: where to write.
            captions: the source captions by row id, those of all shards.
            backend: builds engine and filter.
            log: gets a line a wave.
            check_stop: called where nothing would be lost; raises if the process shall stop.
        """
        self.settings, self.run, self.captions, self.prompt = settings, run, captions, backend.prompt
        self.log, self.check_stop = log, check_stop
        self.position = {row_id: i for i, row_id in enumerate(captions)}
        self.identities = {row_id: caption["identity"] for row_id, caption in captions.items()}
        self.texts = {row_id: valid_utf8(caption["text"]) for row_id, caption in captions.items()}
        self._beside = ThreadPoolExecutor(1, "filter", initializer=_yield_to_the_engine)
        self._filter = self._beside.submit(backend.filter, list(self.texts.values()), list(self.identities.values()))
        self.engine = backend.engine()
        self.num_finished = self.num_errors = 0
        self.last_error = ""

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
        last = self.run.read_chunk(shard, indices[-1], "attempts").to_pylist() if indices else []
        states = {row_id: _Progress() for row_id in shard.row_ids}
        _add(states, attempts[: len(attempts) - len(last)])
        wave = self._wave_beside(states, {attempt["row_id"] for attempt in last}) if last else []
        _add(states, last)
        if retry:
            for state in states.values():
                state.again = tuple(state.failures)
        if retry or not wave:
            wave = self._next_wave(states)
        index = len(indices)
        count(states, "")
        judged: _Wave | None = None

        def commit() -> None:
            nonlocal judged
            if judged is not None:
                found, judged = judged, None
                written, note = self._commit_wave(shard, found, states)
                attempts.extend(written)
                count(states, note)

        while True:
            try:  # what was written before is kept, whatever happens now
                self.check_stop()
                if not retry:
                    self._check_errors()
                if not wave:
                    break
                if self.run.is_committed(shard):
                    raise ShardCommittedError(shard.name)
                written = self._write_wave(index, wave, states)
            finally:
                commit()
            judged, index = written, index + 1
            wave = self._wave_beside(states, set(wave))
            if not wave:
                commit()
                wave = self._next_wave(states)
        self._commit(shard, attempts)
        self.check_stop()

    def _next_wave(self, states: Mapping[str, _Progress], busy: Collection[str] = ()) -> list[str]:
        """Return the rows of the next engine call: those with the fewest rounds first, in plan order."""
        open_rows = [i for i, s in states.items() if i not in busy and s.is_open(self.settings.max_attempts)]
        return sorted(open_rows, key=lambda row_id: states[row_id].num_attempts)[: self._rows_a_wave]

    def _wave_beside(self, states: Mapping[str, _Progress], busy: Collection[str]) -> list[str]:
        """Return the rows of an engine call beside which those of the last one are judged; none if it is not full."""
        wave = self._next_wave(states, busy)
        return wave if len(wave) == self._rows_a_wave else []

    @property
    def _rows_a_wave(self) -> int:
        return max(1, self.settings.wave_size // self.settings.num_samples)

    def _write_wave(self, index: int, row_ids: Sequence[str], states: Mapping[str, _Progress]) -> _Wave:
        """Let the engine write, and hand what it wrote to the filter."""
        started = time.monotonic()
        jobs = [(row_id, *job) for row_id in row_ids for job in states[row_id].jobs(self.settings.num_samples)]
        seeds = [derive_seed(self.settings.seed, row_id, attempt, sample) for row_id, attempt, sample, _ in jobs]
        completions = self._ask([job[0] for job in jobs], seeds)
        texts = [clean(c.text) for c in completions]
        candidates = [
            Candidate(source=self.position[job[0]], text=text, finish_reason=c.finish_reason)
            for job, text, c in zip(jobs, texts, completions, strict=True)
        ]
        return _Wave(
            index=index, row_ids=row_ids, jobs=jobs, seeds=seeds, completions=completions, texts=texts,
            verdicts=self._beside.submit(lambda: self._filter.result().judge(candidates)),
            seconds=time.monotonic() - started,
        )  # fmt: skip

    def _commit_wave(self, shard: Shard, wave: _Wave, states: dict[str, _Progress]) -> tuple[list[Row], str]:
        """Wait for the verdicts, write the chunk and bring the states up to date; also return a note on it."""
        started = time.monotonic()
        written = _attempts(shard, wave, wave.verdicts.result())
        seconds = wave.seconds + time.monotonic() - started
        new = {row_id: states[row_id].after(own) for row_id, own in _by_row(written).items()}
        before, after = (self._count_states(part[row_id] for row_id in wave.row_ids) for part in (states, new))
        figures = _figures(written, seconds)
        figures["rows"] = {state: after[state] - before[state] for state in ROW_STATES}
        self.last_error = next((a["reason"] for a in reversed(written) if failed(a)), self.last_error)
        table = pa.Table.from_pylist(written, schema=SDG_ATTEMPTS)
        if self.run.commit_chunk(shard, wave.index, {"attempts": table}, figures):
            self.num_finished += sum(after.values())
            self.num_errors += after["error"]
        else:  # another process works on this shard too, and was first
            written = self.run.read_chunk(shard, wave.index, "attempts").to_pylist()
            new = {row_id: states[row_id].after(own) for row_id, own in _by_row(written).items()}
        states.update(new)
        self.log.write("chunk", shard=shard.name, index=wave.index, **figures)
        kept = sum(a["accepted"] for a in written)
        return written, f"{kept}/{len(written)} samples kept, {len(written) / max(seconds, 1e-9):.1f}/s"

    def _ask(self, row_ids: Sequence[str], seeds: Sequence[int]) -> list[Completion]:
        """Ask the engine, but not about captions that are none; those come back as errors."""
        refusals = [_why_unusable(self.captions[row_id]["text"]) for row_id in row_ids]
        requests = [
            Request(messages=self.prompt.messages(self.texts[row_id]), seed=seed)
            for row_id, seed, refusal in zip(row_ids, seeds, refusals, strict=True)
            if not refusal
        ]
        answers = iter(self.engine.generate(requests) if requests else ())
        return [
            Completion(text="", finish_reason="error", num_tokens=0, error=refusal) if refusal else next(answers)
            for refusal in refusals
        ]

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


def _attempts(shard: Shard, wave: _Wave, verdicts: Sequence[Verdict]) -> list[Row]:
    """Return the rows of table ``attempts`` of a wave."""
    written = []
    for (row_id, attempt, sample, retry), seed, c, text, verdict in zip(
        wave.jobs, wave.seeds, wave.completions, wave.texts, verdicts, strict=True
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


def _add(states: Mapping[str, _Progress], attempts: Iterable[Row]) -> None:
    """Take attempts into the states, in the order in which they were made."""
    for row_id, own in _by_row(attempts).items():
        states[row_id].add(own)


def _yield_to_the_engine() -> None:
    """Let the filter's thread, and those that it starts, run where the engine leaves a core idle."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


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
