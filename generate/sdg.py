"""``sclmkb-gen sdg``: source data generation, Algorithm 1, with every attempt kept.

::

    source captions ─► prompt ─► engine ─► samples ─► filter ─► kept? ──yes─► row is done: ok
                          ▲                                        │no
                          └───── up to max_attempts rounds ────────┴───────► source alone: rejected

Work goes in waves: a wave is one engine call, filled with the next round of the rows whose last one failed and
then with the first round of new rows. What a wave holds follows from what was committed before it, and a wave is
committed whole, so a run that was killed repeats at most one wave, in the same composition, and ends with the same
bytes. The table ``rows`` is computed from the attempts alone.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from sclmkb.common.artifacts import Artifact, Plan, Run, Shard, make_shards
from sclmkb.common.cli import progress
from sclmkb.common.config import Settings
from sclmkb.common.errors import UserError
from sclmkb.common.models.pretrained import EMBEDDED_LM
from sclmkb.common.schemas import SDG_ATTEMPTS, SDG_ROWS
from sclmkb.common.seeds import derive_seed
from sclmkb.generate.engines.base import Engine, Request, SamplingSettings
from sclmkb.generate.engines.endpoint import EndpointSettings
from sclmkb.generate.engines.transformers import TransformersSettings
from sclmkb.generate.engines.vllm import VllmSettings
from sclmkb.generate.engines.watched import WatchSettings
from sclmkb.generate.filter.filter import Candidate, FilterSettings, HallucinationFilter
from sclmkb.generate.prompts import Prompt

Row = dict[str, Any]


class SdgSettings(Settings):
    """Settings of ``sclmkb-gen sdg``."""

    seed: int = 0
    """Seed of the run; each sample's own seed is derived from it, the row, the attempt and the sample."""
    splits: tuple[str, ...] = ("train",)
    """Splits whose captions are rewritten."""
    engine: Literal["vllm", "endpoint", "transformers", "template"] = "vllm"
    """Who writes: vLLM, an OpenAI-compatible server, transformers (no vLLM needed), or the control that puts captions
    into fixed templates without a language model."""
    model: str = EMBEDDED_LM
    """Language model: the embedded one's name, a folder or a hub name."""
    chat_template: str | None = None
    """For a model without a chat template of its own: vicuna-v1.1, llama-2, llama-3, or a Jinja file."""
    prompt: str = "rewrite-1"
    """Name of a prompt shipped with the program, or a YAML file."""
    sampling: SamplingSettings = SamplingSettings()
    num_samples: int = Field(default=2, ge=1)
    """Samples a row and round."""
    max_attempts: int = Field(default=5, ge=1)
    """Rounds, Algorithm 1; a row ends with the first round that has a keeper."""
    filter: FilterSettings = FilterSettings()
    vllm: VllmSettings = VllmSettings()
    endpoint: EndpointSettings = EndpointSettings()
    transformers: TransformersSettings = TransformersSettings()
    watch: WatchSettings = WatchSettings()
    wave_size: int = Field(default=512, ge=1)
    """Samples an engine call, and what a crash can lose at most. In bfloat16 a completion depends, very rarely, on what
    else is in the batch (1 of 96 was measured), so this is part of a run and not a matter of speed alone."""
    shard_size: int = Field(default=8192, ge=1)
    """Rows a shard."""


@dataclass(frozen=True, kw_only=True)
class Backend:
    """What does the work; built only when there is work to do.

    Attributes:
        prompt: the prompt.
        engine: builds the engine.
        filter: builds the filter from source captions and their identities.
        inputs: fingerprints of model, chat template and prompt, for the plan.
        versions: packages whose version counts.
    """

    prompt: Prompt
    engine: Callable[[], Engine]
    filter: Callable[[Sequence[str], Sequence[str]], HallucinationFilter]
    inputs: Mapping[str, str]
    versions: tuple[str, ...] = ()


@dataclass(kw_only=True)
class _Progress:
    """How far a row is: rounds done, what was kept, and the error that ended it."""

    num_attempts: int = 0
    kept: list[str] = field(default_factory=list)
    error: str = ""

    def is_done(self, max_attempts: int) -> bool:
        return bool(self.kept or self.error) or self.num_attempts >= max_attempts


