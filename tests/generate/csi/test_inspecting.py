from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sclmkb.common.csi.sets import CsiSet
from sclmkb.common.errors import UserError
from sclmkb.generate import cli
from sclmkb.generate.csi.inspecting import (
    SNRS_DB,
    capacity_curves,
    delay_spectrum,
    doppler_spectrum,
    inspect_drops,
    inspect_shard,
)


def tone(num_samples: int, turn: float) -> torch.Tensor:
    return torch.polar(torch.ones(num_samples), 2 * torch.pi * turn * torch.arange(num_samples))


def test_a_doppler_tone_is_found_at_its_frequency() -> None:
    h = tone(20, 0.15).view(1, 20, 1, 1).expand(3, -1, 2, 2)
    frequencies, power = doppler_spectrum(h, torch.full((3,), 0.5e-3, dtype=torch.float64))
    assert float(frequencies[power.argmax()]) == pytest.approx(300, abs=15)
    assert float(power.sum()) == pytest.approx(1)
    assert power[(frequencies - 300).abs() > 150].sum() < 1e-2


def test_a_path_is_found_at_its_delay() -> None:
    response = tone(64, -5 / 64).view(1, 1, 64, 1, 1)
    delays, power = delay_spectrum(response, 30e3)
    assert float(delays[power.argmax()]) == pytest.approx(5 / (64 * 30e3))
    narrow, _ = delay_spectrum(response[:, :, :1], 30e3)
    assert len(narrow) == 0


def test_capacity_is_that_of_channels_one_can_compute_by_hand() -> None:
    snr = torch.pow(10.0, torch.tensor(SNRS_DB) / 10)
    curves = capacity_curves(torch.tensor([[4.0, 4.0]]), 2)
    torch.testing.assert_close(curves["water-filling"], 2 * torch.log2(1 + 2 * snr))
    torch.testing.assert_close(curves["equal power"], curves["water-filling"])
    weak = capacity_curves(torch.tensor([[4.0, 1e-6]]), 2)
    torch.testing.assert_close(weak["water-filling"], torch.log2(1 + 4 * snr))
    torch.testing.assert_close(weak["strongest mode"], weak["water-filling"])
    mixed = capacity_curves(torch.tensor([[5.0, 2.0, 0.3]]), 3)
    for other in ("equal power", "strongest mode"):
        assert (mixed["water-filling"] >= mixed[other] - 1e-5).all()


def test_a_shard_is_drawn_and_described(
    write_path_csi: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = write_path_csi(tmp_path / "csi")
    found = inspect_shard(root, "test-00000-of-00001")
    assert found.antenna_power.mean() == pytest.approx(1)
    assert found.beam_power.sum() == pytest.approx(1)
    assert found.mode_power.sum() == pytest.approx(1)
    assert (found.mode_power.diff() <= 0).all()
    monkeypatch.setattr("sys.argv", ["sclmkb-gen", "inspect", str(root), "--out", str(tmp_path / "drawn.png")])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "paths (25)" in printed
    assert "4 receive, 4 transmit" in printed
    assert (tmp_path / "drawn.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match=r"no shard 'nowhere', it has train-00000-of-00002"):
        inspect_shard(root, "nowhere")


def test_wideband_rows_are_told_apart_from_antennas() -> None:
    def rows(num: int) -> torch.Tensor:
        return torch.randn(6, num, 8 * 2, 3, dtype=torch.complex64, generator=torch.Generator().manual_seed(num))

    drops = CsiSet(
        drop_ids=list("abcdef"), scenarios=["x"] * 6, users=["u", "v"] * 3, num_subcarriers=8,
        history=rows(5), clean_history=rows(5), future=rows(2), speed_kmh=torch.full((6,), 3.0),
        pilot_snr_db=torch.full((6,), 10.0), carrier_hz=torch.full((6,), 1e9, dtype=torch.float64),
        sample_period_s=torch.full((6,), 1e-3, dtype=torch.float64), x_m=torch.zeros(6), y_m=torch.zeros(6),
    )  # fmt: skip
    found = inspect_drops(drops, "x", 15e3)
    assert found.antenna_power.shape == (2, 3)
    assert found.mode_power.shape == (2,)
    assert len(found.delay_s) == 8
    assert "of 2 users" in found.facts["drops"]
