import json
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from beartype import beartype
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import jaxtyped

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.plan import Plan, make_shards
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.artifacts.schemas import csi_schema, pack_complex
from sclmkb.common.csi import tensors as csi
from sclmkb.common.errors import UserError


def checked(function):  # type: ignore[no-untyped-def]
    return jaxtyped(typechecker=beartype)(function)


def channels(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.complex64)


@given(batch=st.integers(1, 3), steps=st.integers(1, 6), rx=st.integers(1, 6), tx=st.integers(1, 6))
@settings(max_examples=25, deadline=None)
def test_beams_are_unitary_and_invertible(batch: int, steps: int, rx: int, tx: int) -> None:
    h = channels(batch, steps, rx, tx, seed=batch + 10 * steps)
    beams = csi.EigenBeams.of(h)
    for basis in (beams.u, beams.v):
        eye = torch.eye(basis.shape[-1], dtype=torch.complex64).expand_as(basis)
        assert torch.allclose(basis.mH @ basis, eye, atol=1e-4)
    b = beams.to_beams(h)
    assert torch.allclose(beams.from_beams(b), h, atol=1e-4)
    assert torch.allclose(b.abs().square().sum(), h.abs().square().sum(), rtol=1e-4)
    receive_power = b.abs().square().sum((1, 3))
    assert (receive_power.diff(dim=1) <= 1e-3).all(), "strongest first"


def test_normalised_power_is_one_and_the_scale_undoes_it() -> None:
    h = 7 * channels(4, 10, 3, 5)
    unit, scale = checked(csi.normalise_power)(h, 6)
    assert torch.allclose(unit[:, :6].abs().square().mean((1, 2, 3)), torch.ones(4), atol=1e-5)
    assert torch.allclose(unit * scale, h, atol=1e-5)
    zeros, _ = csi.normalise_power(torch.zeros(1, 2, 3, 3, dtype=torch.complex64))
    assert torch.equal(zeros, torch.zeros_like(zeros))


def test_measured_pilot_snr_is_the_one_asked_for() -> None:
    snr_db = torch.tensor([-5.0, 0.0, 10.0, 30.0])
    h = torch.ones(4, 40, 16, 16, dtype=torch.complex64)
    noisy = checked(csi.add_pilot_noise)(h, snr_db, torch.Generator().manual_seed(0))
    measured = -10 * torch.log10((noisy - h).abs().square().mean((1, 2, 3)))
    assert torch.allclose(measured, snr_db, atol=0.15)
    again = csi.add_pilot_noise(h, snr_db, torch.Generator().manual_seed(0))
    assert torch.equal(noisy, again)


def test_complex_and_real_are_inverse() -> None:
    h = channels(2, 5, 3, 4)
    x = checked(csi.complex_to_real)(h)
    assert x.shape == (2, 5, 24)
    assert torch.equal(csi.real_to_complex(x, 3, 4), h)


def write_artifact(root: Path, history: torch.Tensor, future: torch.Tensor, shard_size: int = 2) -> None:
    num = len(history)
    schema = csi_schema(history.shape[1], future.shape[1], *history.shape[2:])
    shards = make_shards("train", [f"d{i}" for i in range(num)], shard_size)
    run = Run.open(root, Plan(kind="csi", tables={"csi": schema}, settings={}, shards=shards, inputs={}))
    for shard in shards:
        rows = torch.tensor([int(name[1:]) for name in shard.row_ids])
        arrays = {
            "drop_id": pa.array(shard.row_ids),
            "split": pa.array(["train"] * len(rows)),
            "scenario": pa.array(["umi-los"] * len(rows)),
            "speed_kmh": pa.array([30.0] * len(rows), pa.float32()),
            "pilot_snr_db": pa.array([10.0 + int(r) for r in rows], pa.float32()),
            "carrier_hz": pa.array([3.5e9] * len(rows)),
            "sample_period_s": pa.array([5e-4] * len(rows)),
            "num_subcarriers": pa.array([1] * len(rows), pa.int32()),
            "user": pa.array([""] * len(rows)),
            "x_m": pa.array([float("nan")] * len(rows), pa.float32()),
            "y_m": pa.array([float("nan")] * len(rows), pa.float32()),
            **pack_complex("history", history[rows]),
            **pack_complex("clean_history", history[rows]),
            **pack_complex("future", future[rows]),
        }
        run.commit_shard(shard, {"csi": pa.table([arrays[n] for n in schema.names], schema=schema)})
    run.finish("t", "d")


def test_load_returns_what_was_written_in_order(tmp_path: Path) -> None:
    history, future = channels(5, 4, 2, 3), channels(5, 2, 2, 3, seed=1)
    write_artifact(tmp_path / "csi", history, future)
    found = csi.load_csi(tmp_path / "csi", "train")
    assert found.drop_ids == [f"d{i}" for i in range(5)]
    assert torch.equal(found.history, history)
    assert torch.equal(found.future, future)
    assert found.pilot_snr_db.tolist() == [10.0, 11.0, 12.0, 13.0, 14.0]
    assert found.shape == csi.CsiShape(num_history=4, num_future=2, num_rx=2, num_tx=3)
    assert len(found) == 5


