from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sclmkb.common.errors import UserError
from sclmkb.common.models.encoders.sentence import SentenceEncoder, embed_texts
from sclmkb.common.models.encoders.text import TextBatch, TextSettings, text_fingerprint, text_width
from sclmkb.common.models.encoders.tuned_text import CaptionEncoder, TunedTextEncoder, hidden_states
from sclmkb.train.engine.checkpoint import trained_tensors

TEXTS = ["a red cat", "two dogs run over a field", "x", "the man waves"]
FAMILIES = ["tiny_bert", "tiny_clip"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCLMKB_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=FAMILIES)
def folder(request: pytest.FixtureRequest) -> str:
    path: Path = request.getfixturevalue(request.param)
    return str(path)


def as_transformers_has_it(folder: str, text: str, pooling: str) -> Tensor:
    """Return the unit-length embedding of one text, by the library's own words."""
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(folder)([text], truncation=True, return_tensors="pt")
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        if "clip" in folder:
            output = model.text_model(input_ids=tokens["input_ids"])
            own = model.text_projection(output.pooler_output)
        else:
            output = model(input_ids=tokens["input_ids"])
            own = output.pooler_output
    vector = {"mean": output.last_hidden_state.mean(1), "cls": output.last_hidden_state[:, 0], "model": own}[pooling]
    return nn.functional.normalize(vector, dim=-1)[0]


@pytest.mark.parametrize("pooling", ["mean", "cls", "model"])
def test_frozen_embeddings_are_those_of_the_model_whatever_stands_beside_a_text(folder: str, pooling: str) -> None:
    settings = TextSettings(name=folder, pooling=pooling)
    if "clip" in folder and pooling == "cls":
        with pytest.raises(UserError, match="use pooling=model or mean"):
            embed_texts(TEXTS, settings)
        return
    embedded = embed_texts(TEXTS, settings)
    assert embedded.shape == (len(TEXTS), text_width(settings))
    expected = torch.stack([as_transformers_has_it(folder, text, pooling) for text in TEXTS])
    torch.testing.assert_close(embedded, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("pooling", "tune", "num_layers"),
    [("mean", "layers", 1), ("mean", "lora", 3), ("model", "layers", 3), ("model", "lora", 2)],
)
def test_before_training_a_tuned_encoder_gives_the_frozen_embeddings(
    folder: str, pooling: str, tune: str, num_layers: int
) -> None:
    settings = TextSettings(name=folder, pooling=pooling, tune=tune, num_layers=num_layers)
    tuned = TunedTextEncoder(settings)
    embedded = tuned.encode(hidden_states(TEXTS, settings))
    assert embedded.shape == (len(TEXTS), tuned.width)
    frozen = embed_texts(TEXTS, settings)
    cosine = (embedded * frozen).sum(1)
    assert cosine.min() > 0.999  # what is below the tuned layers is rounded to bfloat16
    assert (frozen @ frozen.T)[0, 1:].max() < 0.999
    torch.testing.assert_close(CaptionEncoder(settings, tuned).encode(TEXTS), embedded, atol=1e-4, rtol=0)


def test_hidden_states_are_computed_once_and_taken_in_any_order(tiny_bert: Path, tmp_path: Path) -> None:
    settings = TextSettings(name=str(tiny_bert), tune="layers", num_layers=1)
    first = hidden_states(TEXTS, settings)
    (kept,) = (tmp_path / "cache" / "hidden").glob("*.bf16")
    before = kept.stat().st_mtime_ns
    states = hidden_states(TEXTS, settings)
    assert kept.stat().st_mtime_ns == before
    assert len(states) == len(TEXTS)
    values, length = states.take(torch.tensor([3, 0]))
    assert length.tolist() == [states.length[3], states.length[0]]
    assert values.shape[:2] == (2, length.max())
    assert values[1, length[1] :].abs().max() == 0
    torch.testing.assert_close(values[1:, : length[1]], first.take(torch.tensor([0])).values, atol=0, rtol=0)


