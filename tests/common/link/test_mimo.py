import math

import pytest
import torch
from beartype import beartype
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import jaxtyped

from sclmkb.common.link import mimo
from sclmkb.common.link.link import (
    RECEIVERS,
    Noise,
    detect,
    estimate_effective_channel,
    precode,
    transmit,
    white_noise,
)
from sclmkb.common.link.sources import LinkCsi, LinkState
from sclmkb.common.metrics import spectral_efficiency
from sclmkb.common.seeds import make_generator

B, N, K, M = 64, 16, 4, 16


def checked(function):
    """Check the shapes and types of a public tensor function while it runs."""
    return jaxtyped(typechecker=beartype)(function)


def rayleigh(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, dtype=torch.complex64, generator=make_generator("test", seed))


def symbols(seed: int = 1) -> torch.Tensor:
    return checked(mimo.normalise_symbols)(rayleigh(B, K, M, seed=seed) * torch.rand(B, 1, 1) * 9)


def full(value: float, count: int = B) -> torch.Tensor:
    return torch.full((count,), value)


def sent(
    h: torch.Tensor, beams: mimo.Beams, f: torch.Tensor, snr_db: torch.Tensor, draw: torch.Generator | None = None
) -> torch.Tensor:
    """Return what arrives of symbols."""
    link = LinkState(h, beams, snr_db)
    return checked(transmit)(link, f, Noise.draw(link, f.shape[2], draw, pilots=False).antennas)


def estimated(
    h: torch.Tensor, beams: mimo.Beams, pilot_snr_db: torch.Tensor, draw: torch.Generator | None = None
) -> torch.Tensor:
    """Return what pilots say of H V_k."""
    noise = white_noise((len(h), h.shape[1], beams.s.shape[1]), h.device, draw)
    return checked(estimate_effective_channel)(LinkState(h, beams, pilot_snr_db), noise, pilot_snr_db)


@pytest.mark.parametrize("num_streams", [1, 2, 4, 16])
def test_transmit_power_is_one_per_use_in_every_sample_whatever_the_streams(num_streams: int) -> None:
    f = checked(mimo.normalise_symbols)(rayleigh(B, num_streams, M))
    beams = checked(mimo.leading_beams)(rayleigh(B, N, N, seed=2), num_streams)
    x = checked(precode)(beams, f)
    torch.testing.assert_close(x.abs().square().sum((1, 2)) / M, torch.ones(B))


def test_one_loud_sample_does_not_change_the_power_of_another() -> None:
    f = rayleigh(2, K, M)
    loud = torch.stack([f[0], 1000 * f[1]])
    torch.testing.assert_close(mimo.normalise_symbols(loud)[0], mimo.normalise_symbols(f)[0])


def test_beams_are_the_leading_part_of_an_svd() -> None:
    h = rayleigh(B, N, N)
    u, s, v = mimo.leading_beams(h, N)
    torch.testing.assert_close(u * s[:, None, :] @ v.mH, h, atol=1e-4, rtol=1e-4)
    assert (s.diff(dim=-1) <= 0).all()


def test_more_streams_than_antennas_is_an_error() -> None:
    with pytest.raises(ValueError, match="num_streams = 5"):
        mimo.leading_beams(rayleigh(1, 4, 8), 5)


@pytest.mark.parametrize("snr_db", [-10.0, 0.0, 20.0])
def test_measured_snr_is_the_stated_one_before_array_gain(snr_db: float) -> None:
    h, f = rayleigh(B, N, N), torch.zeros(B, K, 200, dtype=torch.complex64)
    beams = mimo.leading_beams(h, K)
    noise = sent(h, beams, f, full(snr_db), make_generator(0))
    assert -10 * math.log10(noise.abs().square().mean()) == pytest.approx(snr_db, abs=0.1)
    two, snrs_db = mimo.Beams(*(x[:2] for x in beams)), torch.tensor([0.0, 40.0])
    loud = sent(h[:2], two, f[:2], snrs_db, make_generator(0)).abs().square().mean((1, 2))
    assert 10 * math.log10(loud[0] / loud[1]) == pytest.approx(40, abs=1)


def test_literal_detection_without_noise_and_with_perfect_csi_is_the_identity() -> None:
    h, f = rayleigh(B, N, N), symbols()
    beams = mimo.leading_beams(h, K)
    y = sent(h, beams, f, full(math.inf))
    detected = checked(mimo.detect_literal)(y, beams, full(math.inf))
    torch.testing.assert_close(detected.symbols, f, atol=1e-4, rtol=1e-4)


