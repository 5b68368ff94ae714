"""Stand-ins for engine and encoder, and a program that runs SDG with them so that it can be killed."""

import hashlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import torch
from tiny import caption_row, write_artifact

from sclmkb.common.artifacts.plan import make_row_id, make_shards
from sclmkb.common.artifacts.schemas import CAPTIONS, ITEMS
from sclmkb.generate.captions.sdg import Backend, SdgSettings, plan_captions
from sclmkb.generate.engines.base import Completion, Hear, Request, tell, unheard
from sclmkb.generate.filter.filter import EmbedSources, HallucinationFilter
from sclmkb.generate.filter.text import words
from sclmkb.generate.prompts import load_prompt

NOUNS = ("boat", "bridge", "lorry", "tower", "garden", "clock", "engine", "ladder", "window", "lantern")


class FakeEngine:
    """Writes, depending on the seed alone, a faithful or a corrupted caption, or refuses."""

    def __init__(self, delay: float = 0.0) -> None:
        self.delay, self.calls = delay, []

    def generate(self, requests: Sequence[Request], hear: Hear = unheard) -> list[Completion]:
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
        super().__init__()
        self.num_calls = num_calls

    def generate(self, requests: Sequence[Request], hear: Hear = unheard) -> list[Completion]:
        if len(self.calls) == self.num_calls:
            raise KeyboardInterrupt
        return super().generate(requests, hear)


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


def write_corpus(root: Path, num_captions: int, texts: Sequence[str] | None = None) -> Path:
    """Write a corpus of ``num_captions`` training captions, without pictures."""
    names = [f"item-{i}" for i in range(num_captions)]
    texts = texts or [f"{NOUNS[i % 10]} beside {NOUNS[i // 10 % 10]} with mark{i}" for i in range(num_captions)]
    rows = [
        caption_row(make_row_id("fake", "train", name, 0), text, name) for name, text in zip(names, texts, strict=True)
    ]
    (shard,) = make_shards("train", names, max(1, num_captions))
    captions = pa.Table.from_pylist(rows, schema=CAPTIONS)
    return write_artifact(root, "corpus", [(shard, {"items": ITEMS.empty_table(), "captions": captions})])


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


if __name__ == "__main__":
    slow = FakeEngine(delay=float(sys.argv[3]))
    plan_captions(fake_settings(), Path(sys.argv[1]), Path(sys.argv[2]), make_backend(fake_settings(), slow)).run_here()
