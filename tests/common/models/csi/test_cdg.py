import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sclmkb.common.csi.sets import CsiShape
from sclmkb.common.csi.tensors import add_pilot_noise, normalise_power
from sclmkb.common.errors import UserError
from sclmkb.common.metrics import nmse
from sclmkb.common.models.csi.cdg.features import BeamStatistics, future_features
from sclmkb.common.models.csi.cdg.layers import SpectrumHead
from sclmkb.common.models.csi.cdg.model import Cdg
from sclmkb.common.models.csi.cdg.settings import CdgSettings
from sclmkb.common.models.csi.persistence import Persistence
from sclmkb.common.models.csi.zoo import build_predictor, check_shape, load_predictor, save_predictor

SHAPE = CsiShape(num_history=16, num_future=4, num_rx=4, num_tx=4)


def tiny(lm: Path, **changes: object) -> CdgSettings:
    values = {
        "language_model": str(lm), "num_layers": 1, "num_prototypes": 12, "num_words": 50, "num_directions": 3,
        "width": 16, "num_heads": 2, "hidden": 24, "num_doppler_words": 21, "num_lags": 6,
    }  # fmt: skip
    return CdgSettings.model_validate(values | changes)


def rays(drops: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(drops, 4, 4, dtype=torch.complex64, generator=generator) for _ in "ab")
    doppler = 0.3 * torch.cos(6.283 * torch.rand(drops, 4, generator=generator))
    turn = torch.exp(1j * doppler[:, None] * torch.arange(20)[:, None])
    return normalise_power(torch.einsum("btl,bli,blj->btij", turn, left, right))[0]


@pytest.fixture
def inputs() -> torch.Tensor:
    return add_pilot_noise(rays(3)[:, :16], torch.tensor([10.0, 15.0, 20.0]), torch.Generator().manual_seed(4))


def fitted(settings: CdgSettings, *, trained: bool = True) -> Cdg:
    model = build_predictor(settings, SHAPE, seed=0)
    assert isinstance(model, Cdg)
    if trained:  # as if: the last layers leave zero
        generator = torch.Generator().manual_seed(5)
        for head in filter(None, (model.head, model.refiner)):
            head.last.weight.data = 0.05 * torch.randn(head.last.weight.shape, generator=generator)
    return model


@pytest.mark.parametrize("head", ["soft_token", "direct"])
@pytest.mark.parametrize("backbone", ["pretrained", "random", "none"])
def test_training_starts_at_a_filter_of_one_fixed_spectrum(
    tiny_lm: Path, inputs: torch.Tensor, head: str, backbone: str
) -> None:
    model = fitted(tiny(tiny_lm, head=head, backbone=backbone), trained=False)
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
def test_prediction_turns_with_phase_and_scales(tiny_lm: Path, inputs: torch.Tensor, num_refinements: int) -> None:
    model = fitted(tiny(tiny_lm, num_refinements=num_refinements))
    turn = 3.0 * torch.exp(torch.tensor(1.1j))
    predicted = model.predict(inputs, 4)
    assert len(model(inputs).stages) == num_refinements
    assert torch.allclose(model.predict(turn * inputs, 4), turn * predicted, rtol=1e-3, atol=1e-3)


def test_a_shift_of_all_doppler_frequencies_shifts_the_prediction(tiny_lm: Path, inputs: torch.Tensor) -> None:
    model = fitted(tiny(tiny_lm))
    turn = torch.exp(0.9j * torch.arange(20)).view(20, 1, 1)
    predicted = model.predict(inputs, 4)
    assert torch.allclose(model.predict(inputs * turn[:16], 4), predicted * turn[16:], atol=2e-3)


def test_an_unmoving_channel_stays(tiny_lm: Path) -> None:
    h = rays(4)[:, :1].expand(-1, 20, -1, -1)
    history = add_pilot_noise(h[:, :16], torch.full((4,), 20.0), torch.Generator().manual_seed(1))
    assert (nmse(h[:, 16:], fitted(tiny(tiny_lm), trained=False).predict(history, 4)) < 0.12).all()


@pytest.mark.parametrize(("head", "cross_attention"), [("soft_token", False), ("direct", True), ("direct", False)])
def test_ablations_train_every_parameter_they_have(
    tiny_lm: Path, inputs: torch.Tensor, head: str, cross_attention: bool
) -> None:
    model = fitted(tiny(tiny_lm, head=head, cross_attention=cross_attention))
    model.losses(inputs, rays(3)[:, 16:], torch.ones(3), torch.arange(3))["loss"].backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_of_wideband_csi_the_strongest_rows_are_predicted(tiny_lm: Path) -> None:
    settings = tiny(tiny_lm, max_beams=3)
    model = build_predictor(settings, SHAPE, seed=0)
    left, right = torch.randn(2, 4, dtype=torch.complex64), torch.randn(2, 4, dtype=torch.complex64)
    h = torch.einsum("bi,bj->bij", left, right)[:, None].expand(-1, 20, -1, -1)  # of rank 1: one beam holds it
    history = add_pilot_noise(h[:, :16], torch.full((2,), 30.0), torch.Generator().manual_seed(1))
    assert (nmse(h[:, 16:], model.predict(history, 4)) < 0.05).all()
    with pytest.raises(ValueError, match="odd"):
        tiny(tiny_lm, num_doppler_words=20)