def test_literal_detection_with_a_rotated_channel_returns_rotated_symbols() -> None:
    h, f = rayleigh(B, N, N), symbols()
    beams = mimo.leading_beams(h, K)
    y = sent(1j * h, beams, f, full(math.inf))
    torch.testing.assert_close(mimo.detect_literal(y, beams, full(math.inf)).symbols, 1j * f, atol=1e-4, rtol=1e-4)


def test_dmrs_without_noise_recovers_the_symbols_even_with_a_stale_precoder() -> None:
    h, f = rayleigh(B, N, N), symbols()
    stale = mimo.leading_beams(rayleigh(B, N, N, seed=5), K)
    y = sent(h, stale, f, full(math.inf))
    effective = estimated(h, stale, full(math.inf))
    detected = checked(mimo.detect_dmrs)(y, effective, full(math.inf), full(math.inf))
    torch.testing.assert_close(detected.symbols, f, atol=1e-3, rtol=1e-3)
    literal = mimo.detect_literal(y, stale, full(math.inf)).symbols
    assert mimo.symbol_mse(f, literal).mean() > 0.5


@pytest.mark.parametrize("snr_db", [-5.0, 10.0])
def test_both_receivers_agree_with_perfect_csi_and_perfect_pilots(snr_db: float) -> None:
    h, f = rayleigh(B, N, N), symbols()
    beams = mimo.leading_beams(h, K)
    y = sent(h, beams, f, full(snr_db), make_generator(3))
    literal = mimo.detect_literal(y, beams, full(snr_db))
    effective = estimated(h, beams, full(math.inf))
    dmrs = mimo.detect_dmrs(y, effective, full(snr_db), full(math.inf))
    torch.testing.assert_close(literal.symbols, dmrs.symbols, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(literal.stream_snr_db, dmrs.stream_snr_db, atol=0.02, rtol=1e-3)


def test_believed_stream_snr_is_the_error_that_is_measured() -> None:
    h = rayleigh(1, N, N).expand(400, -1, -1)
    f = rayleigh(400, K, M, seed=7) / math.sqrt(K)
    beams = mimo.leading_beams(h, K)
    y = sent(h, beams, f, full(0.0, 400), make_generator(4))
    detected = mimo.detect_literal(y, beams, full(0.0, 400))
    error = (f - detected.symbols).abs().square().mean((0, 2)) * K
    believed = 1 / (1 + 10 ** (detected.stream_snr_db[0] / 10))
    torch.testing.assert_close(error, believed, rtol=0.1, atol=0)


def test_worse_pilots_make_a_worse_estimate() -> None:
    h, f = rayleigh(B, N, N), symbols()
    beams = mimo.leading_beams(h, K)
    y = sent(h, beams, f, full(20.0), make_generator(3))
    errors = []
    for pilot in (0.0, 10.0, 30.0):
        effective = estimated(h, beams, full(pilot), make_generator(6))
        errors.append(mimo.symbol_mse(f, mimo.detect_dmrs(y, effective, full(20.0), full(pilot)).symbols).mean())
    assert errors[0] > errors[1] > errors[2]


def test_the_link_is_differentiable() -> None:
    h, f = rayleigh(B, N, N), symbols().requires_grad_()
    beams = mimo.leading_beams(h, K)
    y = sent(h, beams, mimo.normalise_symbols(f), full(10.0), make_generator(3))
    effective = estimated(h, beams, full(10.0), make_generator(6))
    dmrs = mimo.detect_dmrs(y, effective, full(10.0), full(10.0)).symbols
    (dmrs.abs().sum() + mimo.detect_literal(y, beams, full(10.0)).symbols.abs().sum()).backward()
    assert f.grad is not None
    assert torch.isfinite(torch.view_as_real(f.grad)).all()
    assert f.grad.abs().sum() > 0


def test_stale_csi_is_the_last_noisy_sample_and_perfect_csi_the_future() -> None:
    history, future, predicted = rayleigh(6, 5, N, N), rayleigh(6, 3, N, N, seed=1), rayleigh(6, 3, N, N, seed=2)
    drop, step = torch.tensor([4, 0]), torch.tensor([2, 1])
    expected = {"stale": history[drop, -1], "perfect": future[drop, step], "predicted": predicted[drop, step]}
    for source, h in expected.items():
        state = LinkCsi.build(source, K, history, future, predicted).state(drop, step, full(0.0, 2))
        torch.testing.assert_close(state.h, future[drop, step])
        for one, other in zip(state.beams, mimo.leading_beams(h, K), strict=True):
            torch.testing.assert_close(one, other)


def test_spectral_efficiency_is_largest_with_the_true_beams() -> None:
    h = rayleigh(B, N, N)
    right = checked(spectral_efficiency)(h, mimo.leading_beams(h, K).v, full(10.0))
    wrong = spectral_efficiency(h, mimo.leading_beams(rayleigh(B, N, N, seed=3), K).v, full(10.0))
    assert (right > wrong).all()
    s = mimo.leading_beams(h, K).s
    torch.testing.assert_close(right, torch.log2(1 + 10 / K * s.square()).sum(1), rtol=1e-4, atol=1e-3)


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


@given(
    gain=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8),
    noise=st.floats(1e-4, 1e3),
)
@settings(max_examples=80, deadline=None)
def test_water_filling_is_what_bisection_finds_and_meets_its_conditions(gain: list[float], noise: float) -> None:
    gain = sorted(gain, reverse=True)
    shares = checked(mimo.water_filling)(torch.tensor([gain]).double(), torch.tensor([noise]).double())[0]
    torch.testing.assert_close(shares, torch.tensor(bisection(gain, noise)).double(), atol=1e-6, rtol=1e-5)
    assert float(shares.sum()) == pytest.approx(1, abs=1e-6)
    floor = noise / torch.tensor(gain).double()  # Karush, Kuhn, Tucker: one level where there is power, no lower floor
    level = (shares + floor)[shares > 0]
    torch.testing.assert_close(level, level[:1].expand_as(level), atol=1e-6, rtol=1e-6)
    assert (floor[shares == 0] >= level[0] * (1 - 1e-9)).all()


