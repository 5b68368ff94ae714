import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sclmkb.common.errors import UserError
from sclmkb.common.link import mimo
from sclmkb.common.link.link import RECEIVERS, Noise, Receiver, detect, transmit, white_noise
from sclmkb.common.link.sources import LinkCsi, LinkState
from sclmkb.common.metrics import spectral_efficiency
from sclmkb.common.seeds import make_generator

B, N, K, M = 64, 16, 4, 16


def rayleigh(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, dtype=torch.complex64, generator=make_generator("test", seed))


def symbols(seed: int = 1) -> torch.Tensor:
    return mimo.normalise_symbols(rayleigh(B, K, M, seed=seed) * torch.rand(B, 1, 1) * 9)


def full(value: float, count: int = B) -> torch.Tensor:
    return torch.full((count,), value)


def sent(h: torch.Tensor, beams: mimo.Beams, f: torch.Tensor, snr_db: torch.Tensor, seed: int = 3) -> torch.Tensor:
    """Return what arrives of symbols."""
    link = LinkState(h, beams, snr_db)
    return transmit(link, f, Noise.draw(link, f.shape[2], make_generator(seed)).antennas)


def received(
    receiver: Receiver,
    h: torch.Tensor,
    beams: mimo.Beams,
    f: torch.Tensor,
    snr_db: float = math.inf,
    pilot_boost_db: float = math.inf,
) -> mimo.Detected:
    """Return what a receiver makes of symbols."""
    link = LinkState(h, beams, full(snr_db, len(h)))
    noise = Noise.draw(link, f.shape[2], make_generator(3))
    return detect(link, transmit(link, f, noise.antennas), receiver, noise, pilot_boost_db)


@pytest.mark.parametrize("num_streams", [1, 2, 4, 16])
def test_transmit_power_is_one_per_use_in_every_sample_whatever_the_streams(num_streams: int) -> None:
    f = mimo.normalise_symbols(rayleigh(B, num_streams, M))
    beams = mimo.leading_beams(rayleigh(B, N, N, seed=2), num_streams)
    torch.testing.assert_close((beams.v @ f).abs().square().sum((1, 2)) / M, torch.ones(B))


@pytest.mark.parametrize("snr_db", [-10.0, 5.0, 40.0])
def test_water_filled_transmit_power_is_one_per_use_in_every_sample(snr_db: float) -> None:
    f = mimo.normalise_streams(symbols())
    torch.testing.assert_close(f.abs().square().sum(2) / M, torch.full((B, K), 1 / K))
    beams = mimo.allocate_power(mimo.leading_beams(rayleigh(B, N, N), K), full(snr_db), "water_filling")
    power = (beams.v @ f).abs().square().sum((1, 2)) / M
    torch.testing.assert_close(power, torch.ones(B), atol=1e-4, rtol=1e-4)


def test_beams_are_the_leading_part_of_an_svd() -> None:
    h = rayleigh(B, N, N)
    u, s, v = mimo.leading_beams(h, N)
    torch.testing.assert_close(u * s[:, None, :] @ v.mH, h, atol=1e-4, rtol=1e-4)
    assert (s.diff(dim=-1) <= 0).all()
    with pytest.raises(UserError, match="num_streams = 5 is more than the rank of a 4 × 8 channel: set at most 4"):
        mimo.leading_beams(rayleigh(1, 4, 8), 5)


@pytest.mark.parametrize("snr_db", [-10.0, 0.0, 20.0])
def test_measured_snr_is_the_stated_one_before_array_gain(snr_db: float) -> None:
    h, f = rayleigh(B, N, N), torch.zeros(B, K, 200, dtype=torch.complex64)
    beams = mimo.leading_beams(h, K)
    noise = sent(h, beams, f, full(snr_db))
    assert -10 * math.log10(noise.abs().square().mean()) == pytest.approx(snr_db, abs=0.1)
    loud = sent(h[:2], beams.map(lambda x: x[:2]), f[:2], torch.tensor([0.0, 40.0])).abs().square().mean((1, 2))
    assert 10 * math.log10(loud[0] / loud[1]) == pytest.approx(40, abs=1)


@pytest.mark.parametrize("turn", [1, 1j])
def test_literal_detection_without_noise_returns_the_symbols_turned_as_the_channel_was(turn: complex) -> None:
    h, f = rayleigh(B, N, N), symbols()
    detected = received("literal", turn * h, mimo.leading_beams(h, K), f)
    torch.testing.assert_close(detected.symbols, turn * f, atol=1e-4, rtol=1e-4)


