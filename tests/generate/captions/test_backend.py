from pathlib import Path

import pytest

from sclmkb.common.errors import UserError
from sclmkb.generate.captions.backend import plan_engine
from sclmkb.generate.captions.sdg import SdgSettings
from sclmkb.generate.engines.chat import ChatTokenizer
from sclmkb.generate.engines.template import TemplateEngine


@pytest.fixture
def model(byte_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SCLMKB_CACHE", str(tmp_path / "cache"))
    return byte_model


def chosen(**values: object) -> SdgSettings:
    return SdgSettings.model_validate(values)


def test_model_and_chat_template_are_inputs_of_the_plan(model: str) -> None:
    for engine in ("vllm", "transformers"):
        _, own, versions = plan_engine(chosen(engine=engine, model=model))
        _, other, _ = plan_engine(chosen(engine=engine, model=model, chat_template="llama-3"))
        assert own["model"] == other["model"]
        assert own["chat_template"] != other["chat_template"]
        assert "torch" in versions
    (Path(model) / "generation_config.json").write_text("{}")
    assert plan_engine(chosen(model=model))[1]["model"] != own["model"]


def test_a_tokenizer_is_loaded_once_to_plan(model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    template = tmp_path / "own.jinja"
    template.write_text("{{ messages[0]['content'] }}")
    settings = chosen(model=model), chosen(model=model, chat_template=str(template))
    first = [plan_engine(s)[1] for s in settings]
    load, loaded = ChatTokenizer.load, []
    monkeypatch.setattr(ChatTokenizer, "load", lambda *given: loaded.append(given) or load(*given))
    assert [plan_engine(s)[1] for s in settings] == first
    assert not loaded
    template.write_text("{{ messages[0]['content'] }}!")
    assert plan_engine(settings[1])[1]["chat_template"] != first[1]["chat_template"]
    (Path(model) / "generation_config.json").write_text("{}")
    assert plan_engine(settings[0])[1]["chat_template"] == first[0]["chat_template"]
    assert len(loaded) == 2
    template.write_text("{{ messages[0")
    for _ in range(2):
        with pytest.raises(UserError, match="chat template"):
            plan_engine(settings[1])


def test_engines_without_a_model_here() -> None:
    _, inputs, versions = plan_engine(chosen(engine="endpoint", model="owner/model"))
    assert (inputs, versions) == ({"model": "owner/model"}, ())
    with pytest.raises(UserError, match="applies its own chat template"):
        plan_engine(chosen(engine="endpoint", model="owner/model", chat_template="llama-2"))
    build, inputs, _ = plan_engine(chosen(engine="template"))
    assert isinstance(build(), TemplateEngine)
    assert inputs == {}


@pytest.mark.parametrize(
    ("counts", "values"),
    [
        (False, {"endpoint": {"base_url": "http://other:1/v1", "concurrency": 3, "timeout_s": 1}}),
        (False, {"watch": {"silence_timeout_s": 1}}),
        (False, {"transformers": {"device": "cpu", "batch_size": 2}}),
        (False, {"vllm": {"gpu_memory_utilization": 0.5}}),
        (True, {"sampling": {"temperature": 0.5}}),
        (True, {"vllm": {"data_parallel_size": 2}}),
        (True, {"transformers": {"dtype": "bfloat16"}}),
        (True, {"endpoint": {"seed_bits": 31}}),
        (True, {"chat_template": "llama-2"}),
    ],
)
def test_what_changes_the_text_counts_and_what_changes_the_speed_does_not(
    counts: bool, values: dict[str, object]
) -> None:
    assert (chosen(**values).fingerprint_fields() != chosen().fingerprint_fields()) is counts
