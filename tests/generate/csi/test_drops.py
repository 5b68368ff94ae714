import os
import signal
import threading
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
import torch

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.console import Terminated
from sclmkb.common.csi.sets import load_csi
from sclmkb.common.errors import UserError
from sclmkb.generate.csi import drops as stage
from sclmkb.generate.csi.channels.sionna import Simulated
from sclmkb.generate.csi.drops import plan_csi, simulate_chunk
from sclmkb.generate.csi.settings import CsiSettings

pytest.importorskip("sionna.phy")

TINY = CsiSettings(
    num_train=30, num_val=5, num_test=6, shard_size=25, workers=1, array_rows=1, array_columns=1,
    test_pilot_snr_db=(10.0, 20.0), speed_kmh=(10.0, 100.0),
)  # fmt: skip


def tiny(**changes: object) -> CsiSettings:
    return TINY.model_copy(update=changes)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("csi") / "csi"
    plan_csi(TINY, root).run_here()
    return root


def test_content_is_as_promised(artifact: Path) -> None:
    sets = {split: load_csi(artifact, split) for split in ("train", "val", "test")}
    train, test = sets["train"], sets["test"]
    assert train.history.shape == (30, 16, 2, 2)
    assert train.future.shape == (30, 4, 2, 2)
    power = train.clean_history.abs().square().mean((1, 2, 3))
    assert torch.allclose(power, torch.ones(30), atol=1e-4)
    noise = (train.history - train.clean_history).abs().square().mean((1, 2, 3))
    assert (10 * torch.log10(noise) + train.pilot_snr_db).abs().max() < 1.5
    assert train.pilot_snr_db.min() >= 8
    assert train.pilot_snr_db.max() <= 22
    assert train.speed_kmh.max() <= 100
    assert train.speed_kmh.std() > 5
    assert test.pilot_snr_db.tolist() == [10.0, 20.0] * 3
    # the future goes on where the history ends: steps are alike, and small beside the channel
    step = (train.future[:, 0] - train.clean_history[:, -1]).abs().square().mean((1, 2))
    before = (train.clean_history[:, -1] - train.clean_history[:, -2]).abs().square().mean((1, 2))
    assert ((step / before).log().abs() < 2).all()
    assert step.max() < 1


def test_splits_and_drops_are_apart(artifact: Path) -> None:
    sets = [load_csi(artifact, split) for split in ("train", "val", "test")]
    ids = [drop for found in sets for drop in found.drop_ids]
    assert len(set(ids)) == len(ids) == 41
    h = torch.cat([found.clean_history.flatten(1) for found in sets])
    h = h / h.norm(dim=1, keepdim=True)
    correlation = (h @ h.mH).abs() - torch.eye(len(h))
    assert correlation.max() < 0.995, "two drops are the same channel"
    assert correlation.mean() < 0.5
    parts = [simulate_chunk(TINY, split, start, 25) for split in ("train", "val", "test") for start in (0, 25)]
    places = torch.cat([torch.stack([part.x_m, part.y_m], 1) for part in parts])
    assert len(torch.unique(places, dim=0)) == len(places)


def test_rerun_and_number_of_workers_change_nothing(artifact: Path, tmp_path: Path) -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    again = plan_csi(tiny(workers=2), tmp_path / "again").run_here()
    assert again.fingerprint == Artifact.open(artifact, "csi").fingerprint
    simulate_chunk(TINY, "train", 0, 2)
    assert torch.equal(torch.get_rng_state(), before), "the global generator must stay as it was"


def test_more_drops_extend_a_split(artifact: Path) -> None:
    found = load_csi(artifact, "train")
    longer = simulate_chunk(tiny(num_train=100), "train", 25, 25)
    assert torch.equal(longer.history[:5], found.history[25:])
    other = simulate_chunk(tiny(seed=1), "train", 25, 5)
    assert not torch.allclose(other.clean_history, found.clean_history[25:])