def test_no_texts_have_no_states(tiny_bert: Path) -> None:
    settings = TextSettings(name=str(tiny_bert), tune="layers")
    states = hidden_states([], settings)
    assert TunedTextEncoder(settings).encode(states).shape == (0, 32)


def test_what_stands_behind_a_text_changes_nothing(folder: str) -> None:
    settings = TextSettings(name=folder, pooling="model", tune="layers", num_layers=2)
    tuned, states = TunedTextEncoder(settings), hidden_states(TEXTS, settings)
    values, length = states.take(torch.arange(len(TEXTS)))
    longer = torch.cat([values, torch.randn(len(TEXTS), 3, values.shape[2])], dim=1)
    torch.testing.assert_close(tuned(TextBatch(longer, length)), tuned(TextBatch(values, length)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("tune", ["layers", "lora"])
def test_only_what_is_tuned_gets_gradients_and_is_kept(folder: str, tune: str) -> None:
    settings = TextSettings(name=folder, tune=tune, num_layers=2, lora_rank=4)
    tuned = TunedTextEncoder(settings).train()
    assert not any(module.training for module in tuned.model.modules())
    states = hidden_states(TEXTS, settings)
    (tuned(states.take(torch.arange(len(TEXTS)))) * torch.randn(len(TEXTS), tuned.width)).sum().backward()
    kept = trained_tensors(tuned)
    given = {name for name, p in tuned.named_parameters() if p.grad is not None}
    assert given <= set(kept)
    parameters = {name for name, p in tuned.named_parameters() if p.requires_grad}
    assert parameters
    if tune == "lora":
        assert all("lora_" in name for name in parameters)
        assert {p.shape[0] for name, p in tuned.named_parameters() if "lora_A" in name} == {4}
    else:
        assert all(p.requires_grad for name, p in tuned.named_parameters() if ".layer." in name or ".layers." in name)
    whole = sum(p.numel() for p in SentenceEncoder(settings).parameters())
    assert sum(t.numel() for t in kept.values()) < 0.9 * whole


def test_weights_of_one_shape_are_told_apart(tiny_bert: Path, tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    other = tmp_path / "other"
    model = AutoModel.from_pretrained(tiny_bert)
    model.encoder.layer[2].output.dense.weight.data[0] += 0.5
    model.save_pretrained(other)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(other)
    settings = [TextSettings(name=str(path)) for path in (tiny_bert, other)]
    assert text_fingerprint(settings[0]) != text_fingerprint(settings[1])
    one, two = (embed_texts(TEXTS, s) for s in settings)
    assert (one - two).abs().max() > 1e-3


def test_the_embedded_encoder_can_be_tuned() -> None:
    settings = TextSettings(tune="layers", num_layers=2)
    tuned = TunedTextEncoder(settings)
    embedded = tuned.encode(hidden_states(TEXTS, settings))
    assert (embedded * embed_texts(TEXTS, settings)).sum(1).min() > 0.999
    assert sum(t.numel() for t in trained_tensors(tuned).values()) < 4e6


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"name": "no/such-model-here"}, "cannot load the text encoder 'no/such-model-here'"),
        ({"name": "nowhere"}, "is no readable folder"),
        ({"num_layers": 9}, "has 3 layers, num_layers = 9"),
    ],
)
def test_what_cannot_be_loaded_is_a_clear_error(tiny_bert: Path, update: dict[str, object], message: str) -> None:
    settings = TextSettings.model_validate({"name": str(tiny_bert), "tune": "layers", **update})
    for attempt in (lambda: TunedTextEncoder(settings), lambda: hidden_states(TEXTS, settings)):
        with pytest.raises(UserError, match=message):
            attempt()


def test_an_incomplete_model_is_refused_only_where_the_weights_are_needed(tiny_bert: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, BertModel

    folder = tmp_path / "no-pooler"
    BertModel.from_pretrained(tiny_bert, add_pooling_layer=False).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(folder)
    embed_texts(TEXTS, TextSettings(name=str(folder)))
    with pytest.raises(UserError, match="lacks the weights 'pooler"):
        embed_texts(TEXTS, TextSettings(name=str(folder), pooling="model"))
