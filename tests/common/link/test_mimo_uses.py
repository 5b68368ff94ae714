"""The MIMO link in the place of the channel of one antenna."""

import pytest
import torch
from torch import Tensor

from sclmkb.common.errors import UserError
from sclmkb.common.link.mimo_uses import MimoUses, open_uses_channel
from sclmkb.common.link.state import CsiSource, LinkCsi
from sclmkb.common.link.uses import UsesChannelSettings, draw_gains, sample_draws

SETTINGS = UsesChannelSettings(kind="mimo", num_streams=4)


def opened(source: CsiSource = "perfect", receiver: str = "dmrs") -> MimoUses:
    """Channels of 8 × 8 antennas that change from step to step."""
    draw = torch.Generator().manual_seed(0)
    h = torch.randn(12, 3, 8, 8, dtype=torch.complex64, generator=draw)
    steps = torch.stack([h[:, 0], *(0.6 * h[:, 0] + 0.8 * h[:, i] for i in (1, 2))], dim=1)
    csi = LinkCsi.build(source, 4, history=steps[:, :1], future=steps[:, 1:])
    return MimoUses(settings=SETTINGS.model_copy(update={"csi_source": source, "receiver": receiver}), csi=csi)


def symbols(num: int, count: int) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(num, count, dtype=torch.complex64, generator=draw)


def error(channel: MimoUses, snr_db: float) -> float:
    sent = symbols(400, 10)
    arrived = channel.convey(
        sent, torch.ones(400, 10, dtype=torch.bool), torch.full((400,), float(snr_db)), torch.Generator().manual_seed(2)
    )
    return float((arrived - sent).abs().square().mean())


@pytest.mark.parametrize("receiver", ["literal", "dmrs"])
def test_without_noise_and_with_perfect_csi_symbols_arrive_as_sent(receiver: str) -> None:
    """Ten symbols do not fill three uses of four streams: what is padded does not show."""
    assert error(opened(receiver=receiver), 80) < 1e-5
    assert error(opened(receiver=receiver), 0) > 0.02


def test_stale_csi_is_worse_than_perfect_csi() -> None:
    assert error(opened("stale"), 15) > 1.5 * error(opened(), 15)


def test_the_power_of_all_antennas_is_one_per_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 0 dB, the noise of an antenna has the power of everything that is sent."""
    channel, sent = opened(), symbols(3000, 8)
    taken = []
    from sclmkb.common.link import link

    def heard(state: object, f: Tensor, noise: Tensor) -> Tensor:
        taken.append(f)
        return transmit(state, f, noise)  # type: ignore[arg-type]

    transmit = link.transmit
    monkeypatch.setattr(link, "transmit", heard)
    channel.convey(sent, torch.ones(3000, 8, dtype=torch.bool), torch.zeros(3000), torch.Generator().manual_seed(0))
    assert float(taken[0].abs().square().sum(1).mean()) == pytest.approx(1, abs=0.02)


def test_a_sample_is_the_same_alone_and_in_a_batch_and_unsent_symbols_do_not_count() -> None:
    channel, sent = opened(), torch.ones(6, 8, dtype=torch.bool)
    sent[:, 5:] = False
    values, snr_db = torch.where(sent, symbols(6, 8), 0), torch.full((6,), 10.0)
    whole = channel.convey(values, sent, snr_db, sample_draws(0, range(6)))
    alone = channel.convey(values[2:3], sent[2:3], snr_db[:1], sample_draws(0, [2]))
    torch.testing.assert_close(whole[2:3], alone, atol=1e-4, rtol=1e-4)
    assert not whole[:, 5:].any()


def test_mimo_needs_csi_and_has_no_single_gain() -> None:
    with pytest.raises(UserError, match="--csi"):
        open_uses_channel(SETTINGS, None, None, "test")
    with pytest.raises(UserError, match="many antennas"):
        draw_gains(SETTINGS, 3, torch.Generator())
    assert open_uses_channel(UsesChannelSettings(), None, None, "test").name == "awgn"  # type: ignore[attr-defined]
    assert SETTINGS.name == "mimo-perfect"
