import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat

from sclmkb.common.csi.sets import CsiSet, CsiShape, load_csi
from sclmkb.common.errors import UserError
from sclmkb.generate.csi.importing import ImportSettings, plan_import

QUADRIGA = Path(__file__).parents[4] / "shared" / "data" / "quadriga" / "umi_los_u20_16x16.mat"
KNOWN = {"speed_kmh": (30.0,), "carrier_hz": 3.5e9, "sample_period_s": 5e-4}


def channels(*shape: int, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return (draw.standard_normal(shape) + 1j * draw.standard_normal(shape)).astype(np.complex64)


def settings_for(**changes: Any) -> ImportSettings:
    return ImportSettings.model_validate({**KNOWN, "num_history": 6, "num_future": 2, **changes})


def save_hdf5(path: Path, **arrays: np.ndarray) -> None:
    """Write as MATLAB does in version 7.3: axes reversed, complex numbers as pairs, 512 bytes of header first."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in arrays.items():
            pairs = np.empty(values.T.shape, [("real", "<f8"), ("imag", "<f8")])
            pairs["real"], pairs["imag"] = values.T.real, values.T.imag
            file.create_dataset(name, data=pairs).attrs["MATLAB_class"] = np.bytes_("double")
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Jan  1 00:00:00 2024 HDF5 schema 1.00 ."
    with path.open("r+b") as file:
        file.write(header.ljust(116) + b"\0" * 8 + b"\x00\x02IM")


def load_all(root: Path, splits: tuple[str, ...] = ("train", "val", "test")) -> dict[str, CsiSet]:
    return {split: load_csi(root, split) for split in splits}


@pytest.fixture
def numpy_file(tmp_path: Path) -> Path:
    np.save(tmp_path / "h.npy", channels(10, 20, 3, 2, 4))  # users, samples, subcarriers, Nr, Nt
    return tmp_path / "h.npy"


@pytest.mark.parametrize(("num_subcarriers", "kept"), [(None, [0, 1, 2]), (2, [0, 2]), (1, [1])])
def test_windows_are_cut_as_promised(
    numpy_file: Path, tmp_path: Path, num_subcarriers: int | None, kept: list[int]
) -> None:
    plan_import(settings_for(num_subcarriers=num_subcarriers), "numpy", numpy_file, tmp_path / "csi").run_here()
    h = np.load(numpy_file)[:, :, kept]
    seen = 0
    for drops in load_all(tmp_path / "csi").values():
        assert drops.shape == CsiShape(
            num_history=6, num_future=2, num_rx=2 * len(kept), num_tx=4, num_subcarriers=len(kept)
        )
        assert torch.allclose(drops.clean_history.abs().square().mean((1, 2, 3)), torch.ones(len(drops)), atol=1e-5)
        for i, name in enumerate(drops.drop_ids):
            sequence, start = int(name.split("-")[2]), int(name.rpartition("-w")[2])
            assert start in (0, 8), "20 samples hold two windows of 8 that do not overlap"
            wanted = torch.from_numpy(h[sequence, start : start + 8]).flatten(1, 2)
            scale = wanted[:6].abs().square().mean().sqrt()
            torch.testing.assert_close(torch.cat([drops.clean_history[i], drops.future[i]]), wanted / scale)
            seen += 1
    assert seen == 20


def test_users_stay_in_one_split_however_windows_overlap(numpy_file: Path, tmp_path: Path) -> None:
    plan_import(settings_for(stride=1, val_share=0.2, test_share=0.3), "numpy", numpy_file, tmp_path / "csi").run_here()
    users = {split: set(drops.users) for split, drops in load_all(tmp_path / "csi").items()}
    assert {split: len(names) for split, names in users.items()} == {"train": 5, "val": 2, "test": 3}
    assert len(set.union(*users.values())) == 10
    named = tmp_path / "named.npz"
    np.savez(named, h=np.load(numpy_file), user=["ann", "bob", "cem", "dan", "eve"] * 2)
    plan_import(settings_for(stride=1, val_share=0.2, test_share=0.2), "numpy", named, tmp_path / "named").run_here()
    users = {split: set(drops.users) for split, drops in load_all(tmp_path / "named").items()}
    assert sum(len(names) for names in users.values()) == len(set.union(*users.values())) == 5


def test_noise_has_the_pilot_snr_and_repeats_whatever_the_shards(numpy_file: Path, tmp_path: Path) -> None:
    chosen = settings_for(stride=2, pilot_snr_db=12, test_pilot_snr_db=(0.0, 20.0), test_share=0.4)
    plan_import(chosen, "numpy", numpy_file, tmp_path / "a").run_here()
    plan_import(chosen.model_copy(update={"shard_size": 3}), "numpy", numpy_file, tmp_path / "b").run_here()
    for split, drops in load_all(tmp_path / "a").items():
        other = load_csi(tmp_path / "b", split)
        assert torch.equal(drops.history, other.history)
        assert torch.equal(drops.pilot_snr_db, other.pilot_snr_db)
        noise = (drops.history - drops.clean_history).abs().square().mean((1, 2, 3))
        assert (10 * noise.log10() + drops.pilot_snr_db).abs().max() < 2
        assert set(drops.pilot_snr_db.tolist()) == ({0.0, 20.0} if split == "test" else {12.0})


def test_the_future_does_not_touch_the_history(tmp_path: Path) -> None:
    h = channels(6, 8, 2, 2)
    loud = h.copy()
    loud[:, 6:] *= 100
    for name, values in (("quiet", h), ("loud", loud)):
        np.save(tmp_path / f"{name}.npy", values)
        plan_import(
            settings_for(val_share=0.2, test_share=0.2), "numpy", tmp_path / f"{name}.npy", tmp_path / name
        ).run_here()
    for split in ("train", "val", "test"):
        quiet, noisy = (load_csi(tmp_path / name, split) for name in ("quiet", "loud"))
        assert torch.equal(quiet.history, noisy.history)
        torch.testing.assert_close(100 * quiet.future, noisy.future)


@pytest.mark.parametrize("write", [lambda p, a: savemat(p, a), lambda p, a: save_hdf5(p, **a)], ids=["v5", "v7.3"])
def test_llm4cp_files_of_both_versions_say_the_same(write: Callable[[Path, Any], None], tmp_path: Path) -> None:
    root = tmp_path / "data"
    arrays = {}
    for seed, (split, samples) in enumerate((("train", 5), ("test", 2))):
        h = channels(3, samples, 8, 4, 2, 2, seed=seed)  # speeds, samples, steps, subcarriers, antennas 2 × 2
        arrays |= {f"H_U_his_{split}": h[:, :, :6], f"H_U_pre_{split}": h[:, :, 6:]}
    for name, values in arrays.items():
        (root / name[-5:]).mkdir(parents=True, exist_ok=True)
        write(root / name[-5:] / f"{name}.mat", {name: values})
    chosen = ImportSettings(num_history=6, num_future=2, val_share=0.2)
    plan_import(chosen, "llm4cp", root, tmp_path / "csi").run_here()
    found = load_all(tmp_path / "csi")
    assert {split: len(drops) for split, drops in found.items()} == {"train": 12, "val": 3, "test": 6}
    test = found["test"]
    assert test.shape == CsiShape(num_history=6, num_future=2, num_rx=4, num_tx=4, num_subcarriers=4)
    assert sorted(set(test.speed_kmh.tolist())) == [10.0, 55.0, 100.0]
    i = test.users.index("test-v001-n0001")
    wanted = torch.from_numpy(np.concatenate([arrays["H_U_his_test"], arrays["H_U_pre_test"]], 2)[1, 1])
    wanted = wanted.reshape(8, 4, 4)
    scale = wanted[:6].abs().square().mean().sqrt()
    torch.testing.assert_close(torch.cat([test.clean_history[i], test.future[i]]), wanted / scale)
    assert float(test.speed_kmh[i]) == 55.0


@pytest.mark.skipif(not QUADRIGA.exists(), reason="no QuaDRiGa file in ../shared/data")
def test_a_real_quadriga_file(tmp_path: Path) -> None:
    plan_import(
        ImportSettings(num_subcarriers=1, val_share=0.2, test_share=0.2), "quadriga", QUADRIGA, tmp_path / "csi"
    ).run_here()
    found = load_all(tmp_path / "csi")
    assert {split: len(drops) for split, drops in found.items()} == {"train": 12, "val": 4, "test": 4}
    drops = found["train"]
    assert drops.shape == CsiShape(num_history=16, num_future=4, num_rx=16, num_tx=16)
    assert drops.scenarios[0] == "3GPP_38.901_UMi_LOS"
    assert drops.carrier_hz[0] == 2.4e9
    assert drops.speed_kmh[0] == 30.0
    assert torch.isfinite(drops.x_m).all()
    step = (drops.future[:, 0] - drops.clean_history[:, -1]).abs().square().mean()
    assert step < 0.5, "consecutive samples are alike"


def spoil(h: np.ndarray, value: complex) -> np.ndarray:
    h = h.copy()
    h[3, 5] = value
    return h


GOOD = channels(10, 20, 2, 4)


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        (spoil(GOOD, complex("nan")), {}, "sample 5 of user-000003 is NaN or infinite"),
        (spoil(GOOD, complex(0, np.inf)), {}, "sample 5 of user-000003 is NaN or infinite"),
        (spoil(GOOD, 0), {}, "sample 5 of user-000003 is zero everywhere"),
        (GOOD.real, {}, r"holds real numbers \(float32\)"),
        (GOOD, {"num_tx": 8}, "num_tx = 4, not 8"),
        (GOOD, {"num_subcarriers": 2}, "1 subcarriers, not 2"),
        (GOOD, {"num_history": 30}, "have 20 samples, 32 are needed"),
        (GOOD[0], {}, r"shape \[20, 2, 4\]"),
        (GOOD[:2], {}, "2 users are too few for train, val, test"),
        (GOOD[:0], {}, "holds no sequences"),
        (GOOD, {"speed_kmh": ()}, "does not say the speed: --set speed_kmh"),
        (GOOD, {"carrier_hz": None}, "does not say carrier_hz: --set carrier_hz"),
        (np.array(["a", "b"]), {}, "no array of numbers"),
        (np.array([{"a": 1}], dtype=object), {}, "cannot read .* Python objects"),
    ],
)
def test_bad_numpy_input_is_said_in_one_line(
    content: np.ndarray, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    np.save(tmp_path / "h.npy", content)
    with pytest.raises(UserError, match=message) as caught:
        plan_import(settings_for(**changes), "numpy", tmp_path / "h.npy", tmp_path / "out").run_here()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("layout", "content", "message"),
    [
        ("quadriga", {"G": GOOD}, "no variable 'H'"),
        ("quadriga", {"H": GOOD}, "does not say how its 4 antenna pairs divide"),
        ("quadriga", {"H": GOOD, "meta": {"M": 3.0, "N": 2.0}}, "4 antenna pairs, not 3 × 2"),
        ("quadriga", {"H": GOOD[0]}, r"users × snapshots × subcarriers"),
        ("quadriga", {"H": GOOD.real}, "real numbers"),
        ("llm4cp", {"H": GOOD}, "no array 'H_U_his_train'"),
        ("llm4cp", {"H_U_his_train": channels(2, 3, 6, 4, 2)}, "no array 'H_U_pre_train'"),
        (
            "llm4cp",
            {"H_U_his_train": channels(2, 3, 6, 4, 2), "H_U_pre_train": channels(2, 3, 2, 4, 3)},
            "do not fit together",
        ),
    ],
)
def test_bad_matlab_input_is_said_in_one_line(
    layout: str, content: dict[str, Any], message: str, tmp_path: Path
) -> None:
    savemat(tmp_path / "h.mat", content)
    with pytest.raises(UserError, match=message):
        plan_import(settings_for(), layout, tmp_path / "h.mat", tmp_path / "out").run_here()


def test_what_is_no_such_file_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "h.mat").write_bytes(b"not a matlab file, but long enough to be taken for one" * 9)
    save_hdf5(tmp_path / "new.mat", H=GOOD)
    monkeypatch.setitem(sys.modules, "h5py", None)
    for layout, file, message in (
        ("quadriga", "h.mat", r"cannot read .*h\.mat"),
        ("llm4cp", "h.mat", r"cannot read .*h\.mat"),
        ("numpy", "h.mat", r"cannot read .*h\.mat"),
        ("numpy", "nowhere.npy", "no such file"),
        ("deepmimo", "h.mat", "there are quadriga, llm4cp, numpy"),
        ("quadriga", "new.mat", "needs h5py: pip install h5py"),
    ):
        with pytest.raises(UserError, match=message):
            plan_import(settings_for(), layout, tmp_path / file, tmp_path / "out")


def test_another_file_is_another_run(numpy_file: Path, tmp_path: Path) -> None:
    plan_import(settings_for(), "numpy", numpy_file, tmp_path / "csi").run_here()
    np.save(numpy_file, channels(10, 20, 3, 2, 4, seed=5))
    with pytest.raises(UserError, match="holds a run with other settings"):
        plan_import(settings_for(), "numpy", numpy_file, tmp_path / "csi")
