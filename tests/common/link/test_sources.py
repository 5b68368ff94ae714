import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sclmkb.common.csi.feedback import FeedbackCodebook
from sclmkb.common.csi.sets import load_csi
from sclmkb.common.csi.tensors import normalise_power
from sclmkb.common.errors import UserError
from sclmkb.common.link import mimo
from sclmkb.common.link.link import RECEIVERS, Receiver
from sclmkb.common.link.sources import LinkCsi, LinkSettings, load_link_csi
from sclmkb.common.models.transceiver import Transceiver, TransceiverSettings
from sclmkb.common.seeds import make_generator
from sclmkb.common.tasks.over_link import sweep_queries

FADING: dict[str, Any] = {"num_rx": 6, "num_tx": 4, "num_drops": 60, "num_steps": 2}


def drawn(source: str = "perfect", streams: int = 2, split: str = "test", **fields: Any) -> LinkCsi:
    settings = LinkSettings.model_validate({"channel": "rayleigh", "fading": FADING} | fields)
    return load_link_csi(None, None, split, source, streams, settings)  # type: ignore[arg-type]


def rayleigh(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, dtype=torch.complex64, generator=make_generator("test", seed))


def rebuilt(csi: LinkCsi) -> torch.Tensor:
    """Return the channel that the transmitter believes in."""
    u, s, v = csi.beams
    return (u * s[..., None, :]) @ v.mH


def transceiver(streams: int = 2) -> Transceiver:
    torch.manual_seed(0)
    shape = {"num_streams": streams, "num_uses": 3, "text_width": 12, "hidden_width": 16, "embedding_width": 8}
    media = {"kind": "cnn", "size": 16, "widths": [8, 8]}
    return Transceiver(TransceiverSettings.model_validate({**shape, "media": media})).eval()