def test_water_filling_is_each_samples_own_and_takes_extremes() -> None:
    gain = torch.tensor([[4.0, 1.0, 0.25], [4.0, 1.0, 0.25], [4.0, 1.0, 0.25], [1.0, 0.0, 0.0]])
    shares = mimo.water_filling(gain, torch.tensor([0.0, 1e9, 1.0, 1.0]))
    expected = torch.tensor([[1 / 3] * 3, [1.0, 0.0, 0.0], [0.875, 0.125, 0.0], [1.0, 0.0, 0.0]])
    torch.testing.assert_close(shares, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("snr_db", [-10.0, 5.0, 40.0])
def test_water_filled_transmit_power_is_one_per_use_in_every_sample(snr_db: float) -> None:
    f = checked(mimo.normalise_streams)(symbols())
    torch.testing.assert_close(f.abs().square().sum(2) / M, torch.full((B, K), 1 / K))
    beams = checked(mimo.allocate_power)(mimo.leading_beams(rayleigh(B, N, N), K), full(snr_db), "water_filling")
    x = precode(beams, f)
    torch.testing.assert_close(x.abs().square().sum((1, 2)) / M, torch.ones(B), atol=1e-4, rtol=1e-4)


def silenced(snr_db: float = -20.0) -> tuple[torch.Tensor, mimo.Beams]:
    """Return channels, and beams of which some have no power."""
    h = rayleigh(B, N, N)
    beams = mimo.allocate_power(mimo.leading_beams(h, K), full(snr_db), "water_filling")
    assert 0.1 < float((beams.s == 0).double().mean()) < 0.9
    return h, beams


@pytest.mark.parametrize("receiver", ["literal", "dmrs"])
def test_without_noise_streams_with_power_arrive_as_they_were_sent_and_others_as_zero(receiver: str) -> None:
    (h, beams), f, never = silenced(), mimo.normalise_streams(symbols()), full(math.inf)
    y = sent(h, beams, f, never)
    if receiver == "literal":
        detected = mimo.detect_literal(y, beams, never)
    else:
        effective = estimated(h, beams, never)
        detected = mimo.detect_dmrs(y, effective, never, never)
    torch.testing.assert_close(detected.symbols, f * (beams.s > 0)[..., None], atol=2e-3, rtol=2e-3)
    assert (detected.stream_snr_db[beams.s == 0] <= -49).all()


def test_both_receivers_know_the_same_of_an_allocation() -> None:
    (h, beams), f, snr_db = silenced(), mimo.normalise_streams(symbols()), full(-20.0)
    y = sent(h, beams, f, snr_db, make_generator(3))
    literal = mimo.detect_literal(y, beams, snr_db)
    dmrs = mimo.detect_dmrs(y, h @ beams.v, snr_db, full(math.inf))
    torch.testing.assert_close(literal.symbols, dmrs.symbols, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(literal.stream_snr_db, dmrs.stream_snr_db, atol=0.05, rtol=1e-2)


def test_silent_streams_send_no_pilots() -> None:
    h, beams = silenced()
    effective = estimated(h, beams, full(0.0), make_generator(1))
    assert ((effective.abs().sum(1) == 0) == (beams.s == 0)).all()


def test_rotations_keep_singular_values_and_their_squares_are_the_power() -> None:
    h = rayleigh(B, N, N)
    left, right = (torch.linalg.qr(rayleigh(B, N, N, seed=s)).Q for s in (8, 9))
    s = mimo.leading_beams(h, N).s
    torch.testing.assert_close(mimo.leading_beams(left @ h @ right, N).s, s, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(s.square().sum(1), h.abs().square().sum((1, 2)), rtol=1e-4, atol=1e-3)
    beams = mimo.leading_beams(h, K)
    torch.testing.assert_close(torch.linalg.svdvals(h @ beams.v), beams.s, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("power", ["equal", "water_filling"])
@pytest.mark.parametrize("scale_db", [-30.0, 6.0])
def test_a_louder_channel_is_as_good_as_less_noise(scale_db: float, power: mimo.Power) -> None:
    h, f, scale = rayleigh(B, N, N), mimo.normalise_streams(symbols()), 10 ** (scale_db / 20)

    def detected(gain: float, snr_db: float) -> mimo.Detected:
        beams = mimo.allocate_power(mimo.leading_beams(gain * h, K), full(snr_db), power)
        y = sent(gain * h, beams, f, full(snr_db), make_generator(3))
        return mimo.detect_literal(y, beams, full(snr_db))

    one, other = detected(1, 5.0), detected(scale, 5.0 - scale_db)
    torch.testing.assert_close(one.stream_snr_db, other.stream_snr_db, atol=1e-2, rtol=1e-3)
    torch.testing.assert_close(one.symbols, other.symbols, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("receiver", ["literal", "dmrs"])
def test_what_the_receivers_hand_on_does_not_depend_on_the_phases_of_singular_vectors(receiver: str) -> None:
    h, f, snr_db = rayleigh(B, N, N), symbols(), full(5.0)
    beams = mimo.leading_beams(h, K)
    phase = torch.polar(torch.ones(B, 1, K), 6 * torch.rand(B, 1, K, generator=make_generator(2)))
    turned = mimo.Beams(beams.u * phase, beams.s, beams.v * phase)
    found = []
    for one in (beams, turned):
        y = sent(h, one, f, full(math.inf))
        if receiver == "literal":
            found.append(mimo.detect_literal(y, one, snr_db))
        else:
            found.append(mimo.detect_dmrs(y, h @ one.v, snr_db, snr_db))
    torch.testing.assert_close(found[0].symbols, found[1].symbols, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(found[0].stream_snr_db, found[1].stream_snr_db, atol=1e-3, rtol=1e-3)


def test_noise_is_of_the_generator_whatever_the_tensors_are_on() -> None:
    one = white_noise((3, 2), torch.device("meta"), make_generator(1))
    assert one.device.type == "meta"
    torch.testing.assert_close(
        white_noise((3, 2), torch.device("cpu"), make_generator(1)),
        torch.randn(3, 2, dtype=torch.complex64, generator=make_generator(1)),
    )


def test_what_is_sent_side_by_side_meets_the_same_noise_and_a_precoded_link_is_the_same_link() -> None:
    h, f, never = rayleigh(B, N, N), symbols(), full(math.inf)
    link = LinkState(h, mimo.leading_beams(h, K), full(3.0))
    noise = Noise.draw(link, M, make_generator(3))
    one = transmit(link, f, noise.antennas)
    both = transmit(link, torch.cat([f, 2 * f], dim=2), noise.antennas)
    torch.testing.assert_close(both[:, :, :M], one)
    clean = sent(h, link.beams, f, never)
    torch.testing.assert_close(both[:, :, M:], one + clean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(transmit(link.precoded(), f, noise.antennas), one, atol=1e-4, rtol=1e-4)
    for receiver in RECEIVERS:
        there, once = (detect(of, one, receiver, noise) for of in (link, link.precoded()))
        torch.testing.assert_close(there.symbols, once.symbols, atol=1e-4, rtol=1e-3)
    with pytest.raises(ValueError, match="noise of its pilots"):
        detect(link, one, "dmrs", Noise(noise.antennas))
