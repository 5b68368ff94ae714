from pathlib import Path

import pytest
import torch

from sclmkb.common.artifacts import Run, sha256_file
from sclmkb.common.channel.csi import load_csi
from sclmkb.common.errors import UserError
from sclmkb.generate import csi as stage
from sclmkb.generate.csi import CsiSettings, generate_csi, simulate_chunk

pytest.importorskip("sionna.phy")

TINY = CsiSettings(
    num_train=30, num_val=5, num_test=6, shard_size=25, workers=1, array_rows=1, array_columns=1,
    test_pilot_snr_db=(10.0, 20.0), speed_kmh=(10.0, 100.0),
)  # fmt: skip


def digests(root: Path) -> dict[str, str]:
    return {p.name: sha256_file(p) for p in sorted((root / "csi").glob("*.parquet"))}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("csi") / "csi"
    generate_csi(TINY, root)
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


def test_rerun_and_number_of_workers_change_no_byte(artifact: Path, tmp_path: Path) -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    generate_csi(TINY.model_copy(update={"workers": 2}), tmp_path / "again")
    assert digests(tmp_path / "again") == digests(artifact)
    simulate_chunk(TINY, "train", 0, 2)
    assert torch.equal(torch.get_rng_state(), before), "the global generator must stay as it was"


def test_more_drops_extend_a_split(artifact: Path) -> None:
    found = load_csi(artifact, "train")
    longer = simulate_chunk(TINY.model_copy(update={"num_train": 100}), "train", 25, 25)
    assert torch.equal(longer["history"][:5], found.history[25:])
    other = simulate_chunk(TINY.model_copy(update={"seed": 1}), "train", 25, 5)
    assert not torch.allclose(other["clean_history"], found.clean_history[25:])


def test_interrupted_run_goes_on_and_ends_the_same(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, calls = Run.commit_shard, []

    def stop_at_second(self: Run, *args: object, **kwargs: object) -> None:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        commit(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Run, "commit_shard", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        generate_csi(TINY, tmp_path / "run")
    monkeypatch.undo()
    generate_csi(TINY, tmp_path / "run")
    assert digests(tmp_path / "run") == digests(artifact)
    with pytest.raises(UserError, match="seed: 0 there, 3 now"):
        generate_csi(TINY.model_copy(update={"seed": 3}), tmp_path / "run")


def test_values_that_are_not_finite_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**kwargs: object) -> torch.Tensor:
        h = torch.ones(25, 20, 2, 2, dtype=torch.complex64)
        h[2, 17] = float("nan")
        return h

    monkeypatch.setattr(stage, "simulate_drops", broken)
    with pytest.raises(UserError, match=r"future of drop umi-los-0-train-000002 is not finite"):
        generate_csi(TINY, tmp_path / "bad")
    assert not list((tmp_path / "bad").glob("manifests/*"))


@pytest.mark.parametrize("scenario", ["umi-nlos", "uma-los", "uma-nlos"])
def test_other_scenarios_differ(scenario: str) -> None:
    small = TINY.model_copy(update={"scenario": scenario})
    h = simulate_chunk(small, "train", 0, 3)["clean_history"]
    assert torch.isfinite(torch.view_as_real(h)).all()
    assert not torch.allclose(h, simulate_chunk(TINY, "train", 0, 3)["clean_history"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("scenario=rural", "scenario"),
        ("speed_kmh=[50, 10]", "first value of a range"),
        ("speed_kmh=-3", "must not be negative"),
        ("num_test=0", "at least 1"),
        ("shard_size=30", "multiple of 25"),
        ("antennas=4", "does not exist"),
    ],
)
def test_bad_settings_are_user_errors(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        CsiSettings.resolve(presets="sclmkb.generate", section="csi", overrides=[override])


def test_one_value_stands_for_a_range() -> None:
    found = CsiSettings.resolve(presets="sclmkb.generate", section="csi", overrides=["speed_kmh=3", "pilot_snr_db=9"])
    assert found.speed_kmh == (3.0, 3.0)
    assert found.pilot_snr_db == (9.0, 9.0)