def test_dmrs_without_noise_recovers_the_symbols_even_with_a_stale_precoder() -> None:
    h, f = rayleigh(B, N, N), symbols()
    stale = mimo.leading_beams(rayleigh(B, N, N, seed=5), K)
    torch.testing.assert_close(received("dmrs", h, stale, f).symbols, f, atol=1e-3, rtol=1e-3)
    assert mimo.symbol_mse(f, received("literal", h, stale, f).symbols).mean() > 0.5


def silenced(snr_db: float = -20.0) -> tuple[torch.Tensor, mimo.Beams]:
    """Return channels, and beams of which some have no power."""
    h = rayleigh(B, N, N)
    beams = mimo.allocate_power(mimo.leading_beams(h, K), full(snr_db), "water_filling")
    assert 0.1 < float((beams.s == 0).double().mean()) < 0.9
    return h, beams


@pytest.mark.parametrize(("snr_db", "power"), [(-5.0, "equal"), (10.0, "equal"), (-20.0, "water_filling")])
def test_both_receivers_agree_with_perfect_csi_and_perfect_pilots(snr_db: float, power: mimo.Power) -> None:
    h, f = rayleigh(B, N, N), mimo.normalise_streams(symbols())
    beams = mimo.allocate_power(mimo.leading_beams(h, K), full(snr_db), power)
    literal, dmrs = (received(receiver, h, beams, f, snr_db) for receiver in RECEIVERS)
    torch.testing.assert_close(literal.symbols, dmrs.symbols, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(literal.stream_snr_db, dmrs.stream_snr_db, atol=0.05, rtol=1e-2)


def test_believed_stream_snr_is_the_error_that_is_measured() -> None:
    h = rayleigh(1, N, N).expand(400, -1, -1)
    f = rayleigh(400, K, M, seed=7) / math.sqrt(K)
    detected = received("literal", h, mimo.leading_beams(h, K), f, 0.0)
    error = (f - detected.symbols).abs().square().mean((0, 2)) * K
    believed = 1 / (1 + 10 ** (detected.stream_snr_db[0] / 10))
    torch.testing.assert_close(error, believed, rtol=0.1, atol=0)


def test_worse_pilots_make_a_worse_estimate() -> None:
    h, f = rayleigh(B, N, N), symbols()
    found = (received("dmrs", h, mimo.leading_beams(h, K), f, 20.0, boost) for boost in (-20.0, -10.0, 10.0))
    errors = [mimo.symbol_mse(f, detected.symbols).mean() for detected in found]
    assert errors[0] > errors[1] > errors[2]


def test_stale_csi_is_the_last_noisy_sample_and_perfect_csi_the_future() -> None:
    history, future, predicted = rayleigh(6, 5, N, N), rayleigh(6, 3, N, N, seed=1), rayleigh(6, 3, N, N, seed=2)
    drop, step = torch.tensor([4, 0]), torch.tensor([2, 1])
    expected = {"stale": history[drop, -1], "perfect": future[drop, step], "predicted": predicted[drop, step]}
    for source, h in expected.items():
        state = LinkCsi.build(source, K, history, future, predicted).state(drop, step, full(0.0, 2))
        torch.testing.assert_close(state.h, future[drop, step])
        torch.testing.assert_close(tuple(state.beams), tuple(mimo.leading_beams(h, K)))


def test_spectral_efficiency_is_largest_with_the_true_beams() -> None:
    h = rayleigh(B, N, N)
    beams = mimo.leading_beams(h, K)
    right = spectral_efficiency(h, beams.v, full(10.0))
    wrong = spectral_efficiency(h, mimo.leading_beams(rayleigh(B, N, N, seed=3), K).v, full(10.0))
    assert (right > wrong).all()
    torch.testing.assert_close(right, torch.log2(1 + 10 / K * beams.s.square()).sum(1), rtol=1e-4, atol=1e-3)


def bisection(gain: list[float], noise: float) -> list[float]:
    """Return water-filling shares by halving the interval of the level: an independent reference."""
    low, high = 0.0, 1 + max(noise / g for g in gain)
    for _ in range(200):
        level = (low + high) / 2
        if sum(max(0.0, level - noise / g) for g in gain) > 1:
            high = level
        else:
            low = level
    return [max(0.0, low - noise / g) for g in gain]


@given(gain=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8), noise=st.floats(1e-4, 1e3))
@settings(max_examples=80, deadline=None)
def test_water_filling_is_what_bisection_finds(gain: list[float], noise: float) -> None:
    gain = sorted(gain, reverse=True)
    shares = mimo.water_filling(torch.tensor([gain]).double(), torch.tensor([noise]).double())[0]
    torch.testing.assert_close(shares, torch.tensor(bisection(gain, noise)).double(), atol=1e-6, rtol=1e-5)
    assert float(shares.sum()) == pytest.approx(1, abs=1e-6)


