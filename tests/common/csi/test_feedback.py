import pytest
import torch
from beartype import beartype
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import jaxtyped

from sclmkb.common.csi.feedback import MAX_BITS, FeedbackCodebook, allocate_bits, check_report, lloyd_max
from sclmkb.common.errors import UserError


def checked(function):  # type: ignore[no-untyped-def]
    return jaxtyped(typechecker=beartype)(function)


def gaussian_channels(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return correlated Gaussian 4×4 channels and the eigenvalues of their covariance."""
    generator = torch.Generator().manual_seed(7)
    eigenvalues = torch.logspace(0, -3, 16)
    basis = torch.linalg.qr(torch.randn(16, 16, dtype=torch.complex64, generator=generator)).Q
    white = torch.randn(count, 16, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))
    return ((white * eigenvalues.sqrt()) @ basis.mT).view(count, 4, 4), eigenvalues


def least_distortion(variances: torch.Tensor, bits: float) -> float:
    """Return Σ min(θ, σ²), with Σ max(0, ½ log2(σ²/θ)) the bits: no quantiser does better."""
    low, high = 0.0, float(variances.max())
    for _ in range(100):
        level = (low + high) / 2
        rate = float((0.5 * torch.log2(variances.double() / level)).clamp(min=0).sum())
        low, high = (level, high) if rate > bits else (low, level)
    return float(variances.double().clamp(max=high).sum())


@given(seed=st.integers(0, 99), bits=st.integers(0, 40))
@settings(max_examples=40, deadline=None)
def test_whole_bits_are_the_best_whole_bits(seed: int, bits: int) -> None:
    variances = torch.rand(8, generator=torch.Generator().manual_seed(seed)) * 3 + 1e-3
    found = checked(allocate_bits)(variances, bits)
    assert int(found.sum()) == bits
    cost = (variances * torch.pow(4.0, -found)).sum()
    assert cost >= least_distortion(variances, bits) * (1 - 1e-6)
    for take in range(8):
        for give in range(8):
            if take != give and found[take] > 0:
                moved = found.clone()
                moved[take] -= 1
                moved[give] += 1
                assert (variances * torch.pow(4.0, -moved)).sum() >= cost * (1 - 1e-6)


def test_lloyd_max_finds_the_published_gaussian_quantisers() -> None:
    samples = torch.randn(400_000, generator=torch.Generator().manual_seed(0))
    for bits, published in ((1, 0.3634), (2, 0.1175), (3, 0.03454)):  # Max 1960, table I
        levels = checked(lloyd_max)(samples, 2**bits)
        nearest = levels[torch.bucketize(samples, (levels[1:] + levels[:-1]) / 2)]
        assert float((samples - nearest).square().mean()) == pytest.approx(published, rel=0.02)
        assert levels.diff().gt(0).all()


def test_distortion_falls_with_every_step_of_bits_and_keeps_to_rate_distortion_theory() -> None:
    train, eigenvalues = gaussian_channels(20_000)
    test, _ = gaussian_channels(4_000, seed=1)
    components = (eigenvalues / 2).repeat(2)
    before = float("inf")
    for bits in (0, 4, 8, 16, 32, 64, 96, 128):
        book = FeedbackCodebook.fit(train, bits)
        assert int(book.bits.sum()) == bits
        error = float((test - checked(book.quantise)(test)).abs().square().sum((1, 2)).mean())
        assert error < before
        before = error
        theory = least_distortion(components, bits)
        assert error > 0.97 * theory, "no code beats the rate-distortion function"
        assert error < 3 * theory, "scalar quantisers lose at most 4.35 dB, whole bits 0.34 dB more"


def test_no_bits_say_nothing_and_many_bits_nearly_all() -> None:
    train, _ = gaussian_channels(2_000)
    assert torch.equal(FeedbackCodebook.fit(train, 0).quantise(train), torch.zeros_like(train))
    fine = FeedbackCodebook.fit(train, 32 * MAX_BITS).quantise(train)
    ratio = (train - fine).abs().square().sum() / train.abs().square().sum()
    assert ratio < 1e-3


def test_a_history_is_quantised_sample_by_sample() -> None:
    train, _ = gaussian_channels(2_000)
    book = FeedbackCodebook.fit(train, 40)
    history = train[:60].view(3, 20, 4, 4)
    assert torch.allclose(book.quantise(history)[1, 7], book.quantise(history[1, 7]), atol=1e-6)


def test_too_many_bits_or_another_size_are_refused() -> None:
    train, _ = gaussian_channels(100)
    with pytest.raises(ValueError, match="257 bits are more"):
        FeedbackCodebook.fit(train, 257)
    with pytest.raises(ValueError, match="16 entries, not 8"):
        FeedbackCodebook.fit(train, 8).quantise(train[:, :2])
    with pytest.raises(UserError, match="2049 entries in there is too large"):
        check_report(2049, 8, "there")