def test_not_finite_names_shard_and_drop(tmp_path: Path) -> None:
    for name, value in (("nan", complex(float("nan"), 0)), ("inf", complex(0, float("inf")))):
        future = channels(5, 2, 2, 2)
        future[3, 1, 0, 1] = value
        write_artifact(tmp_path / name, channels(5, 4, 2, 2), future)
        with pytest.raises(UserError, match=r"train-00001-of-00003.*'future' of drop d3 is NaN or infinite"):
            csi.load_csi(tmp_path / name, "train")


def test_bad_artifacts_are_user_errors(tmp_path: Path) -> None:
    root = tmp_path / "csi"
    with pytest.raises(UserError, match="no csi artifact"):
        csi.load_csi(root, "train")
    write_artifact(root, channels(3, 4, 2, 2), channels(3, 2, 2, 2))
    with pytest.raises(UserError, match="no split 'test', it has train"):
        csi.load_csi(root, "test")
    with pytest.raises(UserError, match="'csi' artifact where a 'predicted' one"):
        csi.load_predicted(root, "train")
    file = next((root / "csi").glob("train-00001-of-00002-*.parquet"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"x")
    with pytest.raises(UserError, match="corrupt shard file"):
        csi.load_csi(root, "train")
    file.unlink()
    with pytest.raises(UserError, match="missing shard file"):
        csi.load_csi(root, "train")
    file.write_bytes(whole)
    plan = json.loads((root / "plan.json").read_text())
    (root / "plan.json").write_text(json.dumps(plan | {"schema_version": "0"}))
    with pytest.raises(UserError, match="schema version 0"):
        csi.load_csi(root, "train")


def test_shards_are_read_one_at_a_time_and_are_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history, future = channels(5, 4, 2, 3), channels(5, 2, 2, 3, seed=1)
    write_artifact(tmp_path / "csi", history, future)
    read, opened = Artifact.shard_table, []

    def watched(self: Artifact, name: str, shard: str) -> pa.Table:
        opened.append(shard)
        return read(self, name, shard)

    monkeypatch.setattr(Artifact, "shard_table", watched)
    shards = csi.iter_csi(tmp_path / "csi")
    first, drops = next(shards)
    assert opened == [first], "the next shard is not read before it is asked for"
    parts = [drops, *(part for _, part in shards)]
    assert [len(part) for part in parts] == [2, 2, 1]
    whole = csi.CsiSet.join(parts)
    assert torch.equal(whole.history, history)
    assert whole.drop_ids == csi.load_csi(tmp_path / "csi", "train").drop_ids
    with pytest.raises(UserError, match="no split 'val'"):
        next(csi.iter_csi(tmp_path / "csi", "val"))


def test_a_set_becomes_the_table_that_it_came_from(tmp_path: Path) -> None:
    write_artifact(tmp_path / "csi", channels(5, 4, 2, 3), channels(5, 2, 2, 3, seed=1))
    for name, table in csi.read_csi_shards(tmp_path / "csi"):
        again = csi.csi_to_table(csi.csi_from_table(table, name), "train")
        assert again.schema.equals(table.schema)
        places = ["x_m", "y_m"]  # not a number here, which equals nothing
        assert again.drop_columns(places).equals(table.drop_columns(places))


def test_rows_that_are_not_subcarriers_times_antennas_are_refused(tmp_path: Path) -> None:
    write_artifact(tmp_path / "csi", channels(2, 4, 3, 3), channels(2, 2, 3, 3))
    _, table = next(csi.read_csi_shards(tmp_path / "csi"))
    place = table.column_names.index("num_subcarriers")
    spoilt = table.set_column(place, "num_subcarriers", pa.array([2, 2], pa.int32()))
    with pytest.raises(UserError, match="3 rows cannot be"):
        csi.csi_from_table(spoilt, "a table")


@given(period=st.integers(2, 6), steps=st.integers(1, 8), tx=st.integers(1, 7))
@settings(max_examples=30, deadline=None)
def test_a_comb_sounds_each_antenna_once_a_period_and_holds_it_between(period: int, steps: int, tx: int) -> None:
    time = torch.arange(period - 1 + steps).view(1, -1, 1, 1).expand(2, -1, 3, tx).to(torch.complex64)
    sounded = checked(csi.hold_unsounded)(time, period).real[0, :, 0]  # when each antenna was sounded last
    now = torch.arange(period - 1, period - 1 + steps).view(-1, 1)
    age = now - sounded
    assert ((age >= 0) & (age < period)).all()
    assert torch.equal(age == 0, (now - torch.arange(tx)) % period == 0)
