"""MATLAB files of every version: up to 7.2 through SciPy, 7.3 (HDF5) through h5py."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sclmkb.common.errors import UserError


def read_matlab(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """Return the named variables that a MATLAB file has, of any version.

    Raises:
        UserError: if it cannot be read, or is of version 7.3 and h5py is missing.
    """
    from scipy.io import loadmat

    try:
        return {k: v for k, v in loadmat(path, variable_names=list(names)).items() if k in names}
    except NotImplementedError:  # what SciPy says to version 7.3, which is HDF5
        return _read_hdf5(path, names)
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except Exception as error:  # SciPy raises what it likes on broken files
        raise UserError(f"cannot read {path} as a MATLAB file: {str(error).splitlines()[0]}") from None


def _read_hdf5(path: Path, names: Sequence[str]) -> dict[str, Any]:
    try:
        import h5py
    except ImportError:
        raise UserError(f"{path} is a MATLAB file of version 7.3, which needs h5py: pip install h5py") from None
    try:
        with h5py.File(path, "r") as file:
            return {name: _from_hdf5(file[name]) for name in names if name in file}
    except OSError as error:
        raise UserError(f"cannot read {path} as a MATLAB file: {str(error).splitlines()[0]}") from None


def _from_hdf5(item: Any) -> Any:
    """Return an array in MATLAB's order of axes, a struct as a mapping; complex numbers are pairs (real, imag)."""
    if not hasattr(item, "shape"):
        return {name: _from_hdf5(item[name]) for name in item}
    if item.dtype.names == ("real", "imag"):
        found = np.empty(item.shape, np.complex64)
        for last in range(item.shape[-1]) if item.ndim else ():  # a slice at a time, since pairs of doubles are large
            part = item[..., last]
            found[..., last] = part["real"] + 1j * part["imag"]
        return found.T
    value = item[()]
    if item.attrs.get("MATLAB_class") == b"char":
        return "".join(chr(int(code)) for code in np.ravel(value))
    return np.asarray(value).T


def plain_struct(value: Any) -> dict[str, Any]:
    """Return the fields of a MATLAB struct as plain values."""
    if value is None:
        return {}
    if isinstance(value, np.ndarray) and value.dtype.names:
        value = {name: value[name].flat[0] for name in value.dtype.names}
    if not isinstance(value, Mapping):
        return {}
    return {k: v if isinstance(v, str) else np.ravel(v)[0].item() for k, v in value.items() if np.size(v)}
