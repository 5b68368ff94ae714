"""Files of CSI that other programs wrote, read as sequences: QuaDRiGa output, the layout of LLM4CP, NumPy.

A sequence is what one user saw: consecutive samples ``[S, K, Nr, Nt]``, complex, K subcarriers. Nothing is loaded that
can run code: MATLAB files through SciPy (up to version 7.2) or h5py (7.3), NumPy files without pickles.
"""

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sclmkb.common.errors import UserError
from sclmkb.generate.csi.matlab import plain_struct, read_matlab

Array = NDArray[Any]
LLM4CP_ARRAYS = ("his", "pre")


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """What a file holds.

    Attributes:
        read: returns the i-th sequence ``[S, K, Nr, Nt]``.
        users: who saw each sequence; sequences of one user are kept in one split.
        num_samples: S.
        num_subcarriers: K.
        num_rx: receive antennas Nr.
        num_tx: transmit antennas Nt.
        splits: the split that the file itself says each sequence belongs to; empty: it says nothing.
        speed_kmh: speed of each user [km/h]; none if the file does not say.
        places: x and y of each user [m], ``[N, 2]``; none if the file does not say.
        facts: ``carrier_hz``, ``sample_period_s`` and ``scenario``, as far as the file or the layout says.
    """

    read: Callable[[int], Array]
    users: Sequence[str]
    num_samples: int
    num_subcarriers: int
    num_rx: int
    num_tx: int
    splits: Sequence[str] = ()
    speed_kmh: Array | None = None
    places: Array | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def read_quadriga(path: Path, num_rx: int | None, num_tx: int | None) -> Sequences:
    """Read a MATLAB file with ``H``, users × snapshots × subcarriers × (tx · rx), and perhaps ``meta`` and ``pos_ue``.

    In the last axis the transmit antenna is outermost. ``meta`` may hold ``fc``, ``dt``, ``speed_kmh``, ``scenario``,
    and ``M`` and ``N``, the numbers of transmit and receive antennas. ``pos_ue`` is 3 × users.

    Raises:
        UserError: if the file cannot be read or has another layout.
    """
    content = read_matlab(path, ("H", "meta", "pos_ue"))
    if "H" not in content:
        raise UserError(
            f"{path} has no variable 'H': a QuaDRiGa file holds H, users × snapshots × subcarriers × (tx·rx)"
        )
    h = _complex(content["H"], f"'H' of {path}")
    if h.ndim != 4:
        raise UserError(
            f"'H' of {path} has the shape {list(h.shape)}: users × snapshots × subcarriers × (tx·rx) is needed"
        )
    meta = plain_struct(content.get("meta"))
    num_tx, num_rx = num_tx or int(meta.get("M", 0)) or None, num_rx or int(meta.get("N", 0)) or None
    num_rx, num_tx = _antennas(h.shape[3], num_rx, num_tx, f"'H' of {path}")
    names = {"fc": "carrier_hz", "dt": "sample_period_s", "scenario": "scenario"}
    places = content.get("pos_ue")
    return Sequences(
        read=lambda i: h[i].reshape(*h.shape[1:3], num_tx, num_rx).swapaxes(2, 3),
        users=[f"user-{i:04d}" for i in range(len(h))],
        num_samples=h.shape[1],
        num_subcarriers=h.shape[2],
        num_rx=num_rx,
        num_tx=num_tx,
        speed_kmh=np.full(len(h), float(meta["speed_kmh"])) if "speed_kmh" in meta else None,
        places=places[:2].T if isinstance(places, np.ndarray) and places.shape == (3, len(h)) else None,
        facts={ours: meta[theirs] for theirs, ours in names.items() if theirs in meta},
    )


def read_llm4cp(path: Path, num_rx: int | None, num_tx: int | None) -> Sequences:
    """Read ``H_U_his_train`` and ``H_U_pre_train``, and ``…_test``: speed × sample × step × subcarrier × antennas.

    History and future are joined in time. Axes after the fourth are antennas, flattened as they come, receive antennas
    innermost if there is more than one. Every sample is a user of its own. Where there are test arrays, they are the
    test split. Unless a setting says otherwise, the speeds are spread evenly over 10 to 100 km/h, and carrier and
    period are 2.4 GHz and 0.5 ms, as in the paper. One receive antenna is taken where no number is given.

    Raises:
        UserError: if an array is missing or cannot be read, or they do not fit together.
    """
    files = sorted(path.rglob("*.mat")) if path.is_dir() else [path]
    wanted = tuple(f"H_U_{part}_{split}" for split in ("train", "test") for part in LLM4CP_ARRAYS)
    arrays = {
        name: _complex(value, f"'{name}' of {file}")
        for file in files
        for name, value in read_matlab(file, wanted).items()
    }
    parts = []
    for split in ("train", "test"):
        names = [f"H_U_{part}_{split}" for part in LLM4CP_ARRAYS]
        missing = [name for name in names if name not in arrays]
        if len(missing) == 1 or (missing and split == "train"):
            raise UserError(
                f"{path} has no array '{missing[0]}': the layout is H_U_his_train and H_U_pre_train in .mat files"
            )
        if missing:
            continue
        his, pre = (arrays[name] for name in names)
        if his.ndim < 5 or his.shape[:2] != pre.shape[:2] or his.shape[3:] != pre.shape[3:]:
            raise UserError(
                f"{path}: {names[0]} {list(his.shape)} and {names[1]} {list(pre.shape)} do not fit together:"
                " both are speed × sample × step × subcarrier × antennas"
            )
        parts.append((split, his, pre))
    shapes = {(his.shape[2] + pre.shape[2], his.shape[3], int(np.prod(his.shape[4:]))) for _, his, pre in parts}
    if len(shapes) > 1:
        raise UserError(f"{path}: training and test arrays have other steps, subcarriers or antennas: {sorted(shapes)}")
    num_samples, num_subcarriers, num_pairs = shapes.pop()
    num_rx, num_tx = _antennas(num_pairs, num_rx or 1, num_tx, f"{path}")
    rows = [(part, v, n) for part in parts for v in range(part[1].shape[0]) for n in range(part[1].shape[1])]
    grids = {split: np.linspace(10.0, 100.0, his.shape[0]) for split, his, _ in parts}

    def read(i: int) -> Array:
        (_, his, pre), v, n = rows[i]
        whole: Array = np.concatenate([his[v, n], pre[v, n]])
        return whole.reshape(num_samples, num_subcarriers, num_tx, num_rx).swapaxes(2, 3)

    return Sequences(
        read=read,
        users=[f"{part[0]}-v{v:03d}-n{n:04d}" for part, v, n in rows],
        num_samples=num_samples,
        num_subcarriers=num_subcarriers,
        num_rx=num_rx,
        num_tx=num_tx,
        splits=[part[0] for part, _, _ in rows] if len(parts) > 1 else (),
        speed_kmh=np.array([grids[part[0]][v] for part, v, _ in rows]),
        facts={"carrier_hz": 2.4e9, "sample_period_s": 0.5e-3, "scenario": "llm4cp"},
    )