def test_a_signal_that_also_ends_the_workers_is_a_stop_and_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deliver_signals: None
) -> None:
    class Pool:
        """A pool whose processes die of SIGTERM just before it reaches this one."""

        def __init__(self, *_: object, **__: object) -> None:
            pass

        def submit(self, *_: object) -> Future[object]:
            found: Future[object] = Future()
            found.set_exception(BrokenProcessPool("a process in the pool was terminated abruptly"))
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
            return found

        def shutdown(self, **_: object) -> None:
            pass

    monkeypatch.setattr(stage, "ProcessPoolExecutor", Pool)
    settings = tiny(workers=2, num_train=1, num_val=1)
    with pytest.raises(Terminated):
        plan_csi(settings, tmp_path / "run").run_here()


def test_values_that_are_not_finite_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> Simulated:
        h = torch.ones(25, 20, 2, 2, dtype=torch.complex64)
        h[2, 17] = float("nan")
        return Simulated(h, torch.zeros(25, 2))

    monkeypatch.setattr(stage, "simulate_drops", broken)
    with pytest.raises(UserError, match=r"future of drop umi-los-0-train-000002 is not finite"):
        plan_csi(TINY, tmp_path / "bad").run_here()
    assert not list((tmp_path / "bad").glob("manifests/*"))


