import math
from collections.abc import Sequence

import pytest
import torch
from beartype import beartype
from jaxtyping import jaxtyped
from pydantic import ValidationError
from torch import Tensor
from uses_audit import audit

from sclmkb.common.link import uses
from sclmkb.common.link.uses import UsesChannelSettings, draw_gains, sample_draws, single_antenna
from sclmkb.common.seeds import make_generator

AWGN = UsesChannelSettings()
RICIAN = UsesChannelSettings(kind="rician", k_factor=1)
CHANNELS = (AWGN, RICIAN, UsesChannelSettings(kind="rician", k_factor=4))


def checked(function):
    """Check the shapes and types of a public tensor function while it runs."""
    return jaxtyped(typechecker=beartype)(function)


normalise_uses, transmit = checked(uses.normalise_uses), checked(uses.transmit)


def ours(symbols: Tensor, sent: Tensor, gains: Tensor, snr_db: Tensor, draws: Sequence[torch.Generator]) -> Tensor:
    return uses.transmit(uses.normalise_uses(symbols, sent), sent, gains, snr_db, draws)


def symbols_of(num: int, size: int, seed: int = 0) -> Tensor:
    return torch.randn(num, size, dtype=torch.complex64, generator=make_generator("symbols", seed))


@pytest.mark.parametrize("snr_db", [-6.0, 10.0])
@pytest.mark.parametrize("settings", CHANNELS, ids=str)
def test_the_channel_keeps_its_conventions(settings: UsesChannelSettings, snr_db: float) -> None:
    assert audit(ours, settings, snr_db) == []


def noisy(symbols: Tensor, gains: Tensor, deviation: Tensor, draws: Sequence[torch.Generator]) -> Tensor:
    """Return h s + n over h, with noise of a deviation per real part."""
    noise = torch.cat([torch.randn(1, symbols.shape[1], 2, generator=one) for one in draws])
    noise = torch.view_as_complex(noise) * deviation.reshape(-1, 1)
    return (gains[:, None] * symbols + noise) / gains[:, None]


def each_real_has_power_one(
    symbols: Tensor, sent: Tensor, gains: Tensor, snr_db: Tensor, draws: Sequence[torch.Generator]
) -> Tensor:
    """Return what DeepJSCC's most copied code receives: power 1 a real, noise 1/(2 SNR) a real."""
    loud = normalise_uses(symbols, sent) * math.sqrt(2)
    return noisy(loud, gains, (0.5 * 10 ** (-snr_db / 10)).sqrt(), draws) * sent


def batch_has_power_one(
    symbols: Tensor, sent: Tensor, gains: Tensor, snr_db: Tensor, draws: Sequence[torch.Generator]
) -> Tensor:
    """Return what SwinJSCC's receives: power 1 over the batch."""
    power = (symbols * sent).abs().square().sum() / sent.sum()
    return noisy(symbols * sent / power.sqrt(), gains, (0.5 * 10 ** (-snr_db / 10)).sqrt(), draws) * sent


def noise_follows_the_faded_power(
    symbols: Tensor, sent: Tensor, gains: Tensor, snr_db: Tensor, draws: Sequence[torch.Generator]
) -> Tensor:
    """Return what is received if the noise is set from the power behind the fading, so that fading costs nothing."""
    deviation = gains.abs() * (0.5 * 10 ** (-snr_db / 10)).sqrt()
    return noisy(normalise_uses(symbols, sent), gains, deviation, draws) * sent


def all_uses_are_sent(
    symbols: Tensor, sent: Tensor, gains: Tensor, snr_db: Tensor, draws: Sequence[torch.Generator]
) -> Tensor:
    """Return what is received if the mask is forgotten."""
    everything = torch.ones_like(sent)
    return transmit(normalise_uses(symbols, everything), everything, gains, snr_db, draws)


def test_the_audit_finds_each_real_with_power_one() -> None:
    for settings in CHANNELS:
        problems = audit(each_real_has_power_one, settings, 10)
        assert problems[0].startswith("SNR of all samples: 13.0")


def test_the_audit_finds_power_normalised_over_the_batch() -> None:
    problems = audit(batch_has_power_one, AWGN, 10)
    assert {"SNR of loud", "SNR of quiet"} <= {problem.split(" samples")[0] for problem in problems}
    assert "batch 1 is not batch 64" in problems


def test_the_audit_finds_noise_that_follows_the_faded_power() -> None:
    for settings in CHANNELS[1:]:
        problems = audit(noise_follows_the_faded_power, settings, 10)
        assert {"SNR of strong", "SNR of faded"} <= {problem.split(" samples")[0] for problem in problems}
    assert audit(noise_follows_the_faded_power, AWGN, 10) == []  # without fading nothing is wrong with it