def test_water_filling_is_each_samples_own_and_takes_extremes() -> None:
    gain = torch.tensor([[4.0, 1.0, 0.25], [4.0, 1.0, 0.25], [4.0, 1.0, 0.25], [1.0, 0.0, 0.0]])
    shares = mimo.water_filling(gain, torch.tensor([0.0, 1e9, 1.0, 1.0]))
    expected = torch.tensor([[1 / 3] * 3, [1.0, 0.0, 0.0], [0.875, 0.125, 0.0], [1.0, 0.0, 0.0]])
    torch.testing.assert_close(shares, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("receiver", RECEIVERS)
def test_without_noise_streams_with_power_arrive_as_they_were_sent_and_others_as_zero(receiver: Receiver) -> None:
    (h, beams), f = silenced(), mimo.normalise_streams(symbols())
    detected = received(receiver, h, beams, f)
    torch.testing.assert_close(detected.symbols, f * (beams.s > 0)[..., None], atol=2e-3, rtol=2e-3)
    assert (detected.stream_snr_db[beams.s == 0] <= -49).all()


def test_silent_streams_send_no_pilots() -> None:
    h, beams = silenced()
    detected = received("dmrs", h, beams, mimo.normalise_streams(symbols()), 0.0, 0.0)
    assert ((detected.symbols.abs().sum(2) == 0) == (beams.s == 0)).all()


@pytest.mark.parametrize("power", ["equal", "water_filling"])
@pytest.mark.parametrize("scale_db", [-30.0, 6.0])
def test_a_louder_channel_is_as_good_as_less_noise(scale_db: float, power: mimo.Power) -> None:
    h, f = rayleigh(B, N, N), mimo.normalise_streams(symbols())

    def detected(gain: float, snr_db: float) -> mimo.Detected:
        beams = mimo.allocate_power(mimo.leading_beams(gain * h, K), full(snr_db), power)
        return received("literal", gain * h, beams, f, snr_db)

    one, other = detected(1, 5.0), detected(10 ** (scale_db / 20), 5.0 - scale_db)
    torch.testing.assert_close(one.stream_snr_db, other.stream_snr_db, atol=1e-2, rtol=1e-3)
    torch.testing.assert_close(one.symbols, other.symbols, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("receiver", RECEIVERS)
def test_what_the_receivers_hand_on_does_not_depend_on_the_phases_of_singular_vectors(receiver: Receiver) -> None:
    h, f = rayleigh(B, N, N), symbols()
    beams = mimo.leading_beams(h, K)
    phase = torch.polar(torch.ones(B, 1, K), 6 * torch.rand(B, 1, K, generator=make_generator(2)))
    turned = mimo.Beams(beams.u * phase, beams.s, beams.v * phase)
    one, other = (received(receiver, h, of, f, 60.0) for of in (beams, turned))
    torch.testing.assert_close(one.symbols, other.symbols, atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(one.stream_snr_db, other.stream_snr_db, atol=1e-3, rtol=1e-3)


def test_noise_is_of_the_generator_whatever_the_tensors_are_on() -> None:
    assert white_noise((3, 2), torch.device("meta"), make_generator(1)).device.type == "meta"
    expected = torch.randn(3, 2, dtype=torch.complex64, generator=make_generator(1))
    torch.testing.assert_close(white_noise((3, 2), torch.device("cpu"), make_generator(1)), expected)


def test_what_is_sent_side_by_side_meets_the_same_noise_and_a_precoded_link_is_the_same_link() -> None:
    h, f = rayleigh(B, N, N), symbols()
    link = LinkState(h, mimo.leading_beams(h, K), full(3.0))
    noise = Noise.draw(link, M, make_generator(3))
    one = transmit(link, f, noise.antennas)
    both = transmit(link, torch.cat([f, 2 * f], dim=2), noise.antennas)
    torch.testing.assert_close(both[:, :, :M], one)
    torch.testing.assert_close(both[:, :, M:], one + h @ link.beams.v @ f, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(transmit(link.precoded(), f, noise.antennas), one, atol=1e-4, rtol=1e-4)
    for receiver in RECEIVERS:
        there, once = (detect(of, one, receiver, noise) for of in (link, link.precoded()))
        torch.testing.assert_close(there.symbols, once.symbols, atol=1e-4, rtol=1e-3)
    with pytest.raises(ValueError, match="noise of its pilots"):
        detect(link, one, "dmrs", Noise(noise.antennas))