def test_feedback_is_the_quantised_sample_of_its_age() -> None:
    history, future = rayleigh(50, 5, 4, 4), rayleigh(50, 3, 4, 4, seed=1)
    codebook = FeedbackCodebook.fit(history.flatten(0, 1), 200)
    for delay in (1, 3, 5):
        csi = LinkCsi.build("feedback", 4, history, future, codebook=codebook, delay=delay)
        expected = codebook.quantise(history[:, -delay])
        for step in range(3):
            torch.testing.assert_close(rebuilt(csi)[:, step], expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(UserError, match="feedback_delay = 6 steps: the history has 5 samples"):
        LinkCsi.build("feedback", 4, history, future, codebook=codebook, delay=6)


def test_more_bits_and_less_delay_make_better_csi_and_enough_bits_make_it_stale_csi() -> None:
    def error(csi: LinkCsi) -> float:
        return float((rebuilt(csi) - csi.h).abs().square().mean())

    by_bits = [error(drawn("feedback", 4, feedback_bits=bits)) for bits in (8, 96, 384)]
    assert by_bits[0] > by_bits[1] > by_bits[2] > error(drawn("stale", 4))
    assert by_bits[2] < 1.3 * error(drawn("stale", 4))
    slow = {**FADING, "step_correlation": 0.9}
    assert error(drawn("feedback", 4, feedback_delay=4, feedback_bits=96, fading=slow)) > error(
        drawn("feedback", 4, feedback_bits=96, fading=slow)
    )


def test_the_code_book_is_fitted_to_training_drops_alone(tmp_path: Path, write_path_csi: Callable[..., Path]) -> None:
    csi = write_path_csi(tmp_path / "csi")
    found = load_link_csi(csi, None, "test", "feedback", 2, LinkSettings(feedback_bits=40, feedback_delay=2))
    train, test = load_csi(csi, "train"), load_csi(csi, "test")
    codebook = FeedbackCodebook.fit(train.history.flatten(0, 1), 40)
    expected = LinkCsi.build("feedback", 2, test.history, test.future, codebook=codebook, delay=2)
    torch.testing.assert_close(tuple(found.beams), tuple(expected.beams))


def test_channels_of_splits_differ_and_are_the_same_for_every_source_and_power() -> None:
    csi = drawn()
    assert not torch.equal(csi.h, drawn(split="train").h)
    for other in (drawn("stale"), drawn("feedback", feedback_bits=16), drawn(power="water_filling"), drawn(streams=4)):
        assert torch.equal(csi.h, other.h)


def test_a_state_has_the_power_that_its_csi_and_snr_say() -> None:
    csi = drawn("stale", 4, power="water_filling")
    drop, step, snr_db = torch.tensor([3, 3, 7]), torch.tensor([0, 1, 1]), torch.tensor([-20.0, 30.0, 0.0])
    state = csi.state(drop, step, snr_db)
    raw = csi.beams.map(lambda x: x[drop, step])
    torch.testing.assert_close(tuple(state.beams), tuple(mimo.allocate_power(raw, snr_db, "water_filling")))
    assert (state.beams.s[0] == 0).any()
    assert (state.beams.s[1] > 0).all()
    part = state.part(slice(1, None))
    assert (part.power, len(part.h), len(part.snr_db)) == ("water_filling", 2, 2)
    torch.testing.assert_close(part.stream_snr_db, state.stream_snr_db[1:])
    believed = 10 * torch.log10(state.beams.s[1].square() / 4) + 30
    torch.testing.assert_close(state.stream_snr_db[1], believed)


@pytest.mark.parametrize("power", ["equal", "water_filling"])
@pytest.mark.parametrize("source", ["perfect", "stale"])
def test_a_sweep_is_what_the_link_does_one_by_one(source: str, power: str) -> None:
    model, csi = transceiver(), drawn(source, power=power)
    text, seed, steps = torch.randn(30, 12), 4, [0, 1]
    swept = list(sweep_queries(model, text, csi, snrs_db=(-10.0, 15.0), receivers=RECEIVERS, steps=steps, seed=seed))
    assert [(sent.snr_db, sent.receiver) for sent in swept] == [(s, r) for s in (-10.0, 15.0) for r in RECEIVERS]
    for sent in swept:
        draw = make_generator(seed, "queries")
        drop = torch.randint(csi.num_drops, (30,), generator=draw)
        link = csi.state(drop, torch.tensor(steps).repeat(15), torch.full((30,), sent.snr_db))
        with torch.no_grad():
            f = model.encode(text, link)
            detected = model.convey(f, link, sent.receiver, draw)
            torch.testing.assert_close(sent.embeddings, model.decode(detected, link), atol=1e-4, rtol=1e-3)
            torch.testing.assert_close(sent.symbol_mse, mimo.symbol_mse(f, detected.symbols), atol=1e-4, rtol=1e-3)
        power = (link.beams.v @ f).abs().square().sum((1, 2)) / 3
        torch.testing.assert_close(power, torch.ones(30), atol=1e-4, rtol=1e-4)
        assert not sent.embeddings.requires_grad


@pytest.mark.parametrize("receiver", RECEIVERS)
def test_without_a_link_features_reach_the_decoder_unchanged_at_every_snr(receiver: Receiver) -> None:
    model, text = transceiver(), torch.randn(9, 12)
    csi = drawn(channel="none")
    nowhere = torch.zeros(9, dtype=torch.long)
    results = []
    for snr_db in (-15.0, 25.0):
        link = csi.state(nowhere, nowhere, torch.full((9,), snr_db))
        f = model.encode(text, link)
        detected = model.convey(f, link, receiver)
        assert detected.symbols is f
        results.append(model.decode(detected, link))
        (sent,) = sweep_queries(model, text, csi, snrs_db=(snr_db,), receivers=(receiver,), steps=[0], seed=0)
        torch.testing.assert_close(sent.embeddings, results[-1].detach())
        assert float(sent.symbol_mse.max()) == 0
    assert torch.equal(results[0], results[1])
    assert math.isnan(csi.spectral_efficiency([0], 0.0))
    results[0].square().sum().backward()
    assert model.encoder.symbols.weight.grad is not None


@pytest.mark.parametrize("receiver", RECEIVERS)
def test_a_perfect_awgn_link_is_no_link(receiver: Receiver) -> None:
    model, text = transceiver(), torch.randn(9, 12)
    nowhere = torch.zeros(9, dtype=torch.long)
    found = []
    for channel in ("none", "awgn"):
        link = drawn(channel=channel).state(nowhere, nowhere, torch.full((9,), math.inf))
        found.append(model(text, link, receiver))
    torch.testing.assert_close(found[0], found[1], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("receiver", RECEIVERS)
@pytest.mark.parametrize("power", ["equal", "water_filling"])
@pytest.mark.parametrize("channel", ["awgn", "rayleigh", "rician", "none"])
def test_every_link_trains(channel: str, power: str, receiver: Receiver) -> None:
    csi, model = drawn("stale", 4, channel=channel, power=power), transceiver(4).train()
    drop = torch.arange(20) % csi.num_drops
    link = csi.state(drop, drop % csi.num_steps, torch.linspace(-30, 60, 20))
    f = model.limit_power(2 * model.encode(torch.randn(20, 12), link), link)  # as after fusion
    model.decode(model.convey(f, link, receiver, make_generator(0)), link)[:, 0].sum().backward()
    for name, parameter in [*model.encoder.named_parameters(), *model.decoder.named_parameters()]:
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_both_ends_are_conditioned_on_what_they_know() -> None:
    csi = drawn("stale", 4, power="water_filling")
    model = transceiver(4)
    heard: dict[str, torch.Tensor] = {}
    for name in ("encoder", "decoder"):
        getattr(model, name).condition.register_forward_pre_hook(
            lambda _, given, name=name: heard.update({name: 20 * given[0]})
        )
    drop = torch.arange(40)
    link = csi.state(drop, drop * 0, torch.full((40,), -12.0))
    detected = model.convey(model.encode(torch.randn(40, 12), link), link, "dmrs", make_generator(0))
    model.decode(detected, link)
    for name, streams in (("encoder", link.stream_snr_db), ("decoder", detected.stream_snr_db)):
        torch.testing.assert_close(heard[name][:, 0], link.snr_db)
        torch.testing.assert_close(heard[name][:, 1:], streams.clamp(-30, 50))
    assert (heard["encoder"][:, 1:][link.beams.s == 0] == -30).all()
    assert (heard["decoder"][:, 1:][link.beams.s == 0] == -30).all()


def test_more_streams_than_the_rank_are_refused() -> None:
    one = rayleigh(7, 1, 6, 1) @ rayleigh(7, 1, 1, 4, seed=1)  # a keyhole: rank 1
    with pytest.raises(UserError, match=r"num_streams = 2 is more than the rank of 7 of 7 channels .* at most 1"):
        LinkCsi.build("perfect", 2, one, one)


def test_what_a_channel_cannot_give_is_said(tmp_path: Path, write_path_csi: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match="source 'predicted' is for CSI shards"):
        drawn("predicted")
    with pytest.raises(UserError, match="needs a CSI artifact"):
        drawn(channel="shards")
    with pytest.raises(UserError, match=r"feedback_bits = 100000 are more than the 24 entries .* at most 384"):
        drawn("feedback", feedback_bits=100000)
    narrow, wide = (write_path_csi(tmp_path / str(count), num_subcarriers=count) for count in (1, 2))
    with pytest.raises(UserError, match="needs predicted CSI"):
        load_link_csi(narrow, None, "test", "predicted", 2, LinkSettings())
    with pytest.raises(UserError, match=r"is wideband \(2 subcarriers\).* num_subcarriers=1"):
        load_link_csi(wide, None, "test", "perfect", 2, LinkSettings())


@pytest.mark.slow
@pytest.mark.parametrize(("scenario", "filled", "equal"), [("umi-los", 37.7, 35.8), ("uma-nlos", 50.3, 49.2)])
def test_capacity_of_3gpp_channels_is_that_of_an_earlier_measurement(
    scenario: str, filled: float, equal: float
) -> None:
    """16×16 at 20 dB: water-filling, and 8 equal streams; measured with another program on 1,000 drops."""
    pytest.importorskip("sionna.phy")
    from sclmkb.generate.csi.channels.sionna import AntennaPanel, Link, simulate_drops

    panel = AntennaPanel(rows=2, columns=4, polarised=True)
    sampling = Link(base=panel, terminal=panel, carrier_hz=3.5e9, num_samples=1, sample_period_s=5e-4)
    made = simulate_drops(sampling, scenario, torch.full((200,), 30.0), torch.full((200,), 1e-7), seed=2).h
    h, _ = normalise_power(made)
    for power, expected in (("water_filling", filled), ("equal", equal)):
        found = LinkCsi.build("perfect", 8, h, h, power=power).spectral_efficiency([0], 20.0)
        assert found == pytest.approx(expected, rel=0.03)
