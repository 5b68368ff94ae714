"""The Wiener filter of a Doppler spectrum."""

import math

import pytest
import torch

from sclmkb.common.models.csi.cdg.spectral import SpectralWiener

T, P, K = 16, 4, 61


@pytest.fixture(scope="module")
def wiener() -> SpectralWiener:
    return SpectralWiener(T, P, K)


def word(index: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor([index]), K).float()


@pytest.mark.parametrize("frequency", [0.0, 0.0731, -0.31, 0.5])
def test_a_tone_at_the_centre_is_continued(wiener: SpectralWiener, frequency: float) -> None:
    t = torch.arange(T + P)
    tone = torch.polar(torch.ones(T + P), 2 * math.pi * frequency * t)[None].to(torch.complex64)
    predicted, evidence = wiener(tone[:, :T], word(K // 2), torch.tensor([1e-4]), torch.tensor([frequency]))
    assert torch.allclose(predicted, tone[:, T:], atol=1e-3)
    assert evidence is None


@pytest.mark.parametrize("num_history", [7, 16])
def test_it_is_the_textbook_wiener_filter(num_history: int) -> None:
    wiener = SpectralWiener(num_history, P, 21)
    generator = torch.Generator().manual_seed(0)
    spectrum = torch.rand(5, 21, generator=generator)
    spectrum = spectrum / spectrum.sum(-1, keepdim=True)
    noise, centre = torch.rand(5, generator=generator) + 0.05, torch.rand(5, generator=generator) - 0.5
    x = torch.randn(5, num_history, dtype=torch.complex64, generator=generator)
    planes = spectrum.double() @ wiener.autocorrelation.double()
    r = torch.complex(planes[:, : num_history + P], planes[:, num_history + P :])
    r = r * torch.exp(2j * math.pi * centre[:, None].double() * torch.arange(num_history + P))
    t = torch.arange(num_history + P)
    lag = t[:, None] - t
    whole = torch.where(lag >= 0, r[:, lag.abs()], r[:, lag.abs()].conj())  # E x(t) x(s)*
    seen = whole[:, :num_history, :num_history] + noise[:, None, None] * torch.eye(num_history)
    expected = whole[:, num_history:, :num_history] @ torch.linalg.solve(seen, x.to(whole.dtype)[..., None])
    predicted, _ = wiener(x, spectrum, noise, centre)
    assert torch.allclose(predicted, expected[..., 0].to(predicted.dtype), atol=1e-4)


def test_much_noise_means_no_prediction_and_phase_turns_along(wiener: SpectralWiener) -> None:
    x = torch.randn(3, T, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    spectrum, centre = torch.full((3, K), 1 / K), torch.zeros(3)
    silent, _ = wiener(x, spectrum, torch.full((3,), 1e4), centre)
    assert silent.abs().max() < 1e-2
    noise, turn = torch.full((3,), 0.1), torch.exp(torch.tensor(0.8j))
    assert torch.allclose(
        wiener(turn * x, spectrum, noise, centre)[0], turn * wiener(x, spectrum, noise, centre)[0], atol=1e-5
    )


def test_gradients_are_those_of_finite_differences() -> None:
    wiener = SpectralWiener(6, 2, 5).double()
    wiener.basis, wiener.tones = wiener.basis.to(torch.complex128), wiener.tones.to(torch.complex128)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, 6, dtype=torch.complex128, generator=generator)
    logits = torch.randn(2, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    noise = (torch.rand(2, dtype=torch.float64, generator=generator) + 0.1).requires_grad_()
    centre = (0.1 * torch.rand(2, dtype=torch.float64, generator=generator)).requires_grad_()

    def run(logits: torch.Tensor, noise: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
        return torch.view_as_real(wiener.forward.__wrapped__(wiener, x, logits.softmax(-1), noise, centre)[0])

    if not hasattr(wiener.forward, "__wrapped__"):  # outside of the shape checks of the tests
        pytest.skip("forward is not wrapped")
    assert torch.autograd.gradcheck(run, (logits, noise, centre))


def test_evidence_names_the_word_that_is_missing(wiener: SpectralWiener) -> None:
    missing = 45
    t = torch.arange(T)
    x = torch.polar(torch.ones(T), 2 * math.pi * wiener.frequencies[missing] * t)[None].to(torch.complex64)
    _, evidence = wiener(x, word(K // 2), torch.tensor([0.1]), torch.zeros(1), evidence=True)
    assert evidence is not None
    surprise = (evidence.found / evidence.expected)[0]
    assert surprise.argmax() == missing
    assert surprise[missing] > 30
    _, content = wiener(x, 0.95 * word(missing) + 0.05 / K, torch.tensor([0.1]), torch.zeros(1), evidence=True)
    assert content is not None
    assert (content.found / content.expected)[0, missing] < 2
    assert not evidence.found.requires_grad
