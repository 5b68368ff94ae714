"""Stand-ins for engine and encoder, and runs of SDG with them."""

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from tiny import caption_row, write_artifact

from sclmkb.common.artifacts.plan import make_row_id, make_shards
from sclmkb.common.artifacts.schemas import CAPTIONS, ITEMS
from sclmkb.common.executors.local import Local
from sclmkb.generate.captions.sdg import Backend, SdgSettings, plan_captions
from sclmkb.generate.engines.base import Completion, Hear, Request, tell, unheard
from sclmkb.generate.filter.filter import EmbedSources, HallucinationFilter
from sclmkb.generate.filter.text import words
from sclmkb.generate.prompts import load_prompt

NOUNS = ("boat", "bridge", "lorry", "tower", "garden", "clock", "engine", "ladder", "window", "lantern")


class FakeEngine:
    """Writes, depending on the seed alone, a faithful or a corrupted caption, or refuses.

    ``before`` is told the number of earlier calls before each one.
    """

    def __init__(self, delay: float = 0.0, before: Callable[[int], Any] = lambda number: None) -> None:
        self.delay, self.before, self.calls = delay, before, []

    def generate(self, requests: Sequence[Request], hear: Hear = unheard) -> list[Completion]:
        self.before(len(self.calls))
        self.calls.append(list(requests))
        time.sleep(self.delay)
        return tell([self._write(request) for request in requests], hear)

    def _write(self, request: Request) -> Completion:
        caption = request.messages[-1].content.removeprefix("Caption: ")
        if "unspeakable" in caption:
            return Completion(text="", finish_reason="error", num_tokens=0, error="refused")
        choice = request.seed % 5
        text = (
            f"here stands {caption}, {'bcdefgh'[request.seed % 7]}" if choice < 2 else "something else altogether there"
        )
        return Completion(text=text if choice != 4 else "", finish_reason="stop", num_tokens=choice)


class InterruptedEngine(FakeEngine):
    """Is interrupted after so many calls."""

    def __init__(self, num_calls: int) -> None:
        def interrupt(number: int) -> None:
            if number == num_calls:
                raise KeyboardInterrupt

        super().__init__(before=interrupt)


class FlakyEngine(FakeEngine):
    """Fails a fifth of the requests, drawn by their seeds, the first time that it is asked."""

    def __init__(self, delay: float = 0.0) -> None:
        super().__init__(delay)
        self.failed: set[int] = set()

    def _write(self, request: Request) -> Completion:
        if request.seed // 7 % 5 == 0 and request.seed not in self.failed:
            self.failed.add(request.seed)
            return Completion(text="", finish_reason="error", num_tokens=0, error="HTTP 503: busy")
        return super()._write(request)


class FakeEncoder:
    """A bag of hashed words, unit length."""

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        features = torch.zeros(len(texts), 64)
        for row, text in enumerate(texts):
            for word in words(text) or ["nothing"]:
                features[row, hashlib.sha256(word.encode()).digest()[0] % 64] += 1
        return torch.nn.functional.normalize(features, dim=-1)


def write_captions(root: Path, captions: Sequence[tuple[str, str, str]], shard_size: int) -> Path:
    """Write a corpus without pictures; a caption is given by split, identity and text."""
    parts = []
    for split in dict.fromkeys(["train", *(split for split, _, _ in captions)]):
        own = [(identity, text) for name, identity, text in captions if name == split]
        ids = [make_row_id("fake", split, f"item-{i}", 0) for i in range(len(own))]
        rows = {i: caption_row(i, text, identity, split=split) for i, (identity, text) in zip(ids, own, strict=True)}
        for shard in make_shards(split, ids, shard_size):
            table = pa.Table.from_pylist([rows[row_id] for row_id in shard.row_ids], schema=CAPTIONS)
            parts.append((shard, {"items": ITEMS.empty_table(), "captions": table}))
    return write_artifact(root, "corpus", parts)


def write_corpus(root: Path, num_captions: int, texts: Sequence[str] | None = None) -> Path:
    """Write a corpus of ``num_captions`` training captions, each of an identity of its own, in one shard."""
    texts = texts or [f"{NOUNS[i % 10]} beside {NOUNS[i // 10 % 10]} with mark{i}" for i in range(num_captions)]
    return write_captions(root, [("train", f"item-{i}", text) for i, text in enumerate(texts)], max(1, num_captions))


def make_backend(settings: SdgSettings, engine: FakeEngine) -> Backend:
    prompt = load_prompt(settings.prompt)

    def make_filter(
        sources: Sequence[str], identities: Sequence[str], embed_sources: EmbedSources | None = None
    ) -> HallucinationFilter:
        own_texts = prompt.own_texts()
        return HallucinationFilter(settings.filter, FakeEncoder(), sources, identities, own_texts, embed_sources)

    return Backend(prompt=prompt, engine=lambda: engine, filter=make_filter, inputs={"model": "fake"})


def fake_settings(**values: object) -> SdgSettings:
    sizes = {"num_samples": 2, "max_attempts": 3, "wave_size": 16, "shard_size": 40}
    limits = {"max_error_rate": 1.0, "filter": {"min_similarity": 0.6, "min_margin": 0.0}}
    return SdgSettings.model_validate({"engine": "template", **sizes, **limits, **values})


class Job:
    """Runs of SDG over one corpus, each in a folder of its own below ``home``."""

    def __init__(self, home: Path, corpus: Path) -> None:
        self.home, self.corpus = home, corpus

    def __call__(
        self,
        name: str = "sdg",
        writer: FakeEngine | None = None,
        *,
        shards: str | None = None,
        retry: str | None = None,
        **values: object,
    ) -> Any:
        """Run SDG into the folder ``name``; return the artifact, or nothing if shards are left."""
        settings = fake_settings(**values)
        backend = make_backend(settings, writer or FakeEngine())
        before = None if retry is None else self.home / retry
        return Local(shards).execute(plan_captions(settings, self.corpus, self.home / name, backend, retry=before))


def files(root: Path) -> dict[str, bytes]:
    """Return the contents of all tables below a folder."""
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*.parquet"))}
