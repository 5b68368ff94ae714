from pathlib import Path
from typing import Any

import pytest
import torch

from sclmkb.common.errors import UserError
from sclmkb.generate.engines.base import Completion, Message, Request, SamplingSettings
from sclmkb.generate.engines.chat import shipped_templates
from sclmkb.generate.engines.transformers import SeededDraw, TransformersEngine
from sclmkb.generate.engines.transformers_settings import TransformersSettings

SETTINGS = TransformersSettings(device="cpu", batch_size=3, max_model_len=256)
SAMPLING = SamplingSettings(max_tokens=12, stop=("e",))


@pytest.fixture(scope="module")
def model(byte_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A LLaMA of random weights that reads bytes."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(1)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=len(byte_tokenizer),
        max_position_embeddings=512,
        initializer_range=0.3,
        bos_token_id=byte_tokenizer.bos_token_id,
        eos_token_id=byte_tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    byte_tokenizer.chat_template = shipped_templates()["vicuna-v1.1"]
    byte_tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def engine(model: str) -> TransformersEngine:
    return TransformersEngine(model, None, SETTINGS, SAMPLING)


def request(text: str, seed: int) -> Request:
    return Request(messages=(Message("user", text),), seed=seed)


def test_a_completion_belongs_to_its_request(engine: TransformersEngine) -> None:
    requests = [request("boat " * (1 + i % 4), i) for i in range(8)]
    first = engine.generate(requests)
    assert engine.generate(requests[::-1])[::-1] == first
    assert [engine.generate([r])[0] for r in requests] == first
    assert len({c.text for c in first}) > 4
    assert [c.text for c in engine.generate([request("boat", 1), request("boat", 2)])] != [first[0].text] * 2


def test_ends_are_noted(model: str) -> None:
    free = TransformersEngine(model, None, SETTINGS, SamplingSettings(max_tokens=60, stop=("\x00",)))
    stopped = TransformersEngine(model, None, SETTINGS, SamplingSettings(max_tokens=60, stop=("e",)))
    requests = [request("boat", seed) for seed in range(12)]
    long, short = free.generate(requests), stopped.generate(requests)
    assert {c.finish_reason for c in long} <= {"stop", "length"}
    for whole, cut in zip(long, short, strict=True):
        assert "e" not in cut.text
        assert whole.text.startswith(cut.text)
        assert cut.finish_reason == ("stop" if "e" in whole.text or whole.finish_reason == "stop" else "length")
        assert (cut.num_tokens == 60) >= (cut.finish_reason == "length")
    assert any("e" in c.text for c in long)


def test_what_does_not_fit_is_refused_alone(engine: TransformersEngine) -> None:
    good, long, bad = engine.generate([request("boat", 1), request("very " * 300, 2), request("a</s>b", 3)])
    assert good == engine.generate([request("boat", 1)])[0]
    assert "more than the 244 that fit" in long.error
    assert "control token" in bad.error
    assert isinstance(good, Completion)
    assert not good.error


def test_tokens_are_drawn_as_the_sampling_says() -> None:
    sampling = SamplingSettings(temperature=0.5, top_p=0.9)
    logits = torch.log(torch.tensor([0.5, 0.1, 0.3, 0.06, 0.04])) * sampling.temperature
    count = 4000
    drawn = SeededDraw(range(count), sampling)(torch.zeros(count, 1, dtype=torch.long), logits.expand(count, -1))
    assert torch.isfinite(drawn).sum() == count
    share = torch.bincount(drawn.argmax(dim=-1), minlength=5) / count
    torch.testing.assert_close(share, torch.tensor([5, 1, 3, 0, 0]) / 9, atol=0.03, rtol=0)


def test_a_model_that_cannot_be_loaded_ends_in_one_line(model: str, tmp_path: Path) -> None:
    for path in Path(model).iterdir():
        data = path.read_bytes()
        (tmp_path / path.name).write_bytes(data[:1000] if path.suffix == ".safetensors" else data)
    with pytest.raises(UserError, match="transformers cannot load the model"):
        TransformersEngine(str(tmp_path), None, SETTINGS, SAMPLING)
