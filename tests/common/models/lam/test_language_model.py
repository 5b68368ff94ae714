from pathlib import Path

import pytest
import torch
from encoder_decoders import WORDS
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.modeling_outputs import BaseModelOutput

from sclmkb.common.errors import UserError
from sclmkb.common.models.lam.language_model import LanguageModel, load_language_model, make_vocabulary
from sclmkb.common.models.lam.settings import LanguageModelSettings

TEXTS = ["red", "it is green", "yes the color"]


def loaded(folder: Path, **more: object) -> LanguageModel:
    settings = LanguageModelSettings(name=str(folder), **more)
    return load_language_model(settings, make_vocabulary(settings, [], TEXTS)).eval()


def test_the_cut_model_gives_the_logits_of_the_whole_one(encoder_decoder: Path) -> None:
    """Encoder, decoder and loss are those of transformers, on the tokens that are kept."""
    cut, whole = loaded(encoder_decoder), AutoModelForSeq2SeqLM.from_pretrained(encoder_decoder).eval()
    tokenizer = AutoTokenizer.from_pretrained(encoder_decoder)
    prompt = tokenizer("what color is this", return_tensors="pt").input_ids
    numbers, real = cut.vocabulary.read(["what color is this"], 16)
    assert torch.equal(numbers, prompt)
    with torch.no_grad():
        fused = cut.fuse(cut.embed(numbers), real)
        torch.testing.assert_close(fused, whole.get_encoder()(prompt).last_hidden_state)
        labels = cut.vocabulary.numbers(["it is green"], 16)
        kept = torch.tensor(list(cut.vocabulary.entries))
        given = BaseModelOutput(last_hidden_state=fused)
        logits = whole(encoder_outputs=given, labels=kept[labels]).logits[..., kept]
        wanted = torch.nn.functional.cross_entropy(logits[0], labels[0])
        torch.testing.assert_close(cut.loss(fused, real, labels)[0], wanted)


def test_texts_are_written_as_transformers_writes_them(encoder_decoder: Path) -> None:
    """Step by step with a cache, in numbers of the cut vocabulary, which here has all words."""
    settings = LanguageModelSettings(name=str(encoder_decoder))
    cut = load_language_model(settings, make_vocabulary(settings, [], [" ".join(WORDS[4:])])).eval()
    whole = AutoModelForSeq2SeqLM.from_pretrained(encoder_decoder).eval()
    memory = 5 * torch.randn(3, 4, cut.width, generator=torch.Generator().manual_seed(1))
    written = cut.generate(memory, torch.ones(3, 4, dtype=torch.bool), 6)
    given = BaseModelOutput(last_hidden_state=memory)
    wanted = whole.generate(encoder_outputs=given, max_new_tokens=6, do_sample=False, num_beams=1, suppress_tokens=[3])
    kept = torch.tensor(list(cut.vocabulary.entries))
    assert torch.equal(kept[written], wanted[:, 1:])


def test_a_model_starts_from_its_first_layers(encoder_decoder: Path) -> None:
    cut, whole = loaded(encoder_decoder, layers=1), loaded(encoder_decoder)
    sizes = [sum(p.numel() for p in part.parameters()) for part in (cut.encoder, whole.encoder)]
    assert sizes[0] < sizes[1]
    known = whole.encoder.state_dict()
    assert all(torch.equal(known[name], tensor) for name, tensor in cut.encoder.state_dict().items())
    with pytest.raises(UserError, match="2 layers"):
        loaded(encoder_decoder, layers=3)


def test_the_control_has_the_same_shape_and_other_weights(encoder_decoder: Path) -> None:
    torch.manual_seed(7)  # the folder's own weights were drawn with another seed
    drawn, own = loaded(encoder_decoder, random_weights=True), loaded(encoder_decoder)
    assert {n: p.shape for n, p in drawn.named_parameters()} == {n: p.shape for n, p in own.named_parameters()}
    pairs = zip(drawn.encoder.parameters(), own.encoder.parameters(), strict=True)
    assert not any(torch.equal(p, q) for p, q in pairs if p.dim() > 1)
    assert drawn.head.weight.std() < 0.5