def test_each_sample_is_predicted_for_itself(tiny_lm: Path, inputs: torch.Tensor) -> None:
    model = fitted(tiny(tiny_lm))
    whole = model.predict(inputs, 4)
    assert torch.allclose(model.predict(inputs[1:2], 4), whole[1:2], atol=1e-4)


def test_a_unitary_change_of_the_antennas_changes_the_prediction_along(tiny_lm: Path, inputs: torch.Tensor) -> None:
    model = fitted(tiny(tiny_lm))
    q = torch.linalg.qr(torch.randn(4, 4, dtype=torch.complex64)).Q
    before = model.predict(inputs, 4)
    assert torch.allclose(model.predict(inputs @ q, 4), before @ q, atol=1e-3)
    assert not torch.allclose(model.predict(q @ inputs, 4), q @ before, atol=1e-2), "another array has other beams"
    model.array.copy_(torch.view_as_real(q @ torch.view_as_complex(model.array)))
    assert torch.allclose(model.predict(q @ inputs, 4), q @ before, atol=1e-3)
    free = fitted(tiny(tiny_lm, array_weight=0.0))
    assert torch.allclose(free.predict(q @ inputs, 4), q @ free.predict(inputs, 4), atol=1e-3)


def test_the_backbone_matters_and_only_trained_parameters_get_gradients(tiny_lm: Path, inputs: torch.Tensor) -> None:
    model = fitted(tiny(tiny_lm))
    output = model(inputs)
    model.losses(inputs, rays(3)[:, 16:], torch.ones(3), torch.arange(3))["loss"].backward()
    assert all(p.grad is None for p in model.backbone.parameters())
    missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []
    with torch.no_grad():
        for p in model.backbone.parameters():
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
    beams = tones[..., None, None] * torch.ones(4, 4)
    features = future_features(beams, 2)
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


def save(root: Path, model: Cdg) -> None:
    tensors = {n: t for n, t in model.state_dict().items() if not n.startswith("backbone")}
    save_predictor(root, model, seed=0, settings={"model": model.settings.fingerprint_fields()}, tensors=tensors)


def test_checkpoint_brings_the_model_back_and_holds_no_language_model(
    tiny_lm: Path, tmp_path: Path, inputs: torch.Tensor
) -> None:
    model = fitted(tiny(tiny_lm, backbone="random"))
    save(tmp_path / "cdg", model)
    loaded, checkpoint = load_predictor(tmp_path / "cdg")
    assert torch.equal(loaded.predict(inputs, 4), model.predict(inputs, 4))
    assert not any("backbone" in name for name in checkpoint.tensors)
    check_shape(checkpoint, SHAPE, tmp_path / "csi")
    with pytest.raises(UserError, match=r"num_history = 16, the CSI in .* has 12"):
        check_shape(checkpoint, replace(SHAPE, num_history=12), tmp_path / "csi")
    with pytest.raises(UserError, match=r"num_rx = 4, the CSI in .* has 8"):
        check_shape(checkpoint, replace(SHAPE, num_rx=8), tmp_path / "csi")


def test_bad_checkpoints_are_user_errors(tiny_lm: Path, tmp_path: Path) -> None:
    root = tmp_path / "cdg"
    with pytest.raises(UserError, match="no cdg checkpoint"):
        load_predictor(root)
    save(root, fitted(tiny(tiny_lm)))
    config = json.loads((root / "config.json").read_text())

    def rewrite(**changes: object) -> None:
        (root / "config.json").write_text(json.dumps(config | changes))

    model = config["settings"]["model"]
    rewrite(settings={"model": model | {"hidden": 48}})
    with pytest.raises(UserError, match="does not fit the model"):
        load_predictor(root)
    rewrite(language_model={"name": "llama", "fingerprint": "0"})
    with pytest.raises(UserError, match="trained with another 'llama'"):
        load_predictor(root)
    rewrite(settings={"model": model | {"language_model": str(tmp_path / "gone")}})
    with pytest.raises(UserError, match="no readable folder"):
        load_predictor(root)
    rewrite(settings=model)
    with pytest.raises(UserError, match="written by another version"):
        load_predictor(root)
    rewrite(shape={})
    with pytest.raises(UserError, match=r"train .*again"):
        load_predictor(root)
    rewrite()
    (root / "model.safetensors").write_bytes(b"12345678")
    with pytest.raises(UserError, match="corrupt checkpoint"):
        load_predictor(root)


def test_another_number_of_samples_is_refused(tiny_lm: Path, inputs: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="built for num_future = 4, not 2"):
        fitted(tiny(tiny_lm)).predict(inputs, 2)


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="multiple of num_heads"):
        CdgSettings(width=20, num_heads=8)