@pytest.mark.parametrize("scenario", ["umi-nlos", "uma-los", "uma-nlos", "cdl-a", "cdl-d"])
def test_other_scenarios_differ(scenario: str) -> None:
    drops = simulate_chunk(tiny(scenario=(scenario,)), "train", 0, 3)
    assert torch.isfinite(torch.view_as_real(drops.clean_history)).all()
    assert not torch.allclose(drops.clean_history, simulate_chunk(TINY, "train", 0, 3).clean_history)
    assert torch.isfinite(drops.x_m).all() == (not scenario.startswith("cdl"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("scenario=rural", "scenario"),
        ("speed_kmh=[50, 10]", "first value of a range"),
        ("speed_kmh=-3", "greater than or equal to 0"),
        ("num_test=0", "greater than or equal to 1"),
        ("shard_size=30", "multiple of 25"),
        ("antennas=4", "does not exist"),
        ("scenario=[umi-los, umi-los]", "none twice"),
        ("delay_spread_ns=0", "greater than 0"),
        ("delay_spread_ns=[]", "at least 1 item"),
        ("bs_rows=0", "greater than or equal to 1"),
        ("speed_grid_kmh=[3, -1]", "greater than or equal to 0"),
        ("pilot_pattern=none", "'full' or 'comb'"),
        ("users=5 & scenario=cdl-a", "one scenario"),
        ("users=5 & scenario=[umi-los, uma-los]", "one scenario"),
    ],
)
def test_bad_settings_are_user_errors(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        CsiSettings.resolve(presets="sclmkb.generate", section="csi", overrides=override.split(" & "))


def test_one_value_stands_for_a_range() -> None:
    found = CsiSettings.resolve(presets="sclmkb.generate", section="csi", overrides=["speed_kmh=3", "pilot_snr_db=9"])
    assert found.speed_kmh == (3.0, 3.0)
    assert found.pilot_snr_db == (9.0, 9.0)


def test_a_chunk_of_several_scenarios_takes_them_in_turn() -> None:
    cells = tiny(scenario=("umi-los", "cdl-c"), delay_spread_ns=(30.0, 300.0), speed_grid_kmh=(3.6, 36.0, 108.0))
    drops = simulate_chunk(cells, "train", 25, 25)
    assert [name.startswith("cdl-c") for name in drops.scenarios] == [i % 2 == 1 for i in range(25, 50)]
    whole = {(s, float(v)) for s, v in zip(drops.scenarios, drops.speed_kmh, strict=True)}
    assert len(whole) == 3 * (1 + 2), "every scenario, spread and speed, and UMi draws its own spread"
    assert torch.equal(drops.x_m.isnan(), torch.tensor([name.startswith("cdl") for name in drops.scenarios]))
    fast, slow = drops.speed_kmh > 100, drops.speed_kmh < 4
    change = (drops.future[:, -1] - drops.clean_history[:, 0]).abs().square().mean((1, 2))
    assert change[fast].mean() > 3 * change[slow].mean()
    assert drops.drop_ids[:2] == ["cdl-c-30ns-0-train-000025", "umi-los-0-train-000026"]


def test_arrays_of_both_ends_and_subcarriers_make_rows_and_columns() -> None:
    wide = tiny(
        bs_rows=2, bs_columns=3, ut_polarised=False, num_subcarriers=8, subcarrier_spacing_hz=120e3,
        scenario=("cdl-a",), delay_spread_ns=(300.0,),
    )  # fmt: skip
    drops = simulate_chunk(wide, "train", 0, 25)
    assert drops.clean_history.shape == (25, 16, 8, 12)
    assert drops.shape.num_subcarriers == 8
    flat = simulate_chunk(wide.model_copy(update={"delay_spread_ns": (0.01,)}), "train", 0, 25).clean_history
    assert torch.allclose(flat, flat[:, :, :1].expand_as(flat), atol=1e-3), "no delay spread, no frequency selectivity"
    h = drops.clean_history
    near, far = ((h[:, :, lag:] - h[:, :, :-lag]).abs().square().mean() for lag in (1, 4))
    assert far > 2 * near > 0
    narrow = simulate_chunk(wide.model_copy(update={"num_subcarriers": 1}), "train", 0, 25).clean_history
    ratio = h[:, :, 4:5] / narrow  # the carrier is subcarrier K // 2; the scale of a drop is its own
    assert torch.allclose(ratio, ratio[:, :1, :1, :1].expand_as(ratio), rtol=1e-2)


def test_a_comb_holds_what_it_does_not_sound() -> None:
    comb = tiny(array_columns=2, pilot_snr_db=(60.0, 60.0), pilot_pattern="comb", comb_period=4)
    drops = simulate_chunk(comb, "train", 0, 25)
    assert drops.history.shape == drops.clean_history.shape == (25, 16, 4, 4)
    error = (drops.history - drops.clean_history).abs().square().mean((0, 2))  # [T, Nt]
    age = (torch.arange(3, 19).view(-1, 1) - torch.arange(4)) % 4
    fresh = error[age == 0].max()
    assert fresh < 2e-6, "sounded antennas have pilot noise alone"
    assert (error[age > 0] > 10 * fresh).all(), "held ones are stale"
    assert torch.equal(
        drops.history[:, 1:][:, age[1:, 0] > 0][..., 0], drops.history[:, :-1][:, age[1:, 0] > 0][..., 0]
    )


def test_users_stand_in_a_sector_and_come_back_the_same(tmp_path: Path) -> None:
    sector = tiny(users=12, scenario=("umi-nlos",))
    artifact = plan_csi(sector, tmp_path / "map").run_here()
    assert artifact.splits == ["test"]
    drops = load_csi(tmp_path / "map", "test")
    assert drops.users == [f"user-{i:03d}" for i in range(12)]
    distance = torch.hypot(drops.x_m, drops.y_m)
    assert ((distance > 5) & (distance < 150)).all()
    angle = torch.atan2(drops.y_m, drops.x_m).rad2deg()
    assert ((angle > -1) & (angle < 121)).all(), "a sector of 120 degrees"
    assert distance.std() > 5
    again = simulate_chunk(sector, "test", 0, 12)
    assert torch.equal(again.history, drops.history)
    h = drops.clean_history.flatten(1)
    correlation = (h / h.norm(dim=1, keepdim=True)) @ (h / h.norm(dim=1, keepdim=True)).mH
    assert (correlation.abs() - torch.eye(12)).max() < 0.995, "small-scale fading is apart"


def test_the_future_does_not_touch_the_history() -> None:
    short, long = (simulate_chunk(tiny(num_future=p), "train", 0, 25) for p in (1, 8))
    assert torch.allclose(short.history, long.history, atol=1e-5)
    assert torch.allclose(short.future[:, 0], long.future[:, 0], atol=1e-5)


@pytest.mark.parametrize("preset", ["csi-4cast", "csi-4cast-small"])
def test_the_benchmark_presets_hold_all_cells_in_every_split(preset: str) -> None:
    found = CsiSettings.resolve(presets="sclmkb.generate", section="csi", preset=preset)
    assert found.link().base.num_antennas == 32
    assert found.link().terminal.num_antennas == 1
    assert found.num_subcarriers * found.subcarrier_spacing_hz == 9e6
    for size in (found.num_train, found.num_val, found.num_test):
        cells = [(found.label(i), found.cell(i)[2]) for i in range(size)]
        assert {cells.count(cell) for cell in set(cells)} == {size // 27}
        assert len(set(cells)) == 27