def generate_captions(
    settings: SdgSettings, corpus: Path, out: Path, backend: Backend, *, new_run: bool = False
) -> Artifact:
    """Write generated captions for the captions of a corpus, or go on where a run was interrupted.

    Args:
        settings: how to write and filter.
        corpus: folder of the corpus artifact.
        out: folder of the artifact to write.
        backend: engine, filter and prompt.
        new_run: set a run with other settings aside.

    Returns:
        The artifact, tables ``rows`` and ``attempts``.

    Raises:
        UserError: if the corpus is unreadable or empty, the model cannot be loaded, or ``out`` holds another run.
    """
    source = Artifact.open(corpus, "corpus")
    if missing := [split for split in settings.splits if split not in source.splits]:
        raise UserError(
            f"{corpus} has no captions in split '{missing[0]}': it has {', '.join(source.splits) or 'none'}"
        )
    captions = {row["row_id"]: row for split in settings.splits for row in source.table("captions", split).to_pylist()}
    if not captions:
        raise UserError(f"{corpus} has no captions in {', '.join(settings.splits)}: make the corpus again")
    shards = [
        shard
        for split in settings.splits
        for shard in make_shards(split, [i for i, c in captions.items() if c["split"] == split], settings.shard_size)
    ]
    plan = Plan(
        kind="sdg",
        tables={"rows": SDG_ROWS, "attempts": SDG_ATTEMPTS},
        settings=settings.fingerprint_fields(),
        shards=shards,
        inputs={"corpus": source.fingerprint, **backend.inputs},
        versions=backend.versions,
    )
    run = Run.open(out, plan, new_run=new_run)
    if pending := run.pending():
        work = _Work(settings, run, captions, backend)
        done = len(captions) - sum(len(shard.row_ids) for shard in pending)
        with progress("sdg", total=len(captions), done=done) as bar:
            for shard in pending:
                work.run_shard(shard, bar.advance)
    return run.finish(
        "Generated captions",
        "Captions that a language model wrote for the captions of a corpus, and what the hallucination filter said"
        " of them. One row of `rows` is a source caption with its state and its kept captions; one row of `attempts`"
        " is a sample, kept or not, with its similarity and the reason why it was rejected.",
    )


