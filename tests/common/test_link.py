from collections.abc import Callable
from pathlib import Path

import pytest

from sclmkb.common.channel.link import load_link_csi
from sclmkb.common.errors import UserError


def test_the_transceiver_takes_narrowband_csi_alone(tmp_path: Path, write_path_csi: Callable[..., Path]) -> None:
    link = load_link_csi(write_path_csi(tmp_path / "narrow"), None, "test", "perfect", 2)
    assert link.num_steps == 4
    wide = write_path_csi(tmp_path / "wide", num_subcarriers=2)
    with pytest.raises(UserError, match=r"wide is wideband \(2 subcarriers\).* num_subcarriers=1"):
        load_link_csi(wide, None, "test", "perfect", 2)