def read_numpy(path: Path, num_rx: int | None, num_tx: int | None) -> Sequences:
    """Read a complex array ``[N, S, Nr, Nt]`` or ``[N, S, K, Nr, Nt]`` from a ``.npy`` or ``.npz`` file.

    In a ``.npz`` file it is called ``h``; beside it may lie ``user`` (one name per sequence), ``speed_kmh``, ``x_m``
    and ``y_m``. A ``.npy`` file is mapped into memory and may be larger than it.

    Raises:
        UserError: if the file cannot be read or has another layout.
    """
    extra: dict[str, Array] = {}
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            h = loaded
        else:
            extra = {name: loaded[name] for name in ("h", "user", "speed_kmh", "x_m", "y_m") if name in loaded}
            if "h" not in extra:
                raise UserError(f"{path} has no array 'h', it has {', '.join(loaded.files)}")
            h = extra.pop("h")
    except (OSError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = "it holds Python objects, or is none" if "pickle" in str(error) else str(error).splitlines()[0]
        raise UserError(f"cannot read {path} as a NumPy file: {reason}") from None
    h = _complex(h, f"the array of {path}", convert=False)
    if h.ndim not in (4, 5):
        raise UserError(
            f"the array of {path} has the shape {list(h.shape)}: [N, S, Nr, Nt] or [N, S, K, Nr, Nt] is needed"
        )
    for name, found, wanted in (("num_rx", h.shape[-2], num_rx), ("num_tx", h.shape[-1], num_tx)):
        if wanted not in (None, found):
            raise UserError(f"the array of {path} has {name} = {found}, not {wanted}")
    for name, values in extra.items():
        if values.shape != (len(h),):
            raise UserError(
                f"'{name}' of {path} has the shape {list(values.shape)}: one value a sequence, {len(h)}, is needed"
            )
    places = np.stack([extra["x_m"], extra["y_m"]], 1) if {"x_m", "y_m"} <= set(extra) else None
    return Sequences(
        read=lambda i: h[i] if h.ndim == 5 else h[i][:, None],
        users=[str(user) for user in extra["user"]] if "user" in extra else [f"user-{i:06d}" for i in range(len(h))],
        num_samples=h.shape[1],
        num_subcarriers=h.shape[2] if h.ndim == 5 else 1,
        num_rx=h.shape[-2],
        num_tx=h.shape[-1],
        speed_kmh=extra.get("speed_kmh"),
        places=places,
        facts={"scenario": "imported"},
    )


def _complex(values: Any, what: str, *, convert: bool = True) -> Array:
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiuc":
        raise UserError(f"{what} is no array of numbers: it is a file of another layout")
    if values.dtype.kind != "c":
        raise UserError(f"{what} holds real numbers ({values.dtype}): channels are complex, real + 1j · imag")
    return values.astype(np.complex64, copy=False) if convert else values


def _antennas(pairs: int, num_rx: int | None, num_tx: int | None, what: str) -> tuple[int, int]:
    """Return Nr and Nt, with what is not given from the number of antenna pairs."""
    if num_rx is None and num_tx is None:
        raise UserError(f"{what} does not say how its {pairs} antenna pairs divide: --set num_rx=… --set num_tx=…")
    num_rx = num_rx or max(1, pairs // (num_tx or 1))
    num_tx = num_tx or max(1, pairs // num_rx)
    if num_rx * num_tx != pairs:
        raise UserError(f"{what} has {pairs} antenna pairs, not {num_tx} × {num_rx}: --set num_rx=… --set num_tx=…")
    return num_rx, num_tx


CSI_LAYOUTS: Mapping[str, Callable[[Path, int | None, int | None], Sequences]] = {
    "quadriga": read_quadriga,
    "llm4cp": read_llm4cp,
    "numpy": read_numpy,
}
