import torch
from beartype import beartype
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import jaxtyped

from sclmkb.common.csi import tensors as csi


def checked(function):  # type: ignore[no-untyped-def]
    return jaxtyped(typechecker=beartype)(function)


def channels(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.complex64)


@given(batch=st.integers(1, 3), steps=st.integers(1, 6), rx=st.integers(1, 6), tx=st.integers(1, 6))
@settings(max_examples=25, deadline=None)
def test_beams_are_unitary_and_invertible(batch: int, steps: int, rx: int, tx: int) -> None:
    h = channels(batch, steps, rx, tx, seed=batch + 10 * steps)
    beams = csi.EigenBeams.of(h)
    for basis in (beams.u, beams.v):
        eye = torch.eye(basis.shape[-1], dtype=torch.complex64).expand_as(basis)
        assert torch.allclose(basis.mH @ basis, eye, atol=1e-4)
    b = beams.to_beams(h)
    assert torch.allclose(beams.from_beams(b), h, atol=1e-4)
    assert torch.allclose(b.abs().square().sum(), h.abs().square().sum(), rtol=1e-4)
    receive_power = b.abs().square().sum((1, 3))
    assert (receive_power.diff(dim=1) <= 1e-3).all(), "strongest first"


def test_normalised_power_is_one_and_the_scale_undoes_it() -> None:
    h = 7 * channels(4, 10, 3, 5)
    unit, scale = checked(csi.normalise_power)(h, 6)
    assert torch.allclose(unit[:, :6].abs().square().mean((1, 2, 3)), torch.ones(4), atol=1e-5)
    assert torch.allclose(unit * scale, h, atol=1e-5)
    zeros, _ = csi.normalise_power(torch.zeros(1, 2, 3, 3, dtype=torch.complex64))
    assert torch.equal(zeros, torch.zeros_like(zeros))


def test_measured_pilot_snr_is_the_one_asked_for() -> None:
    snr_db = torch.tensor([-5.0, 0.0, 10.0, 30.0])
    h = torch.ones(4, 40, 16, 16, dtype=torch.complex64)
    noisy = checked(csi.add_pilot_noise)(h, snr_db, torch.Generator().manual_seed(0))
    measured = -10 * torch.log10((noisy - h).abs().square().mean((1, 2, 3)))
    assert torch.allclose(measured, snr_db, atol=0.15)
    again = csi.add_pilot_noise(h, snr_db, torch.Generator().manual_seed(0))
    assert torch.equal(noisy, again)


@given(period=st.integers(2, 6), steps=st.integers(1, 8), tx=st.integers(1, 7))
@settings(max_examples=30, deadline=None)
def test_a_comb_sounds_each_antenna_once_a_period_and_holds_it_between(period: int, steps: int, tx: int) -> None:
    time = torch.arange(period - 1 + steps).view(1, -1, 1, 1).expand(2, -1, 3, tx).to(torch.complex64)
    sounded = checked(csi.hold_unsounded)(time, period).real[0, :, 0]  # when each antenna was sounded last
    now = torch.arange(period - 1, period - 1 + steps).view(-1, 1)
    age = now - sounded
    assert ((age >= 0) & (age < period)).all()
    assert torch.equal(age == 0, (now - torch.arange(tx)) % period == 0)
