"""Captions per second of SDG against two references, on the same model, dtype, prompts and sampling.

(a) the plain loop that researchers publish: transformers' ``generate``, one caption at a time;
(b) bare vLLM: one ``LLM.chat`` call with the same prompts, sampling parameters and seeds.

Measured for SDG: prompts, chat template, tokenising, generation, embedding of source and generated captions, FAISS
search, rules, and the committed Parquet artifact: everything that ``sclmkb-gen sdg`` does for one round of samples.
Each source is written twice (the demo writes each 1.9 times), so that its own embedding counts as it does there.
Left out on all three sides: imports and loading of models, and one warm-up each. The three take turns, and medians
are compared. Run it on a quiet machine: python tests/bench/bench_sdg.py [--captions N] [--rounds N]
"""

import argparse
import importlib.util
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from sclmkb.common.artifacts import Artifact
from sclmkb.common.config import load_preset
from sclmkb.common.models.pretrained import resolve_language_model
from sclmkb.common.seeds import derive_seed
from sclmkb.generate.backend import make_backend
from sclmkb.generate.engines.base import Message
from sclmkb.generate.engines.vllm import VllmEngine, load_tokenizer
from sclmkb.generate.filter.encoder import load_text_encoder
from sclmkb.generate.filter.filter import HallucinationFilter
from sclmkb.generate.sdg import Backend, SdgSettings, generate_captions

LOOP_BOUND, CHAT_BOUND = 4.0, 0.95
SAMPLES = 2
WHO = ("woman", "man", "person", "older person", "girl", "boy", "student", "farmer")
DOES = ("running", "swimming", "climbing", "reading", "cooking", "singing", "shrugging", "rowing boat")
LOOKS = (
    "light skin tone",
    "dark skin tone",
    "medium skin tone",
    "red hair",
    "white hair",
    "curly hair",
    "crown",
    "hat",
)


def captions(count: int) -> list[str]:
    """Captions in the wording of the embedded corpus, which need not be fetched for this."""
    every = [f"{who} {does} with {looks}" for who, does, looks in itertools.product(WHO, DOES, LOOKS)]
    return every[:: max(1, len(every) // count)][:count]


def load_fakes() -> ModuleType:
    path = Path(__file__).parents[1] / "generate" / "sdg_fakes.py"
    spec = importlib.util.spec_from_file_location("sdg_fakes", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plain_loop(model: Any, tokenizer: Any, chats: Sequence[Sequence[Message]], settings: SdgSettings) -> None:
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


def bare_chat(engine: VllmEngine, chats: Sequence[Sequence[Message]], seeds: Sequence[int]) -> None:
    """Write all captions with one call of vLLM's chat interface."""
    from vllm import SamplingParams

    sampling = {**engine.sampling.model_dump(), "stop": list(engine.sampling.stop)}
    params = [SamplingParams(seed=seed, **sampling) for seed in seeds]
    engine.llm.chat([[m._asdict() for m in chat] for chat in chats], params, use_tqdm=False)


def rate(work: Callable[[], object], count: int) -> float:
    """Captions per second of one turn."""
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def main() -> int:
    """Measure, print a line a ratio, and return 1 if a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captions", type=int, default=256, help="captions a turn of SDG and of LLM.chat")
    parser.add_argument("--loop-captions", type=int, default=12, help="captions a turn of the plain loop")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each")
    chosen = parser.parse_args()
    # The settings of the demo, but one round, so that all three write the same number of captions.
    values = {**load_preset("sclmkb.generate", "demo")["sdg"], "num_samples": SAMPLES, "max_attempts": 1}
    settings = SdgSettings.model_validate({**values, "wave_size": max(chosen.captions, values.get("wave_size", 512))})

    from transformers import AutoModelForCausalLM

    resolved = resolve_language_model(settings.model)
    model = AutoModelForCausalLM.from_pretrained(resolved, dtype=getattr(torch, settings.vllm.dtype)).eval()
    tokenizer = load_tokenizer(settings.model)
    encoder = load_text_encoder(settings.filter.encoder, settings.filter.encoder_dtype)
    engine = VllmEngine(settings.model, tokenizer, settings.vllm, settings.sampling)
    made = make_backend(settings)

    def make_filter(sources: Sequence[str], identities: Sequence[str]) -> HallucinationFilter:
        return HallucinationFilter(settings.filter, encoder, sources, identities, made.prompt.own_texts())

    backend = Backend(
        prompt=made.prompt, engine=lambda: engine, filter=make_filter, inputs=made.inputs, versions=made.versions
    )
    texts = captions(chosen.captions // SAMPLES)
    with tempfile.TemporaryDirectory() as temporary:
        corpus = load_fakes().write_corpus(Path(temporary) / "corpus", len(texts), texts)
        rows = Artifact.open(corpus, "corpus").table("captions").to_pylist()
        chats = [made.prompt.messages(row["text"]) for row in rows for _ in range(SAMPLES)]
        seeds = [derive_seed(settings.seed, row["row_id"], 0, sample) for row in rows for sample in range(SAMPLES)]
        subset = chats[:: max(1, len(chats) // chosen.loop_captions)][: chosen.loop_captions]
        turn = itertools.count()

        def sdg() -> None:
            generate_captions(settings, corpus, Path(temporary) / f"sdg-{next(turn)}", backend)

        plain_loop(model, tokenizer, subset[:2], settings)
        encoder.encode(texts[:32])
        bare_chat(engine, chats[:64], seeds[:64])
        rates: dict[str, list[float]] = {"loop": [], "chat": [], "sdg": []}
        for number in range(chosen.rounds):
            turns = [
                ("sdg", lambda: rate(sdg, len(chats))),
                ("chat", lambda: rate(lambda: bare_chat(engine, chats, seeds), len(chats))),
                ("loop", lambda: rate(lambda: plain_loop(model, tokenizer, subset, settings), len(subset))),
            ]
            for name, measure in turns if number % 2 == 0 else reversed(turns):
                rates[name].append(measure())
            print(f"round {number + 1}: " + ", ".join(f"{k} {v[-1]:.2f}/s" for k, v in rates.items()), file=sys.stderr)
    median = {name: statistics.median(values) for name, values in rates.items()}
    load = os.getloadavg()[0] / len(os.sched_getaffinity(0))
    print(
        f"captions/s, medians: sdg {median['sdg']:.2f}, LLM.chat {median['chat']:.2f}, plain loop {median['loop']:.2f}"
    )
    print(f"load a core over the last minute: {load:.1f} (this program alone makes 1.0)")
    missed = False
    for name, other, bound in (("sdg / plain loop", "loop", LOOP_BOUND), ("sdg / LLM.chat", "chat", CHAT_BOUND)):
        ratio = median["sdg"] / median[other]
        missed |= ratio < bound
        print(f"{name}: {ratio:.2f} (bound {bound:.2f}) {'ok' if ratio >= bound else 'MISSED'}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
