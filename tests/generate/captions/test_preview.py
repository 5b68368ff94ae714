from pathlib import Path

import pytest
from commands import must_run
from sdg_fakes import write_corpus

from sclmkb.common.errors import UserError
from sclmkb.generate.captions.preview import Preview, make_preview, preview_lines
from sclmkb.generate.captions.sdg import SdgSettings
from sclmkb.generate.prompts import load_prompt


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    texts = ["a boat", "a bridge</s>", "a lorry " + "far " * 300 + "away", "a tower", "a lantern"]
    return write_corpus(tmp_path / "corpus", 5, texts)


def settings(model: str, **values: object) -> SdgSettings:
    return SdgSettings.model_validate({"model": model, "vllm": {"max_model_len": 1100}, **values})


def test_prompts_are_shown_as_the_engine_reads_them(byte_model: str, corpus: Path) -> None:
    preview = make_preview(settings(byte_model), corpus, 2)
    prompt = load_prompt("rewrite-1")
    assert len(preview.prompts) == 2
    assert preview.prompts[0].startswith(f"<s>{prompt.system} USER: ")
    assert preview.prompts[0].endswith("USER: Caption: a boat ASSISTANT:")
    assert len(preview.prompts[0]) - len("<s></s></s>") + 3 == preview.prompt_lengths[0]  # of bytes, but for </s>
    assert preview.common_length == preview.prompt_lengths[0] - len("a boat ASSISTANT:")
    assert len(preview.refusals) == 2, "what the engine would refuse is told"
    assert "control token" in preview.refusals[0]
    assert "more than the 1060 that fit" in preview.refusals[1]
    assert any("refused: 2 of 5 captions" in line for line in preview_lines(preview))
    with pytest.raises(UserError, match="no captions in split 'test'"):
        make_preview(settings(byte_model, splits=["test"]), corpus, 1)


def test_a_server_needs_no_tokenizer_here(corpus: Path) -> None:
    preview = make_preview(settings("owner/model", engine="endpoint"), corpus, 1)
    assert preview.prompts[0].endswith("user: Caption: a boat")
    assert "estimate" in preview.tokenizer


def test_the_sums_are_right() -> None:
    preview = Preview(
        prompts=[], prompt_lengths=[90, 110], answer_lengths=[10, 30], common_length=80, num_rows=1000,
        num_samples=2, max_attempts=3, refusals=[], tokenizer="t",
    )  # fmt: skip
    text = "\n".join(preview_lines(preview, rate=100, prompt_price=0.5, answer_price=2))
    assert "2,000 samples, 200,000 prompt tokens, 40,000 generated, 0:06:40, cost 0.18" in text
    assert "6,000 samples, 600,000 prompt tokens, 120,000 generated, 0:20:00, cost 0.54" in text
    assert "at most 80%" in text
    assert "--rate" not in text
    assert "cost" not in "\n".join(preview_lines(preview))


def test_the_command_prints_it(byte_model: str, corpus: Path) -> None:
    shown = must_run(f"sclmkb-gen preview -n 1 --corpus {corpus} --model {byte_model}").out
    assert "--- prompt 1 of 1 ---" in shown
    assert "5 captions x 2 samples: 10 samples" in shown
