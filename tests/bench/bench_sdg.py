"""What the engine of SDG is held to, on the model, dtype, sampling and prompt of the demo. One run prints all ratios:

- sdg / LLM.chat: generated tokens per second of `sclmkb-gen sdg`, for one round of samples, against one bare
  ``LLM.chat`` call with the same prompts, sampling and seeds, in the same engine. The two take turns; the ratio is the
  median over pairs of turns, and the range over the pairs is printed beside it;
- sdg / LLM.chat, caption first: the same, but the bare call gets the same texts in an order that no prefix cache can
  use: the caption, then the instruction and the examples;
- prefix cache: share of the prompt tokens of SDG that it served, as vLLM counts them;
- caching / no caching: the bare call with the cache against the bare call that may not read it;
- sdg / plain loop: captions a second against transformers' ``generate``, one caption at a time;
- regeneration / first round: with a strict filter, tokens a second of the slowest engine call that is full and writes
  rejected rows again, against the first call.

Measured for SDG: prompts, chat template, tokenising, the way to the engine process and back, generation, embedding of
source and generated captions, FAISS search, rules, and the committed Parquet artifact. Left out on all sides: imports
and loading of models, and one warm-up each. Every turn starts with an empty prefix cache. Run it on a quiet machine.
"""

import argparse
import importlib
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from verdict import sized, verdict

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.config import load_preset
from sclmkb.common.models.pretrained import resolve_language_model
from sclmkb.common.seeds import derive_seed
from sclmkb.generate.captions.backend import make_backend
from sclmkb.generate.captions.sdg import Backend, SdgSettings, plan_captions
from sclmkb.generate.engines.base import Completion, Engine, Hear, Message, Request, unheard
from sclmkb.generate.engines.chat import ChatTokenizer
from sclmkb.generate.engines.vllm import VllmEngine, chosen_dtype, worker_environments
from sclmkb.generate.engines.watched import WatchedEngine
from sclmkb.generate.filter.encoder import load_text_encoder
from sclmkb.generate.filter.filter import EmbedSources, HallucinationFilter
from sclmkb.generate.prompts import Prompt

Chat = Sequence[Message]

SAMPLES = 2
_TINY: dict[str, Any] = {
    "vllm": {"enforce_eager": True, "max_num_seqs": 8, "max_model_len": 256},
    "sampling": {"max_tokens": 8},
}
"""Settings of the tiny form: the engine starts sooner and writes less."""
WHO = ("woman", "man", "person", "older person", "girl", "boy", "student", "farmer")
DOES = ("running", "swimming", "climbing", "reading", "cooking", "singing", "shrugging", "rowing boat")
LOOKS = (
    *("light skin tone", "dark skin tone", "medium skin tone", "red hair", "white hair", "curly hair", "crown", "hat"),
    *("beard", "bald head", "long coat", "green scarf", "glasses", "rucksack", "umbrella", "wooden stick"),
)


class Turn(NamedTuple):
    """What one measured call did."""

    tokens: int
    prompt_tokens: int
    cached_tokens: int
    seconds: float

    @property
    def rate(self) -> float:
        """Generated tokens a second."""
        return self.tokens / self.seconds


class BenchEngine(VllmEngine):
    """The engine of SDG, which in its own process can also be asked as anybody would ask vLLM."""

    def chat_bare(self, chats: Sequence[Chat], seeds: Sequence[int], skip_cache: bool) -> Turn:
        """Write all captions with one call of vLLM's chat interface."""
        from vllm import SamplingParams

        sampling = {**self.sampling.model_dump(), "stop": list(self.sampling.stop)}
        params = [SamplingParams(seed=seed, **sampling) for seed in seeds]
        for param in params:
            param.skip_reading_prefix_cache = skip_cache
        messages = [[m._asdict() for m in chat] for chat in chats]
        self.forget()
        started = time.perf_counter()
        outputs = self.llm.chat(messages, params, use_tqdm=False)
        seconds = time.perf_counter() - started
        return Turn(
            sum(len(o.outputs[0].token_ids) for o in outputs),
            sum(len(o.prompt_token_ids) for o in outputs),
            sum(o.num_cached_tokens or 0 for o in outputs),
            seconds,
        )

    def forget(self) -> None:
        """Empty the prefix cache and the counters."""
        self.llm.reset_prefix_cache()
        self.prompt_tokens = self.cached_tokens = 0

    def counters(self) -> tuple[int, int]:
        """Return prompt tokens and how many of them the prefix cache served."""
        return self.prompt_tokens, self.cached_tokens


@dataclass
class TimedEngine:
    """Notes size, tokens and seconds of every call."""

    engine: Engine
    calls: list[tuple[int, float]]

    def generate(self, requests: Sequence[Request], hear: Hear = unheard) -> list[Completion]:
        started = time.perf_counter()
        written = self.engine.generate(requests, hear)
        rate = sum(c.num_tokens for c in written) / (time.perf_counter() - started)
        self.calls.append((len(requests), rate))
        return written