class _Work:
    """Engine, filter and the waves of one shard after the other."""

    def __init__(self, settings: SdgSettings, run: Run, captions: Mapping[str, Row], backend: Backend) -> None:
        self.settings, self.run, self.captions, self.prompt = settings, run, captions, backend.prompt
        self.position = {row_id: i for i, row_id in enumerate(captions)}
        self.filter = backend.filter([c["text"] for c in captions.values()], [c["identity"] for c in captions.values()])
        self.engine = backend.engine()

    def run_shard(self, shard: Shard, advance: Callable[[int, str], None]) -> None:
        """Run the waves of a shard that are left, then commit it."""
        started = time.monotonic()
        attempts = self.run.read_chunks(shard, "attempts").to_pylist()
        states = {row_id: _Progress() for row_id in shard.row_ids}
        _update(states, attempts)
        found = len(attempts)
        wave_index = len(self.run.chunk_indices(shard))
        finished = sum(s.is_done(self.settings.max_attempts) for s in states.values())
        advance(finished, "")
        while wave := self._next_wave(states):
            written = self._run_wave(shard, wave, states)
            self.run.commit_chunk(shard, wave_index, {"attempts": pa.Table.from_pylist(written, schema=SDG_ATTEMPTS)})
            _update(states, written)
            attempts += written
            wave_index += 1
            before, finished = finished, sum(s.is_done(self.settings.max_attempts) for s in states.values())
            kept = sum(a["accepted"] for a in attempts)
            rate = (len(attempts) - found) / (time.monotonic() - started)
            advance(finished - before, f"{kept}/{len(attempts)} samples kept, {rate:.1f}/s")
        order = self.position
        attempts.sort(key=lambda a: (order[a["row_id"]], a["attempt"], a["sample"]))
        rows = make_rows([self.captions[row_id] for row_id in shard.row_ids], attempts)
        counts = {state: sum(r["state"] == state for r in rows) for state in ("ok", "rejected", "error")}
        tables = {
            "rows": pa.Table.from_pylist(rows, schema=SDG_ROWS),
            "attempts": pa.Table.from_pylist(attempts, schema=SDG_ATTEMPTS),
        }
        self.run.commit_shard(shard, tables, counts=counts, seconds=time.monotonic() - started)

    def _next_wave(self, states: Mapping[str, _Progress]) -> list[str]:
        """Return the rows of the next engine call: failed ones first, then new ones, each in plan order."""
        open_rows = [i for i, s in states.items() if not s.is_done(self.settings.max_attempts)]
        size = max(1, self.settings.wave_size // self.settings.num_samples)
        return sorted(open_rows, key=lambda row_id: states[row_id].num_attempts == 0)[:size]

    def _run_wave(self, shard: Shard, wave: Sequence[str], states: Mapping[str, _Progress]) -> list[Row]:
        jobs = [(row_id, sample) for row_id in wave for sample in range(self.settings.num_samples)]
        requests = [
            Request(
                messages=self.prompt.messages(self.captions[row_id]["text"]),
                seed=derive_seed(self.settings.seed, row_id, states[row_id].num_attempts, sample),
            )
            for row_id, sample in jobs
        ]
        completions = self.engine.generate(requests)
        verdicts = self.filter.judge(
            [
                Candidate(source=self.position[row_id], text=clean(c.text), finish_reason=c.finish_reason)
                for (row_id, _), c in zip(jobs, completions, strict=True)
            ]
        )
        kept: dict[str, list[str]] = {row_id: list(states[row_id].kept) for row_id in wave}
        written = []
        for (row_id, sample), request, c, verdict in zip(jobs, requests, completions, verdicts, strict=True):
            text, reason = clean(c.text), f"error: {c.error}" if c.error else verdict.reason
            if not reason and self.filter.repeats(text, kept[row_id]):
                reason = "duplicate"
            if not reason:
                kept[row_id].append(text)
            written.append(
                {
                    "row_id": row_id,
                    "split": shard.split,
                    "attempt": states[row_id].num_attempts,
                    "sample": sample,
                    "retry": 0,
                    "text": text,
                    "similarity": verdict.similarity,
                    "margin": verdict.margin,
                    "accepted": not reason,
                    "reason": reason,
                    "finish_reason": c.finish_reason,
                    "num_tokens": c.num_tokens,
                    "seed": request.seed,
                }
            )
        return written


def clean(text: str) -> str:
    """Return a generated text without surrounding white space and quotes.

    Example:
        >>> clean(' "A boat." ')
        'A boat.'
    """
    return text.strip().strip("\"'“”").strip()


def _update(states: Mapping[str, _Progress], attempts: Iterable[Row]) -> None:
    for attempt in attempts:
        state = states[attempt["row_id"]]
        state.num_attempts = max(state.num_attempts, attempt["attempt"] + 1)
        if attempt["accepted"]:
            state.kept.append(attempt["text"])
        elif attempt["finish_reason"] == "error":
            state.error = attempt["reason"].removeprefix("error: ")


def make_rows(captions: Sequence[Row], attempts: Sequence[Row]) -> list[Row]:
    """Return one row of the table ``rows`` a source caption, computed from its attempts.

    A row is ``ok`` if anything was kept, else ``error`` if the engine refused, else ``rejected``.
    """
    by_row: dict[str, list[Row]] = {caption["row_id"]: [] for caption in captions}
    for attempt in attempts:
        by_row[attempt["row_id"]].append(attempt)
    rows = []
    for caption in captions:
        own = by_row[caption["row_id"]]
        kept = sorted((a for a in own if a["accepted"]), key=lambda a: (-a["similarity"], a["attempt"], a["sample"]))
        errors = [a["reason"].removeprefix("error: ") for a in own if a["finish_reason"] == "error"]
        state = "ok" if kept else "error" if errors else "rejected"
        rows.append(
            {
                "row_id": caption["row_id"],
                "identity": caption["identity"],
                "split": caption["split"],
                "source_text": caption["text"],
                "state": state,
                "num_attempts": 1 + max((a["attempt"] for a in own), default=-1),
                "num_samples": len(own),
                "captions": [a["text"] for a in kept],
                "similarities": [a["similarity"] for a in kept],
                "error": errors[0] if state == "error" else "",
            }
        )
    return rows
