"""The Sionna adapter against Sionna itself."""

import pytest
import torch

from sclmkb.generate.csi.channels import sionna as adapter
from sclmkb.generate.csi.channels.sionna import AntennaPanel, Link, simulate_drops

pytest.importorskip("sionna.phy")

PAIR, SINGLE = AntennaPanel(rows=1, columns=2, polarised=True), AntennaPanel(rows=1, columns=1, polarised=False)


def link(**changes: object) -> Link:
    values = {
        "base": PAIR, "terminal": SINGLE, "carrier_hz": 2.4e9, "num_samples": 6, "sample_period_s": 1e-3, **changes
    }  # fmt: skip
    return Link(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("num_subcarriers", [1, 8, 9])
def test_the_frequency_response_is_sionnas(num_subcarriers: int) -> None:
    from sionna.phy.channel import cir_to_ofdm_channel, subcarrier_frequencies

    generator = torch.Generator().manual_seed(0)
    gains = torch.randn(3, 2, 4, 5, 6, dtype=torch.complex64, generator=generator)
    delays = 1e-6 * torch.rand(3, 5, generator=generator)
    found = adapter._response(link(num_subcarriers=num_subcarriers), gains, delays)
    frequencies = subcarrier_frequencies(num_subcarriers, 30e3, device="cpu")
    wanted = cir_to_ofdm_channel(frequencies, gains[:, None, :, None], delays[:, None, None])
    wanted = wanted[:, 0, :, 0].permute(0, 3, 4, 1, 2).flatten(2, 3)  # [B, S, K · Nr, Nt]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_paths_that_do_not_exist_do_not_count() -> None:
    gains = torch.ones(1, 1, 1, 3, 2, dtype=torch.complex64)
    delays = torch.tensor([[0.0, 1e-7, 3.0]])  # seconds: Sionna's padding
    assert torch.equal(adapter._response(link(), gains, delays), torch.full((1, 2, 1, 1), 2 + 0j))


def test_delays_of_a_cdl_scale_with_the_spread() -> None:
    from sionna.phy.channel import tr38901

    base, terminal = adapter._arrays(link())
    delays = [
        tr38901.CDL(
            model="C", delay_spread=spread, carrier_frequency=2.4e9, ut_array=terminal, bs_array=base, device="cpu"
        )(1, 1, 1e3)[1]
        for spread in (1.0, 300e-9)
    ]  # fmt: skip
    torch.testing.assert_close(300e-9 * delays[0], delays[1])


def test_a_standing_terminal_has_a_constant_channel_and_a_faster_one_a_wider_spectrum() -> None:
    speeds = torch.tensor([0.0] * 20 + [30.0] * 20 + [120.0] * 20)
    for scenario in ("cdl-a", "umi-nlos"):
        h = simulate_drops(link(), scenario, speeds, torch.full((60,), 1e-7), seed=3).h
        assert h.shape == (60, 6, 1, 4)
        change = (h[:, 1] - h[:, 0]).abs().square().sum((1, 2)) / h[:, 0].abs().square().sum((1, 2))
        still, slow, fast = change.view(3, 20).mean(1)
        assert still < 1e-8
        assert fast > 4 * slow > 0


def test_a_panel_counts_its_antennas() -> None:
    assert PAIR.num_antennas == 4
    assert SINGLE.num_antennas == 1
    h = simulate_drops(link(terminal=PAIR), "cdl-e", torch.tensor([3.0]), torch.tensor([1e-7]), seed=0).h
    assert h.shape == (1, 6, 4, 4)
