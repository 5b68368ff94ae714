from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from sclmkb.common.artifacts.checkpoints import save_checkpoint
from sclmkb.common.errors import UserError
from sclmkb.common.models.encoders.text import TextSettings
from sclmkb.common.models.encoders.tuned_text import CaptionEncoder
from sclmkb.common.models.transceiver import Transceiver, TransceiverSettings, build_transceiver
from sclmkb.generate.filter.encoder import JsccTextEncoder, TextEncoder, load_text_encoder
from sclmkb.generate.filter.filter import FilterSettings, encoder_fingerprint
from sclmkb.train.engine.checkpoint import trained_tensors

TEXTS = ["woman climbing with light skin tone", "woman climbing with dark skin tone", "a boat on the sea", ""]


def write_checkpoint(root: Path, seed: int, texts: torch.Tensor) -> Path:
    torch.manual_seed(seed)
    settings = TransceiverSettings(num_streams=2, num_uses=6, hidden_width=16, embedding_width=8, text_width=384)
    model = Transceiver(settings)
    model.encoder.standardise(texts)
    saved = {"text": {"name": "minilm"}, "model": settings.model_dump(mode="json")}
    save_checkpoint(root, kind="jscc", settings=saved, tensors=model.state_dict())
    return root


@torch.no_grad()
def transmitted(encoder: nn.Module, embedded: torch.Tensor) -> torch.Tensor:
    """Return the symbols of texts at the fixed channel, ``[4, 2, 6]``."""
    snr_db, gain_db = torch.full((4,), 10.0), 10 * torch.log10(torch.tensor(256 / 2**2))
    return encoder(embedded, snr_db, (snr_db + gain_db)[:, None].expand(-1, 2))


def test_features_of_a_checkpoint_are_its_transmitted_symbols(minilm: TextEncoder, tmp_path: Path) -> None:
    embedded = minilm.encode(TEXTS)
    folder = write_checkpoint(tmp_path / "jscc", 0, embedded)
    encoder = load_text_encoder(f"jscc:{folder}")
    features = encoder.encode(TEXTS)
    assert features.shape == (4, 2 * 2 * 6)
    assert torch.allclose(features.norm(dim=-1), torch.ones(4), atol=1e-5)
    torch.manual_seed(0)
    model = Transceiver(TransceiverSettings(num_streams=2, num_uses=6, hidden_width=16, embedding_width=8)).encoder
    model.standardise(embedded)
    f = transmitted(model, embedded)
    cosines = torch.einsum("akm,bkm->ab", f, f.conj()).real / 6  # a power of 1 in each of 6 uses
    assert torch.allclose(features @ features.T, cosines, atol=1e-4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="of CPUs")
@pytest.mark.parametrize(("fast", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_precision_auto_asks_the_processor(
    minilm: TextEncoder, fast: bool, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": fast})
    auto, same = (load_text_encoder("minilm", name).encode(TEXTS) for name in ("auto", dtype))
    assert torch.equal(auto, same)
    assert torch.equal(auto, minilm.encode(TEXTS)) is not fast


@pytest.mark.parametrize("tune", ["layers", "lora"])
def test_a_checkpoint_with_tuned_text_layers_encodes_with_them(tune: str, tiny_bert: Path, tmp_path: Path) -> None:
    text = TextSettings.model_validate({"name": str(tiny_bert), "tune": tune, "num_layers": 1})
    settings = TransceiverSettings(num_streams=2, num_uses=6, hidden_width=16, embedding_width=8)
    torch.manual_seed(0)
    model = build_transceiver(settings, text)
    with torch.no_grad():
        for parameter in model.pretrained_parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    saved = {"text": text.model_dump(mode="json"), "model": settings.model_dump(mode="json")}
    save_checkpoint(tmp_path, kind="jscc", settings=saved, tensors=trained_tensors(model))
    features = load_text_encoder(f"jscc:{tmp_path}").encode(TEXTS)
    f = transmitted(model.encoder, CaptionEncoder(text, model.text).encode(TEXTS))
    assert torch.allclose(features, nn.functional.normalize(torch.view_as_real(f).flatten(1), dim=-1), atol=1e-5)
    untouched = JsccTextEncoder(load_text_encoder(str(tiny_bert)), model.encoder).encode(TEXTS)
    assert (features - untouched).abs().max() > 1e-3


def test_a_caption_has_the_same_features_in_every_batch(minilm: TextEncoder, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "jscc", 0, minilm.encode(TEXTS))
    for encoder in (minilm, load_text_encoder(f"jscc:{folder}")):
        alone = torch.cat([encoder.encode([text]) for text in TEXTS])
        assert torch.allclose(alone, encoder.encode(TEXTS), atol=1e-5)


def test_the_fingerprint_is_that_of_the_weights(minilm: TextEncoder, tmp_path: Path) -> None:
    embedded = minilm.encode(TEXTS)
    names = [f"jscc:{write_checkpoint(tmp_path / str(i), seed, embedded)}" for i, seed in enumerate((0, 0, 1))]
    prints = [encoder_fingerprint(name) for name in (*names, "minilm")]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3
    assert FilterSettings(encoder=names[2]).inputs() == {"encoder": prints[2]}


@pytest.mark.parametrize("use", [load_text_encoder, encoder_fingerprint])
def test_what_is_no_encoder_is_named(use: Callable[[str], object], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sclmkb-train jscc"):
        use(f"jscc:{tmp_path}")
    with pytest.raises(UserError, match="nothing-here"):
        use("./nothing-here")


def test_own_files_are_part_of_the_inputs(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("banana\n")
    settings = FilterSettings.model_validate({"rules": {"word_list": file}})
    before = settings.inputs()
    file.write_text("kumquat\n")
    assert set(before) == {"encoder", "word_list"}
    assert settings.inputs()["word_list"] != before["word_list"]
    file.unlink()
    with pytest.raises(UserError, match=r"words\.txt"):
        settings.inputs()