def captions(count: int) -> list[str]:
    """Captions in the wording of the embedded corpus, which need not be fetched for this."""
    every = [f"{who} {does} with {looks}" for who, does, looks in itertools.product(WHO, DOES, LOOKS)]
    if count > len(every):
        sys.exit(f"at most {len(every) * SAMPLES} captions")
    return [every[i * len(every) // count] for i in range(count)]


def caption_first(prompt: Prompt, caption: str) -> Chat:
    """Return the texts of the prompt, but with the caption before the instruction and the examples."""
    examples = [f"{prompt.user.replace('{caption}', c)}\n{answer}" for c, answer in prompt.examples]
    text = "\n".join([prompt.user.replace("{caption}", caption), prompt.system, "For example:", *examples])
    return (Message("user", text),)


def load_fakes() -> ModuleType:
    sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
    return importlib.import_module("sdg_fakes")


def plain_loop(model: Any, tokenizer: Any, chats: Sequence[Chat], settings: SdgSettings) -> None:
    """Write one caption after the other with transformers."""
    sampling = settings.sampling
    for number, chat in enumerate(chats):
        torch.manual_seed(number)
        inputs = tokenizer.apply_chat_template(
            [m._asdict() for m in chat], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.inference_mode():
            written = model.generate(
                **inputs,
                do_sample=True,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=0,
                max_new_tokens=sampling.max_tokens,
                stop_strings=list(sampling.stop),
                tokenizer=tokenizer,
                pad_token_id=tokenizer.eos_token_id,
            )
        tokenizer.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


class Bench:
    """Everything loaded and warm."""

    def __init__(self, settings: SdgSettings, folder: Path) -> None:
        self.settings, self.folder, self.turn = settings, folder, itertools.count()
        self.made = make_backend(settings)
        self.encoder = load_text_encoder(settings.filter.encoder, settings.filter.encoder_dtype)
        build = partial(BenchEngine, settings.model, None, settings.vllm, settings.sampling)
        self.engine = WatchedEngine(build, settings.watch, worker_environments(settings.vllm, os.environ))
        self.encoder.encode(captions(32))

    def write_corpus(self, count: int) -> Path:
        texts = captions(count)
        path: Path = load_fakes().write_corpus(self.folder / f"corpus-{next(self.turn)}", len(texts), texts)
        return path

    def jobs(self, corpus: Path) -> tuple[list[str], list[int]]:
        """Return caption and seed of every sample of the first round, as SDG asks for them."""
        rows = Artifact.open(corpus, "corpus").table("captions").to_pylist()
        jobs = [(row, sample) for row in rows for sample in range(SAMPLES)]
        seeds = [derive_seed(self.settings.seed, row["row_id"], 0, sample) for row, sample in jobs]
        return [row["text"] for row, _ in jobs], seeds

    def sdg(self, corpus: Path, **changes: Any) -> tuple[Turn, list[tuple[int, float]]]:
        """Run SDG as a whole; also return size and tokens a second of every engine call."""
        settings = SdgSettings.model_validate({**self.settings.model_dump(), **changes})
        timed = TimedEngine(self.engine, [])

        def make_filter(
            sources: Sequence[str], identities: Sequence[str], embed_sources: EmbedSources
        ) -> HallucinationFilter:
            own_texts = self.made.prompt.own_texts()
            return HallucinationFilter(settings.filter, self.encoder, sources, identities, own_texts, embed_sources)

        backend = Backend(
            prompt=self.made.prompt, engine=lambda: timed, filter=make_filter, inputs=self.made.inputs,
            versions=self.made.versions,
        )  # fmt: skip
        self.engine.call("forget")
        started = time.perf_counter()
        artifact = plan_captions(settings, corpus, self.folder / f"sdg-{next(self.turn)}", backend).run_here()
        seconds = time.perf_counter() - started
        assert artifact is not None
        tokens = sum(artifact.table("attempts", columns=["num_tokens"]).column("num_tokens").to_pylist())
        return Turn(tokens, *self.engine.call("counters"), seconds), timed.calls

    def chat(self, chats: Sequence[Chat], seeds: Sequence[int], *, skip_cache: bool = False) -> Turn:
        turn: Turn = self.engine.call("chat_bare", chats, seeds, skip_cache)
        return turn


def tell(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Measure, print a line a ratio, and return 1 if a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=sized(2000, 16), help="captions a turn of SDG and of LLM.chat")
    parser.add_argument("--wave-size", type=int, default=SdgSettings().wave_size, help="samples an engine call of SDG")
    parser.add_argument("--rounds", type=int, default=sized(3, 1), help="turns of these two, in alternating order")
    parser.add_argument("--few-captions", type=int, default=sized(192, 4), help="captions where the cache is of no use")
    parser.add_argument(
        "--loop-captions", type=int, default=sized(16, 3), help="captions of the plain loop; 0: leave it out"
    )
    chosen = parser.parse_args()
    if chosen.few_captions < 1:
        parser.error("--few-captions must be at least 1")
    started = time.monotonic()
    values = {**load_preset("sclmkb.generate", "demo")["sdg"], "num_samples": SAMPLES, "max_attempts": 1}
    settings = SdgSettings.model_validate({**values, "wave_size": chosen.wave_size, **sized({}, _TINY)})

    with tempfile.TemporaryDirectory() as temporary:
        tell("loading")
        bench = Bench(settings, Path(temporary))
        prompt = bench.made.prompt
        corpus = bench.write_corpus(chosen.captions // SAMPLES)
        texts, seeds = bench.jobs(corpus)
        chats = [prompt.messages(text) for text in texts]
        bench.chat(chats[:128], seeds[:128])
        turns: dict[str, list[Turn]] = {"sdg": [], "LLM.chat": []}
        measured = {"sdg": lambda: bench.sdg(corpus)[0], "LLM.chat": lambda: bench.chat(chats, seeds)}
        for number in range(chosen.rounds):
            for name in list(turns) if number % 2 == 0 else reversed(list(turns)):
                turns[name].append(measured[name]())
                tell(f"{name}: {turns[name][-1].rate:.1f} tokens/s")

        every = max(1, len(texts) // chosen.few_captions)
        few, few_seeds = texts[::every][: chosen.few_captions], seeds[::every][: chosen.few_captions]
        few_chats = [prompt.messages(text) for text in few]
        cached = bench.chat(few_chats, few_seeds)
        uncached = bench.chat(few_chats, few_seeds, skip_cache=True)
        tell(f"LLM.chat, {len(few)} captions: {cached.rate:.1f} tokens/s, without caching {uncached.rate:.1f}")
        unordered = bench.chat([caption_first(prompt, text) for text in few], few_seeds)
        tell(f"LLM.chat, caption first: {unordered.rate:.1f} tokens/s")

        wave = settings.vllm.max_num_seqs
        strict = {**settings.filter.model_dump(), "min_similarity": 0.95}  # most rows are written again
        _, calls = bench.sdg(bench.write_corpus(2 * wave), max_attempts=3, num_samples=1, wave_size=wave, filter=strict)
        full = [rate for size, rate in calls if size == wave]
        tell(f"regeneration, tokens/s a call (captions): {', '.join(f'{r:.0f} ({n})' for n, r in calls)}")

        loop_rate = 0.0
        if chosen.loop_captions:
            from transformers import AutoModelForCausalLM

            resolved = resolve_language_model(settings.model)
            model = AutoModelForCausalLM.from_pretrained(resolved, dtype=chosen_dtype(settings.vllm)).eval()
            tokenizer = ChatTokenizer.load(settings.model).tokenizer
            subset = chats[:: max(1, len(chats) // chosen.loop_captions)][: chosen.loop_captions]
            plain_loop(model, tokenizer, subset[:2], settings)
            begun = time.perf_counter()
            plain_loop(model, tokenizer, subset, settings)
            loop_rate = len(subset) / (time.perf_counter() - begun)
            tell(f"plain loop: {loop_rate:.2f} captions/s")
        bench.engine.close()

    sdg, chat = turns["sdg"], turns["LLM.chat"]
    pairs = [one.rate / other.rate for one, other in zip(sdg, chat, strict=True)]
    listed = "; ".join(f"{one.rate:.1f} and {other.rate:.1f}" for one, other in zip(sdg, chat, strict=True))
    print(f"tokens/s of sdg and LLM.chat, pair by pair: {listed}")
    print(f"sdg / LLM.chat over {len(pairs)} pairs: {min(pairs):.3f} to {max(pairs):.3f}")
    print(f"prompt tokens from the prefix cache: {sdg[0].cached_tokens} of {sdg[0].prompt_tokens}")
    ratios = [
        ("sdg / LLM.chat, median of the pairs", statistics.median(pairs), 0.97),
        ("sdg / LLM.chat, caption first", statistics.median(turn.rate for turn in sdg) / unordered.rate, 1.0),
        ("prefix cache, share of prompt tokens", sdg[0].cached_tokens / sdg[0].prompt_tokens, 0.6),
        ("caching / no caching", cached.rate / uncached.rate, 1.0),
        ("regeneration / first round, slowest full call", min(full[1:], default=0.0) / full[0], 0.5),
    ]
    if loop_rate:
        sdg_captions = len(texts) / statistics.median(turn.seconds for turn in sdg)
        print(f"captions/s: sdg {sdg_captions:.1f}, plain loop {loop_rate:.2f}")
        ratios.append(("sdg / plain loop", sdg_captions / loop_rate, 4.0))
    print(f"{len(texts)} captions, {(time.monotonic() - started) / 60:.1f} min")
    return verdict([(name, ratio, bound, ratio >= bound) for name, ratio, bound in ratios])


if __name__ == "__main__":
    sys.exit(main())
