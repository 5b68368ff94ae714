import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from sclmkb.common.errors import UserError
from sclmkb.common.models.pretrained import EMBEDDED_LM, resolve_language_model
from sclmkb.generate.backend import make_backend
from sclmkb.generate.engines.base import Message, Request, SamplingSettings
from sclmkb.generate.engines.vllm import VllmEngine, VllmSettings, load_tokenizer
from sclmkb.generate.prompts import load_prompt
from sclmkb.generate.sdg import Backend, SdgSettings, generate_captions

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
def tokenizer() -> object:
    try:
        return load_tokenizer(EMBEDDED_LM)
    except UserError:
        pytest.skip("the embedded language model is not installed")


@pytest.fixture(scope="module")
def engine(tokenizer: object) -> Iterator[VllmEngine]:
    pytest.importorskip("vllm")
    made = VllmEngine(EMBEDDED_LM, tokenizer, SMALL, SamplingSettings(max_tokens=12))
    yield made
    del made


def request(text: str, seed: int) -> Request:
    return Request(messages=load_prompt("rewrite-1").messages(text), seed=seed)


@pytest.mark.slow
@pytest.mark.vllm
def test_a_completion_belongs_to_its_request(engine: VllmEngine) -> None:
    requests = [request(f"wooden boat with {n} sails", seed) for seed, n in enumerate(("two", "three", "four", "five"))]
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


@pytest.mark.slow
@pytest.mark.vllm
def test_killed_run_on_the_real_engine_ends_with_the_same_bytes(
    engine: VllmEngine, fakes: ModuleType, tmp_path: Path
) -> None:
    corpus, out = fakes.write_corpus(tmp_path / "corpus", 24), tmp_path / "killed"
    chosen = [f"--set={key}={value}" for key, value in SDG.items()]
    command = ["-c", "from sclmkb.generate.cli import main; main()", "sdg", "--corpus", str(corpus), "--out", str(out)]
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen([sys.executable, *command, *chosen], stderr=log, stdout=log, start_new_session=True)
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline and not list(out.glob("work/*/chunk-00001.json")):
        time.sleep(0.02)
    assert process.poll() is None, (tmp_path / "log").read_text()[-2000:]
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = subprocess.run([sys.executable, *command, *chosen], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "24 rows" in done.stderr

    settings = SdgSettings.resolve(
        presets="sclmkb.generate", section="sdg", overrides=[f"{key}={value}" for key, value in SDG.items()]
    )
    backend = make_backend(settings)
    in_process = Backend(
        prompt=backend.prompt,
        engine=lambda: engine,
        filter=backend.filter,
        inputs=backend.inputs,
        versions=backend.versions,
    )
    generate_captions(settings, corpus, tmp_path / "whole", in_process)
    for path in sorted((tmp_path / "whole").rglob("*.parquet")):
        assert (out / path.relative_to(tmp_path / "whole")).read_bytes() == path.read_bytes(), path.name


def test_the_prompt_has_one_bos_and_ends_with_the_turn_to_answer(tokenizer: object) -> None:
    engine = object.__new__(VllmEngine)
    engine.tokenizer = tokenizer
    ids = engine.encode([Message("user", "hello")])
    assert tokenizer.decode(ids).endswith("<|im_start|>assistant\n")  # type: ignore[attr-defined]
    assert ids[0] == tokenizer.convert_tokens_to_ids("<|im_start|>")  # type: ignore[attr-defined]
    assert ids[0] != ids[1]


def test_the_constant_part_of_the_prompt_fills_a_block_of_the_prefix_cache(tokenizer: object) -> None:
    engine = object.__new__(VllmEngine)
    engine.tokenizer = tokenizer
    prompt = load_prompt("rewrite-1")
    first, second = engine.encode(prompt.messages("x y")), engine.encode(prompt.messages("a b"))
    same = next(i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a != b)
    assert same >= 128


def test_model_without_chat_template_names_the_mend(tokenizer: object, tmp_path: Path) -> None:
    source = Path(resolve_language_model(EMBEDDED_LM))
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    with pytest.raises(UserError, match="no chat template"):
        load_tokenizer(str(tmp_path))
    template = tmp_path / "mine.jinja"
    template.write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    assert load_tokenizer(str(tmp_path), template).chat_template == template.read_text()
    with pytest.raises(UserError, match="cannot read the chat template"):
        load_tokenizer(str(tmp_path), tmp_path / "nothing.jinja")


def test_unreadable_model_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no readable folder"):
        load_tokenizer(str(tmp_path / "nothing"))
    with pytest.raises(UserError, match=r"no config\.json"):
        load_tokenizer(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(UserError, match="cannot load the tokenizer"):
        load_tokenizer(str(tmp_path))


@pytest.mark.slow
@pytest.mark.vllm
def test_corrupt_weights_end_in_one_line(tokenizer: object, fakes: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    source, broken = Path(resolve_language_model(EMBEDDED_LM)), tmp_path / "broken"
    broken.mkdir()
    for path in source.iterdir():
        (broken / path.name).write_bytes(
            path.read_bytes()[:100_000] if path.suffix == ".safetensors" else path.read_bytes()
        )
    corpus = fakes.write_corpus(tmp_path / "corpus", 3)
    command = ["-c", "from sclmkb.generate.cli import main; main()", "sdg", "--corpus", str(corpus)]
    chosen = ["--out", str(tmp_path / "out"), "--model", str(broken), "--set=vllm.enforce_eager=true"]
    done = subprocess.run([sys.executable, *command, *chosen], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "error: vLLM cannot load the model" in done.stderr
    assert "Traceback" not in done.stderr