def test_the_audit_finds_uses_that_are_sent_and_not_counted() -> None:
    problems = audit(all_uses_are_sent, AWGN, 10)
    assert {"what is not sent has influence", "what is not sent arrives"} <= set(problems)


@pytest.mark.parametrize("settings", CHANNELS, ids=str)
def test_gains_have_unit_power_and_the_stated_k_factor(settings: UsesChannelSettings) -> None:
    h = checked(draw_gains)(settings, 1_000_000, make_generator(0, "gains"))
    power = h.abs().square().double()
    assert float(power.mean()) == pytest.approx(1, abs=0.005)
    if settings.kind == "awgn":
        assert (h == 1).all()
        return
    share = math.sqrt(2 - float(power.square().mean() / power.mean() ** 2))  # E|h|⁴ is 2 - (K / (K + 1))²
    assert share / (1 - share) == pytest.approx(settings.k_factor, rel=0.02)


@pytest.mark.parametrize("size", [1, 33, 512])
def test_a_sample_meets_the_same_channel_in_every_batch(size: int) -> None:
    symbols = symbols_of(64, size)
    sent = torch.rand(64, size, generator=make_generator("sent")) < 0.7
    for settings in CHANNELS:

        def run(samples: range, settings: UsesChannelSettings = settings) -> Tensor:
            draws = sample_draws(3, samples)
            part = slice(samples.start, samples.stop)
            gains = draw_gains(settings, len(samples), draws)
            return ours(symbols[part], sent[part], gains, torch.full((len(samples),), 4.0), draws)

        assert torch.equal(run(range(64)), torch.cat([run(range(i, i + 1)) for i in range(64)]))
        assert torch.equal(run(range(5, 30)), run(range(64))[5:30])


def test_every_sample_has_power_one_per_use_that_it_sends() -> None:
    symbols = symbols_of(6, 40) * torch.tensor([1e-3, 1.0, 1e3, 1.0, 0.0, 1.0])[:, None]
    sent = torch.rand(6, 40, generator=make_generator(0)) < 0.5
    sent[3] = False
    sent[5, 1:] = False
    sent[5, 0] = True
    found = normalise_uses(torch.where(sent, symbols, torch.nan), sent)
    power = found.abs().square().sum(1)
    expected = sent.sum(1) * torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0, 1.0])
    torch.testing.assert_close(power, expected)
    assert not found[~sent].any()


def test_without_noise_symbols_arrive_as_they_are() -> None:
    symbols, sent = symbols_of(50, 20), torch.ones(50, 20, dtype=torch.bool)
    gains = draw_gains(RICIAN, 50, make_generator(1))
    received = transmit(symbols, sent, gains, torch.full((50,), torch.inf), make_generator(2))
    torch.testing.assert_close(received, symbols, atol=1e-5, rtol=1e-4)


def test_the_receivers_error_is_that_of_mmse() -> None:
    symbols, sent = symbols_of(4, 50_000), torch.ones(4, 50_000, dtype=torch.bool)
    gains, snr_db = torch.tensor([1 + 0j, 0.3j, -0.05, 2.0]), torch.tensor([0.0, 10.0, 3.0, -3.0])
    received = transmit(symbols, sent, gains, snr_db, make_generator(2))
    error = (received - symbols).abs().square().mean(1)
    snr = 10 ** (single_antenna(gains, snr_db).stream_snr_db[:, 0] / 10)
    torch.testing.assert_close(snr.float(), gains.abs().square() * 10 ** (snr_db / 10))
    torch.testing.assert_close(error, 1 / (1 + snr.float()), rtol=0.02, atol=0)


def test_gradients_reach_what_is_sent_and_nothing_else() -> None:
    symbols = symbols_of(3, 16).requires_grad_()
    sent = torch.rand(3, 16, generator=make_generator(0)) < 0.5
    gains = draw_gains(RICIAN, 3, make_generator(1))
    ours(symbols, sent, gains, torch.full((3,), 5.0), sample_draws(0, range(3))).abs().square().sum().backward()
    assert symbols.grad is not None
    assert (symbols.grad[sent] != 0).all()
    assert not symbols.grad[~sent].any()


def test_bad_input_is_refused() -> None:
    for k_factor in (0, -1, math.inf):
        with pytest.raises(ValidationError):
            UsesChannelSettings(kind="rician", k_factor=k_factor)
    with pytest.raises(ValueError, match="2 generators for 3 samples"):
        draw_gains(RICIAN, 3, sample_draws(0, range(2)))
    symbols, sent = symbols_of(3, 4), torch.ones(3, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match="2 generators for 3 samples"):
        transmit(symbols, sent, torch.ones(3, dtype=torch.complex64), torch.zeros(3), sample_draws(0, range(2)))
