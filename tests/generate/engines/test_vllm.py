import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from sdg_fakes import write_corpus
from waiting import wait_for

from sclmkb.common.errors import UserError
from sclmkb.common.models.pretrained import EMBEDDED_LM, resolve_language_model
from sclmkb.generate.captions.backend import make_backend
from sclmkb.generate.captions.sdg import SdgSettings, plan_captions
from sclmkb.generate.engines.base import Message, Request, SamplingSettings
from sclmkb.generate.engines.chat import ChatTokenizer
from sclmkb.generate.engines.vllm import VllmEngine, VllmSettings, chosen_dtype, worker_environments
from sclmkb.generate.engines.watched import WatchedEngine
from sclmkb.generate.prompts import load_prompt, shipped_prompts

SMALL = VllmSettings(enforce_eager=True, max_num_seqs=16, max_model_len=256)
SDG = {
    "num_samples": 1,
    "max_attempts": 2,
    "wave_size": 8,
    "sampling.max_tokens": 12,
    "vllm.enforce_eager": "true",
    "vllm.max_num_seqs": 16,
    "vllm.max_model_len": 256,
}


@pytest.fixture(scope="module")
def chat() -> ChatTokenizer:
    try:
        return ChatTokenizer.load(EMBEDDED_LM)
    except UserError:
        pytest.skip("the embedded language model is not installed")


@pytest.fixture(scope="module")
def engine(chat: ChatTokenizer) -> Iterator[VllmEngine]:
    pytest.importorskip("vllm")
    made = VllmEngine(EMBEDDED_LM, None, SMALL, SamplingSettings(max_tokens=12))
    yield made
    del made


def request(text: str, seed: int) -> Request:
    return Request(messages=load_prompt("rewrite-1").messages(text), seed=seed)


def four_requests() -> list[Request]:
    return [request(f"wooden boat with {n} sails", seed) for seed, n in enumerate(("two", "three", "four", "five"))]


@pytest.mark.parametrize(
    ("dtype", "gpus", "fast", "chosen"),
    [("auto", 0, True, "bfloat16"), ("auto", 0, False, "float32"), ("auto", 1, False, "auto"),
     ("float16", 0, True, "float16")],
)  # fmt: skip
def test_the_machine_chooses_the_dtype(
    dtype: str, gpus: int, fast: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": fast})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert chosen_dtype(VllmSettings(dtype=dtype)) == chosen


@pytest.mark.slow
@pytest.mark.vllm
def test_a_completion_belongs_to_its_request(engine: VllmEngine) -> None:
    requests = four_requests()
    first = engine.generate(requests)
    assert all(c.text and c.num_tokens and not c.error for c in first)
    assert engine.generate(requests[::-1])[::-1] == first
    other = engine.generate([Request(messages=r.messages, seed=r.seed + 100) for r in requests])
    assert [c.text for c in other] != [c.text for c in first]


@pytest.mark.slow
@pytest.mark.vllm
def test_an_over_long_prompt_is_refused_alone(engine: VllmEngine) -> None:
    good, bad = request("wooden boat", 1), request("very " * 300 + "long boat", 2)
    alone = engine.generate([good])[0]
    mixed = engine.generate([good, bad])
    assert mixed[0] == alone
    assert mixed[1].finish_reason == "error"
    assert "tokens" in mixed[1].error
    assert engine.generate([]) == []


@pytest.mark.long
@pytest.mark.vllm
def test_killed_run_on_the_real_engine_ends_with_the_same_bytes(engine: VllmEngine, tmp_path: Path) -> None:
    corpus, out = write_corpus(tmp_path / "corpus", 24), tmp_path / "killed"
    chosen = [f"--set={key}={value}" for key, value in SDG.items()]
    command = ["-c", "from sclmkb.generate.cli import main; main()", "sdg", "--corpus", str(corpus), "--out", str(out)]
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen([sys.executable, *command, *chosen], stderr=log, stdout=log, start_new_session=True)
    wait_for(lambda: process.poll() is not None or list(out.glob("work/*/chunk-00001.json")), 300)
    assert process.poll() is None, (tmp_path / "log").read_text()[-2000:]
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = subprocess.run([sys.executable, *command, *chosen], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "24 rows" in done.stderr

    settings = SdgSettings.resolve(
        presets="sclmkb.generate", section="sdg", overrides=[f"{key}={value}" for key, value in SDG.items()]
    )
    in_process = replace(make_backend(settings), engine=lambda: engine)
    plan_captions(settings, corpus, tmp_path / "whole", in_process).run_here()
    for path in sorted((tmp_path / "whole").rglob("*.parquet")):
        assert (out / path.relative_to(tmp_path / "whole")).read_bytes() == path.read_bytes(), path.name


@pytest.mark.slow
@pytest.mark.vllm
def test_samples_of_one_caption_share_their_prefill(engine: VllmEngine) -> None:
    requests = [request("wooden boat with two sails", seed) for seed in range(40)]
    engine.prompt_tokens = engine.cached_tokens = 0
    assert len({c.text for c in engine.generate(requests)}) > 5
    assert engine.cached_tokens / engine.prompt_tokens > 0.6


@pytest.mark.long
@pytest.mark.vllm
def test_two_copies_in_processes_of_their_own_write_what_one_writes(engine: VllmEngine) -> None:
    pytest.importorskip("vllm")
    requests = four_requests()
    two = VllmSettings.model_validate({**SMALL.model_dump(), "data_parallel_size": 2})
    build = partial(VllmEngine, EMBEDDED_LM, None, two, SamplingSettings(max_tokens=12))
    copies = WatchedEngine(build, None, worker_environments(two, {"OMP_NUM_THREADS": "1"}))
    try:
        written = copies.generate(requests)
    finally:
        copies.close()
    same = [a == b for a, b in zip(written, engine.generate(requests), strict=True)]
    assert sum(same) >= 3  # bfloat16: very rarely, the rest of the batch shows


def test_the_prompt_has_one_bos_and_ends_with_the_turn_to_answer(chat: ChatTokenizer) -> None:
    ids = chat.encode([[Message("user", "hello")]])[0]
    assert isinstance(ids, list)
    assert chat.tokenizer.decode(ids).endswith("<|im_start|>assistant\n")
    assert ids[0] == chat.tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert ids[0] != ids[1]


@pytest.mark.parametrize("name", shipped_prompts())
def test_the_constant_part_of_the_prompt_fills_a_block_of_the_prefix_cache(chat: ChatTokenizer, name: str) -> None:
    prompt = load_prompt(name)
    first, second = chat.encode([prompt.messages("x y"), prompt.messages("a b")])
    assert isinstance(first, list)
    assert isinstance(second, list)
    same = next(i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a != b)
    assert same >= 128


@pytest.mark.long
@pytest.mark.vllm
def test_corrupt_weights_end_in_one_line(chat: ChatTokenizer, tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    source, broken = Path(resolve_language_model(EMBEDDED_LM)), tmp_path / "broken"
    broken.mkdir()
    for path in source.iterdir():
        data = path.read_bytes()
        (broken / path.name).write_bytes(data[:100_000] if path.suffix == ".safetensors" else data)
    corpus = write_corpus(tmp_path / "corpus", 3)
    command = ["-c", "from sclmkb.generate.cli import main; main()", "sdg", "--corpus", str(corpus)]
    chosen = ["--out", str(tmp_path / "out"), "--model", str(broken), "--set=vllm.enforce_eager=true"]
    done = subprocess.run([sys.executable, *command, *chosen], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "error: vLLM cannot load the model" in done.stderr
    assert "Traceback" not in done.stderr
