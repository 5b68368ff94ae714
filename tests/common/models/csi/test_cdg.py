import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from csi_paths import NARROW, noisy, paths
from tiny import generator

from sclmkb.common.csi.tensors import add_pilot_noise, normalise_power
from sclmkb.common.errors import UserError
from sclmkb.common.metrics import nmse
from sclmkb.common.models.csi.base import FittedPredictor
from sclmkb.common.models.csi.cdg.features import BeamStatistics, future_features
from sclmkb.common.models.csi.cdg.layers import SpectrumHead
from sclmkb.common.models.csi.cdg.model import Cdg
from sclmkb.common.models.csi.cdg.settings import CdgSettings
from sclmkb.common.models.csi.persistence import Persistence
from sclmkb.common.models.csi.zoo import check_shape, load_predictor, save_predictor

SHAPE = replace(NARROW, num_tx=4)
Fitted = Callable[..., Cdg]


def rays(drops: int) -> torch.Tensor:
    return paths(drops, SHAPE)


@pytest.fixture
def inputs() -> torch.Tensor:
    return add_pilot_noise(rays(3)[:, :16], torch.tensor([10.0, 15.0, 20.0]), generator(4))


@pytest.fixture
def fitted(build: Callable[..., FittedPredictor]) -> Fitted:
    """Return what builds a model, with last layers that have left zero as in training, unless ``trained`` is false."""

    def make(*, trained: bool = True, **options: Any) -> Cdg:
        model = build("cdg", SHAPE, lm="llama", **options)
        assert isinstance(model, Cdg)
        draw = generator(5)
        for head in filter(None, (model.head, model.refiner)) if trained else ():
            head.last.weight.data = 0.05 * torch.randn(head.last.weight.shape, generator=draw)
        return model

    return make


@pytest.mark.parametrize("head", ["soft_token", "direct"])
@pytest.mark.parametrize("backbone", ["pretrained", "random", "none"])
def test_training_starts_at_a_filter_of_one_fixed_spectrum(
    fitted: Fitted, inputs: torch.Tensor, head: str, backbone: str
) -> None:
    model = fitted(head=head, backbone=backbone, trained=False)
    output = model(inputs)
    assert torch.allclose(output.predicted, output.stages[0])
    assert output.logits.shape == (3, 6, 12 if head == "soft_token" else 0)
    future = rays(3)[:, 16:]
    assert (nmse(future, model.predict(inputs, 4)) < nmse(future, Persistence().predict(inputs, 4))).all()
    model.losses(inputs, future, torch.ones(3), torch.arange(3))["loss"].backward()
    for spectrum in (model.head, model.refiner):
        assert spectrum is not None
        assert spectrum.last.weight.grad is not None
        assert spectrum.last.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("num_refinements", [0, 1, 2])
def test_a_shift_of_all_doppler_frequencies_shifts_the_prediction(
    fitted: Fitted, inputs: torch.Tensor, num_refinements: int
) -> None:
    model = fitted(num_refinements=num_refinements)
    assert len(model(inputs).stages) == num_refinements
    turn = torch.exp(0.9j * torch.arange(20)).view(20, 1, 1)
    predicted = model.predict(inputs, 4)
    assert torch.allclose(model.predict(inputs * turn[:16], 4), predicted * turn[16:], atol=2e-3)


def test_an_unmoving_channel_stays(fitted: Fitted) -> None:
    history, future = noisy(rays(4)[:, :1].expand(-1, 20, -1, -1), SHAPE, 20.0)
    assert (nmse(future, fitted(trained=False).predict(history, 4)) < 0.12).all()


def test_of_wideband_csi_the_strongest_rows_are_predicted(fitted: Fitted) -> None:
    model = fitted(max_beams=3, trained=False)
    left, right = torch.randn(2, 4, dtype=torch.complex64), torch.randn(2, 4, dtype=torch.complex64)
    h = torch.einsum("bi,bj->bij", left, right)[:, None].expand(-1, 20, -1, -1)  # of rank 1: one beam holds it
    history, future = noisy(h, SHAPE, 30.0)
    assert (nmse(future, model.predict(history, 4)) < 0.05).all()


def test_a_unitary_change_of_the_antennas_changes_the_prediction_along(fitted: Fitted, inputs: torch.Tensor) -> None:
    model = fitted()
    q = torch.linalg.qr(torch.randn(4, 4, dtype=torch.complex64)).Q
    before = model.predict(inputs, 4)
    assert torch.allclose(model.predict(inputs @ q, 4), before @ q, atol=1e-3)
    assert not torch.allclose(model.predict(q @ inputs, 4), q @ before, atol=1e-2), "another array has other beams"
    model.array.copy_(torch.view_as_real(q @ torch.view_as_complex(model.array)))
    assert torch.allclose(model.predict(q @ inputs, 4), q @ before, atol=1e-3)
    free = fitted(array_weight=0.0)
    assert torch.allclose(free.predict(q @ inputs, 4), q @ free.predict(inputs, 4), atol=1e-3)


@pytest.mark.parametrize("options", [{}, {"cross_attention": False}, {"head": "direct"},
                                     {"head": "direct", "cross_attention": False}])  # fmt: skip
def test_all_trained_parameters_and_no_others_get_gradients_and_the_backbone_matters(
    fitted: Fitted, inputs: torch.Tensor, options: dict[str, Any]
) -> None:
    model = fitted(**options)
    output = model(inputs)
    model.losses(inputs, rays(3)[:, 16:], torch.ones(3), torch.arange(3))["loss"].backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad != (p.grad is not None)] == []
    with torch.no_grad():
        for p in model.backbone.parameters():
            assert not p.requires_grad
            p.mul_(-0.5)
    assert not torch.allclose(model(inputs).predicted, output.predicted, atol=1e-6)


