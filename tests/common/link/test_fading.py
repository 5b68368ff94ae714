import math

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sclmkb.common.link import mimo
from sclmkb.common.link.fading import FadingModel, FadingSettings, draw_channels
from sclmkb.common.link.link import RECEIVERS, Receiver, convey
from sclmkb.common.link.sources import CsiSource, LinkCsi, LinkSettings, load_link_csi
from sclmkb.common.metrics import spectral_efficiency
from sclmkb.common.seeds import make_generator

MODELS: tuple[FadingModel, ...] = ("awgn", "rayleigh", "rician")


def channels(model: FadingModel, steps: int = 1, seed: int = 0, **fields: object) -> torch.Tensor:
    settings = FadingSettings.model_validate({"num_drops": 400, "num_rx": 8, "num_tx": 6} | fields)
    return draw_channels(model, settings, 4, steps, make_generator(seed, model))


def drawn(channel: str, source: CsiSource = "perfect", streams: int = 4, **settings: object) -> LinkCsi:
    return load_link_csi(None, None, "test", source, streams, LinkSettings(channel=channel, **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("model", MODELS)
def test_entries_have_unit_power_and_channels_follow_from_the_seed(model: FadingModel) -> None:
    h = channels(model, steps=2)
    assert float(h.abs().square().mean()) == pytest.approx(1, abs=0.02)
    assert torch.equal(h, channels(model, steps=2))
    if model != "awgn":
        assert h.shape == (400, 2, 8, 6)
        assert not torch.equal(h, channels(model, steps=2, seed=1))


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.977, 1.0])
def test_neighbouring_steps_have_the_stated_correlation(rho: float) -> None:
    h = channels("rayleigh", steps=3, step_correlation=rho)
    for lag in (1, 2):
        found = (h[:, lag:] * h[:, :-lag].conj()).mean()
        assert complex(found) == pytest.approx(rho**lag, abs=0.02)


@pytest.mark.parametrize("k_db", [-10.0, 0.0, 20.0])
def test_the_direct_path_of_rician_channels_has_rank_one_and_its_share_of_power(k_db: float) -> None:
    steps = 60
    h = channels("rician", steps=steps, rician_k_db=k_db, step_correlation=0.0)
    direct = h.mean(1)  # what is scattered is new at every step
    k = 10 ** (k_db / 10)
    expected = k / (k + 1) + 1 / (k + 1) / steps
    assert float(direct.abs().square().mean()) == pytest.approx(expected, rel=0.05)
    if k_db == 20:
        s = torch.linalg.svdvals(direct)
        assert float((s[:, 1] / s[:, 0]).max()) < 0.02


@pytest.mark.parametrize("receiver", RECEIVERS)
@pytest.mark.parametrize("snr_db", [0.0, 5.0, 9.0])
def test_qpsk_over_awgn_has_the_symbol_errors_of_theory(snr_db: float, receiver: Receiver) -> None:
    num, uses, k = 500, 400, 2
    nowhere = torch.zeros(num, dtype=torch.long)
    link = drawn("awgn", streams=k).state(nowhere, nowhere, torch.full((num,), snr_db))
    torch.testing.assert_close(link.stream_snr_db, torch.full((num, k), snr_db), atol=1e-4, rtol=1e-4)
    draw = make_generator(1)
    bits = torch.randint(0, 2, (num, k, uses, 2), generator=draw)
    f = torch.view_as_complex((2.0 * bits - 1) / math.sqrt(2 * k))
    torch.testing.assert_close(mimo.normalise_symbols(f), f)
    symbols = convey(link, f, receiver, draw, pilot_boost_db=math.inf).symbols
    wrong = ((torch.view_as_real(symbols) > 0) != bits.bool()).any(-1).double().mean()
    q = 0.5 * math.erfc(math.sqrt(10 ** (snr_db / 10)) / math.sqrt(2))
    expected = 2 * q - q * q
    sigma = math.sqrt(expected * (1 - expected) / (num * k * uses))
    assert abs(float(wrong) - expected) < 4 * sigma


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 20.0])
def test_capacity_of_rayleigh_channels_is_telatars(snr_db: float) -> None:
    size = 16
    csi = drawn("rayleigh", streams=size, fading=FadingSettings(num_drops=300))
    rho = 10 ** (snr_db / 10)  # many antennas, as many at each end: Telatar 1999; Verdú and Shamai 1999
    root = math.sqrt(1 + 4 * rho)
    per_antenna = 2 * math.log2((1 + root) / 2) - (root - 1) ** 2 / (4 * rho * math.log(2))
    assert csi.spectral_efficiency([0], snr_db) == pytest.approx(size * per_antenna, rel=0.01)


@given(snr_db=st.floats(-15, 30), channel=st.sampled_from(["rayleigh", "rician"]))
@hypothesis_settings(max_examples=15, deadline=None)
def test_no_allocation_carries_more_than_water_filling(snr_db: float, channel: FadingModel) -> None:
    sizes = FadingSettings(num_drops=8, num_rx=8, num_tx=6, num_steps=1)
    equal, filled = (drawn(channel, streams=6, power=p, fading=sizes) for p in ("equal", "water_filling"))
    best = filled.spectral_efficiency([0], snr_db)
    assert best >= equal.spectral_efficiency([0], snr_db) - 1e-4
    h, beams = filled.h[:, 0], filled.beams.map(lambda x: x[:, 0])
    shares = torch.rand(8, 6, generator=make_generator(int(snr_db * 10)))
    other = beams.scaled((6 * shares / shares.sum(1, keepdim=True)).sqrt())
    assert best >= float(spectral_efficiency(h, other.v, torch.full((8,), snr_db)).mean()) - 1e-4


def test_spectral_efficiency_of_a_link_is_that_of_the_metric() -> None:
    csi = drawn("rician", "stale")
    for steps in ([0, 2], [1]):
        h, v = csi.h[:, steps].flatten(0, 1), csi.beams.v[:, steps].flatten(0, 1)
        for snr_db in (0.0, 13.0):
            expected = float(spectral_efficiency(h, v, torch.full((len(h),), snr_db)).double().mean())
            assert csi.spectral_efficiency(steps, snr_db) == pytest.approx(expected, rel=1e-4)
