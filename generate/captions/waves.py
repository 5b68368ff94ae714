"""The work of ``sclmkb-gen sdg`` on one shard after the other, in waves.

A wave is one engine call, filled with the open rows that had the fewest rounds: first rounds, then second ones when
those run out. So the batch stays full until few rows of a shard are left. What a wave holds follows from what was
committed before it. A wave is committed whole, as a chunk of its shard. So a killed run repeats at most one wave, in
the same composition.

The filter works beside the engine, a block of neighbours as soon as the last of them is written::

    engine   │ wave n                                        │ wave n + 1
    filter         │ block 0 │ block 1 │ ...          │ last │ ...
                                                             └ the wave is committed

Waves do not reach over the end of a shard. If they did, a wave would depend on which shards a process does. In
bfloat16 a completion depends, very rarely, on what else is in the batch. So the rows would depend on how a run was
shared out. The price is small. With 8,192 rows per shard and 30 to 45 % of the samples kept, a shard takes 14 to 16
waves; 12 to 16 full ones would do. This was computed with the default rounds, samples and wave size.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.chunks import ShardCommittedError
from sclmkb.common.artifacts.plan import Shard
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.artifacts.schemas import ROW_STATES, SDG_ATTEMPTS
from sclmkb.common.console import Terminated
from sclmkb.common.errors import UserError
from sclmkb.common.executors.stage import Made, Session
from sclmkb.common.seeds import derive_seed
from sclmkb.generate.captions.judging import IdleThread, Judging
from sclmkb.generate.captions.rows import Row, RowProgress, by_row, count_samples, failed, settle, valid_utf8
from sclmkb.generate.captions.source_features import share_features
from sclmkb.generate.engines.base import Completion, Hear, Request, refused
from sclmkb.generate.filter.filter import Sample, Verdict

if TYPE_CHECKING:
    from sclmkb.generate.captions.sdg import Backend, SdgSettings

MAX_ERROR_LENGTH = 300


class Worker:
    """Engine, filter and the waves of one shard after the other."""

    def __init__(
        self, settings: "SdgSettings", run: Run, captions: Mapping[str, Row], backend: "Backend", session: Session
    ) -> None:
        """Build filter and engine.

        Args:
            settings: how to write and filter.
            run: where to write.
            captions: the source captions by row id, those of all shards.
            backend: builds engine and filter.
            session: what is at hand; another one may follow.
        """
        import torch  # before the thread beside does; a run that has nothing to do never comes here

        self.settings, self.run, self.captions, self.prompt = settings, run, captions, backend.prompt
        self.session = session
        self.position = {row_id: i for i, row_id in enumerate(captions)}
        self.identities = {row_id: caption["identity"] for row_id, caption in captions.items()}
        self.texts = {row_id: valid_utf8(caption["text"]) for row_id, caption in captions.items()}
        shares_cores = settings.engine in ("vllm", "transformers")
        self._beside = IdleThread(yields=shares_cores)
        sources = list(self.texts.values()), list(self.identities.values())
        self._gave_up = False
        self._filter = self._beside.submit(
            backend.filter, *sources, partial(share_features, run, self._before_part, session.beside)
        )
        self.engine = backend.engine()
        if shares_cores:
            torch.set_num_threads(1)  # as beside: the last bits of a feature depend on it
        self.num_finished = self.num_errors = 0
        self.last_error = ""

    def give_up(self) -> None:
        """End soon what runs beside the engine: its result is no longer needed."""
        self._gave_up = True

    def _before_part(self, part: int, of: int) -> None:
        """Note that source captions are embedded here, which may take long; raise if they are no longer needed."""
        if self._gave_up:
            raise Terminated
        self.session.check_stop()
        self.session.log.write("sources", part=part, of=of)

    def make_shard(self, shard: Shard, before: Artifact | None = None) -> Made | None:
        """Run the waves of a shard that are left.

        Args:
            shard: the shard.
            before: an artifact of the same shards: every sample that failed there is asked for once more.

        Returns:
            What was made; nothing if another process commits the shard.

        Raises:
            UserError: if too many rows end in an error, or a chunk is corrupt.
        """
        try:
            return self._make_shard(shard, before)
        except ShardCommittedError:
            self.session.leave(shard)
            return None

    def _make_shard(self, shard: Shard, before: Artifact | None) -> Made:
        attempts = before.shard_table("attempts", shard.name).to_pylist() if before else []
        states = {row_id: RowProgress() for row_id in shard.row_ids}
        for row_id, tried in by_row(attempts).items():
            states[row_id].add(tried)
            states[row_id].again = tuple(states[row_id].failures)
        indices = self.run.chunks(shard).indices()
        chunks = self.run.chunks(shard).read_all("attempts", indices).to_pylist()
        states.update({row_id: states[row_id].after(own) for row_id, own in by_row(chunks).items()})
        attempts += chunks
        index = len(indices)
        self._show(states, "")
        while wave := self._next_wave(states):
            if self.run.is_committed(shard):
                raise ShardCommittedError(shard.name)
            started = time.monotonic()
            written = self._run_wave(shard, wave, states)
            new = {row_id: states[row_id].after(own) for row_id, own in by_row(written).items()}
            ends = Counter(new[row_id].state(self.settings.max_attempts) for row_id in wave)
            finished = {state: ends[state] for state in ROW_STATES}
            seconds = round(time.monotonic() - started, 3)
            figures = {**count_samples(written), "seconds": seconds, "rows": finished}
            self.last_error = next((a["reason"] for a in reversed(written) if failed(a)), self.last_error)
            table = pa.Table.from_pylist(written, schema=SDG_ATTEMPTS)
            if self.run.chunks(shard).commit(index, {"attempts": table}, figures):
                self.num_finished += sum(finished.values())
                self.num_errors += finished["error"]
            else:  # another process works on this shard too, and was first
                written = self.run.chunks(shard).read(index, "attempts").to_pylist()
                new = {row_id: states[row_id].after(own) for row_id, own in by_row(written).items()}
            states.update(new)
            self.session.log.write("chunk", shard=shard.name, index=index, **figures)
            attempts += written
            index += 1
            kept = sum(a["accepted"] for a in written)
            speed = len(written) / (time.monotonic() - started)
            self._show(states, f"{kept}/{len(written)} samples kept, {speed:.1f}/s")
            self.session.check_stop()
            if before is None:
                self._check_errors()
        return self._made(shard, attempts, before)

    def _show(self, states: Mapping[str, RowProgress], note: str) -> None:
        self.session.show(sum(bool(s.state(self.settings.max_attempts)) for s in states.values()), note)

    def _next_wave(self, states: Mapping[str, RowProgress]) -> list[str]:
        """Return the rows of the next engine call: those with the fewest rounds first, in plan order."""
        open_rows = [i for i, s in states.items() if not s.state(self.settings.max_attempts)]
        size = max(1, self.settings.wave_size // self.settings.num_samples)
        return sorted(open_rows, key=lambda row_id: states[row_id].num_attempts)[:size]

    def _run_wave(self, shard: Shard, wave: Sequence[str], states: Mapping[str, RowProgress]) -> list[Row]:
        """Let the engine write and the filter judge; return the rows of table ``attempts``."""
        jobs = [(row_id, *job) for row_id in wave for job in states[row_id].jobs(self.settings.num_samples)]
        seeds = [derive_seed(self.settings.seed, row_id, attempt, sample) for row_id, attempt, sample, _ in jobs]
        judging = Judging(self._judge, self._beside, [self.position[job[0]] for job in jobs])
        completions = self._ask([job[0] for job in jobs], seeds, judging.take)
        with self._beside.hurrying():
            judged = judging.judged()
        written = []
        for (row_id, attempt, sample, retry), seed, c, (text, verdict) in zip(
            jobs, seeds, completions, judged, strict=True
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

    def _judge(self, samples: Sequence[Sample]) -> list[Verdict]:
        return self._filter.result().judge(samples)

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

    def _check_errors(self) -> None:
        limit = self.settings.max_error_rate
        if self.num_finished < self.settings.min_rows_for_error_rate or self.num_errors <= limit * self.num_finished:
            return
        raise UserError(
            f"{self.num_errors} of {self.num_finished} rows failed, more than max_error_rate {limit:g}"
            f" ({self.last_error.removeprefix('error: ')}): mend that and run the same command again; in the"
            f" end --retry {self.run.root} --out NEW asks for these once more"
        )

    def _made(self, shard: Shard, attempts: list[Row], before: Artifact | None) -> Made:
        place = self.position
        attempts.sort(key=lambda a: (place[a["row_id"]], a["attempt"], a["sample"], a["retry"]))
        sources = [{**self.captions[row_id], "text": self.texts[row_id]} for row_id in shard.row_ids]
        made = settle(shard, sources, attempts, self.settings.filter.rules.max_overlap)
        seconds = sum(f["seconds"] for f in self.run.chunks(shard).figures())
        if before is not None:
            seconds += before.manifest(shard.name)["seconds"] or 0.0
        seconds = round(seconds, 3)
        return replace(made, figures={**(made.figures or {}), "seconds": seconds}, seconds=seconds)


def _why_unusable(text: str) -> str:
    if not text.strip():
        return "the caption is empty"
    return "" if valid_utf8(text) == text else "the caption is not valid UTF-8"


def _one_line(error: str) -> str:
    return " ".join(valid_utf8(error).split())[:MAX_ERROR_LENGTH]