def test_statistics_ignore_phase_and_know_the_doppler() -> None:
    h = normalise_power(rays(3)[:, :16])[0]
    noise = torch.full((3,), 1e-3)
    found = BeamStatistics.of(h, noise, 5)
    phases = torch.exp(2j * torch.pi * torch.rand(3, 1, 4, 4))
    turned = BeamStatistics.of(h * phases, noise, 5)
    for name in ("beam", "row", "column", "whole", "beam_snr", "centre"):
        assert torch.allclose(getattr(found, name), getattr(turned, name), atol=1e-3), name
    tone = torch.exp(0.4j * torch.arange(16)).view(1, 16, 1, 1).expand(1, 16, 4, 4).to(torch.complex64)
    tones = BeamStatistics.of(tone, torch.tensor([1e-6]), 3)
    assert torch.allclose(tones.centre, torch.tensor(0.4 / (2 * torch.pi)), atol=1e-5)
    assert torch.allclose(tones.whole[0], torch.exp(0.4j * torch.arange(1, 4)), atol=1e-4)
    assert tones.whole_snr.item() == pytest.approx(6, abs=0.1)
    around = tones.around_the_centre()
    assert torch.allclose(around[..., :24].unflatten(-1, (12, 2)), torch.tensor([1.0, 0.0]), atol=1e-4)
    assert around.shape[-1] == 8 * 3 + 4
    silent = BeamStatistics.of(torch.zeros(1, 16, 4, 4, dtype=torch.complex64), torch.tensor([0.1]), 3)
    assert torch.isfinite(silent.around_the_centre()).all()
    assert all(torch.isfinite(f).all() for f in silent.of_directions())


def test_targets_come_from_the_future_alone_and_tell_dopplers_apart() -> None:
    tones = torch.stack([torch.exp(1j * w * torch.arange(4)) for w in (0.1, 0.1, -0.3)])
    features = future_features(tones[..., None, None] * torch.ones(4, 4), 2)
    assert features.shape == (3, 4, 7)
    assert torch.allclose(features[0], features[1], atol=1e-5)
    assert (features[0] - features[2]).norm() > 0.5


def test_spectrum_head_equals_the_layer_on_expanded_features() -> None:
    layer = SpectrumHead(beam=3, row=4, column=4, hidden=5, num_words=7)
    beam, row, column = torch.randn(2, 6, 7, 3), torch.randn(2, 6, 4), torch.randn(2, 7, 4)
    assert layer.column is not None
    weight = torch.cat([layer.beam.weight, layer.row.weight, layer.column.weight], 1)
    expanded = torch.cat([beam, row.unsqueeze(2).expand(2, 6, 7, 4), column.unsqueeze(1).expand(2, 6, 7, 4)], -1)
    gelu = torch.nn.functional.gelu
    expected = gelu(layer.second(gelu(expanded @ weight.T + layer.beam.bias)))
    hidden, raw = layer(beam, row, column)
    assert torch.allclose(hidden, expected, atol=1e-5)
    assert raw.shape == (2, 6, 7, 9)


@pytest.fixture
def saved(fitted: Fitted, tmp_path: Path) -> Cdg:
    """Return a model whose checkpoint is in the folder ``cdg``."""
    model = fitted(backbone="random")
    tensors = {n: t for n, t in model.state_dict().items() if not n.startswith("backbone")}
    settings = {"model": model.settings.fingerprint_fields()}
    save_predictor(tmp_path / "cdg", model, seed=0, settings=settings, tensors=tensors, info={})
    return model


def test_checkpoint_brings_the_model_back_and_holds_no_language_model(
    saved: Cdg, tmp_path: Path, inputs: torch.Tensor
) -> None:
    loaded, checkpoint = load_predictor(tmp_path / "cdg")
    assert torch.equal(loaded.predict(inputs, 4), saved.predict(inputs, 4))
    assert not any("backbone" in name for name in checkpoint.tensors)
    check_shape(checkpoint, SHAPE, tmp_path / "csi")
    with pytest.raises(UserError, match=r"num_history = 16, the CSI in .* has 12"):
        check_shape(checkpoint, replace(SHAPE, num_history=12), tmp_path / "csi")


def test_bad_checkpoints_are_user_errors(saved: Cdg, tmp_path: Path) -> None:
    root = tmp_path / "cdg"
    with pytest.raises(UserError, match="no cdg checkpoint"):
        load_predictor(tmp_path)
    config = json.loads((root / "config.json").read_text())
    model = config["settings"]["model"]
    for changes, message in (
        ({"settings": {"model": model | {"hidden": 48}}}, "does not fit the model"),
        ({"language_model": {"name": "llama", "fingerprint": "0"}}, "trained with another 'llama'"),
        ({"settings": {"model": model | {"language_model": str(tmp_path / "gone")}}}, "no readable folder"),
        ({"settings": model}, "written by another version"),
        ({"shape": {}}, r"train .*again"),
    ):
        (root / "config.json").write_text(json.dumps(config | changes))
        with pytest.raises(UserError, match=message):
            load_predictor(root)
    (root / "config.json").write_text(json.dumps(config))
    (root / "model.safetensors").write_bytes(b"12345678")
    with pytest.raises(UserError, match="corrupt checkpoint"):
        load_predictor(root)


@pytest.mark.parametrize(
    ("options", "message"), [({"width": 20}, "multiple of num_heads"), ({"num_doppler_words": 20}, "odd")]
)
def test_settings_are_checked(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CdgSettings.model_validate(options)
