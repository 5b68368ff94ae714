"""CSI artifacts in memory."""

from pathlib import Path

import pyarrow as pa
import pytest
import torch

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.plan import Plan, make_shards
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.csi.sets import CsiSet, CsiShape, csi_from_table, csi_to_table, iter_csi, load_csi
from sclmkb.common.errors import UserError


def channels(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.complex64)


def drops(num_rx: int = 2, num_subcarriers: int = 1) -> CsiSet:
    history, double = channels(5, 4, num_rx, 3), torch.full((5,), 5e-4, dtype=torch.float64)
    return CsiSet(
        drop_ids=[f"d{i}" for i in range(5)], scenarios=["umi-los"] * 5, users=[""] * 5,
        num_subcarriers=num_subcarriers, history=history, clean_history=history.clone(),
        future=channels(5, 2, num_rx, 3, seed=1), speed_kmh=torch.full((5,), 30.0), pilot_snr_db=10 + torch.arange(5.0),
        carrier_hz=double, sample_period_s=double, x_m=torch.full((5,), torch.nan), y_m=torch.full((5,), torch.nan),
    )  # fmt: skip


def write(root: Path, found: CsiSet) -> Path:
    """Write the drops as a training split of three shards."""
    shards = make_shards("train", found.drop_ids, 2)
    table = csi_to_table(found, "train")
    run = Run.open(root, Plan(kind="csi", tables={"csi": table.schema}, settings={}, shards=shards, inputs={}))
    for i, shard in enumerate(shards):
        run.commit_shard(shard, {"csi": table.slice(2 * i, 2)})
    run.finish("t", "d")
    return root


def test_what_was_written_is_read_in_order_one_shard_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = drops()
    root = write(tmp_path / "csi", written)
    found = load_csi(root, "train")
    assert found.shape == CsiShape(num_history=4, num_future=2, num_rx=2, num_tx=3)
    for name, value in vars(written).items():
        read = getattr(found, name)
        if name in ("x_m", "y_m"):
            assert read.isnan().all()
        else:
            assert torch.equal(read, value) if isinstance(value, torch.Tensor) else read == value
    table, opened = Artifact.shard_table, []

    def watched(self: Artifact, name: str, shard: str) -> pa.Table:
        opened.append(shard)
        return table(self, name, shard)

    monkeypatch.setattr(Artifact, "shard_table", watched)
    shards = iter_csi(root)
    first, part = next(shards)
    assert opened == [first], "the next shard is not read before it is asked for"
    assert [len(part), *(len(other) for _, other in shards)] == [2, 2, 1]


@pytest.mark.parametrize("value", [complex("nan"), complex(0, float("inf"))])
def test_not_finite_names_shard_and_drop(tmp_path: Path, value: complex) -> None:
    spoilt = drops()
    spoilt.future[3, 1, 0, 1] = value
    with pytest.raises(UserError, match=r"train-00001-of-00003.*'future' of drop d3 is NaN or infinite"):
        load_csi(write(tmp_path / "csi", spoilt), "train")


def test_what_is_no_such_set_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no split 'test', it has train"):
        load_csi(write(tmp_path / "csi", drops()), "test")
    table = csi_to_table(drops(num_rx=3, num_subcarriers=2), "train")
    with pytest.raises(UserError, match="3 rows cannot be"):
        csi_from_table(table, "a table")
    with pytest.raises(UserError, match="a table has no column 'future_imag'"):
        csi_from_table(table.drop_columns(["future_imag"]), "a table")
