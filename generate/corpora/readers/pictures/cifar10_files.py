"""The pictures of CIFAR-10 as files hold them: six PNG sheets, or the official batches.

A batch of the official folder is a pickle, and a pickle may run code when it is read. Here it is read without that: of
all names that it may call, only NumPy's arrays are known.
"""

import codecs
import io
import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image

from sclmkb.common.errors import UserError, first_line

SIZE = 32
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""The official names of the labels 0 to 9."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Some pictures of one official split in a file.

    Attributes:
        name: of the official batch: ``data_batch_1`` to ``data_batch_5`` or ``test_batch``.
        pixels: the file that holds the pixels.
        labels: the file that holds the labels.
        first: place of the batch's first label in that file.
    """

    name: str
    pixels: Path
    labels: Path
    first: int = 0

    @property
    def part(self) -> str:
        """The official split."""
        return "test" if self.name == "test_batch" else "train"


def find_batches(root: Path) -> Sequence[Batch]:
    """Return the batches of the official folder, or of the sheets of the npm package; those of neither are missing."""
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    folder = root if (root / names[0]).exists() else root / "cifar-10-batches-py"
    if folder.is_dir():
        return [Batch(name=name, pixels=folder / name, labels=folder / name) for name in names]
    return [
        Batch(
            name=name,
            pixels=root / f"{name}.png",
            labels=root / ("test_lables.json" if name == "test_batch" else "train_lables.json"),  # spelt so there
            first=0 if name == "test_batch" else 10_000 * number,
        )
        for number, name in enumerate(names)
    ]


def read_pixels(batch: Batch) -> UInt8[np.ndarray, "N 32 32 3"]:
    """Return the pictures of a batch, RGB.

    Raises:
        UserError: if they cannot be read.
    """
    if batch.pixels.suffix == ".png":
        try:
            with Image.open(batch.pixels) as sheet:
                rows = np.asarray(sheet.convert("RGB"), dtype=np.uint8)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(f"{batch.pixels} is no readable sheet of pictures ({first_line(error)})") from None
        if rows.shape[1] != SIZE * SIZE:
            raise UserError(f"{batch.pixels} is {rows.shape[1]} pixels wide, not {SIZE * SIZE}: a row is a picture")
        return rows.reshape(-1, SIZE, SIZE, 3)
    data = _official(batch)[b"data"]
    return np.ascontiguousarray(data.reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1))


def read_labels(batch: Batch, count: int) -> list[int]:
    """Return the labels of a batch of ``count`` pictures.

    Raises:
        UserError: if they cannot be read, or are not one per picture.
    """
    if batch.labels.suffix == ".json":
        try:
            found = json.loads(batch.labels.read_text("utf-8"))
        except (OSError, ValueError):
            raise UserError(f"{batch.labels} is missing or no JSON") from None
        labels = found[batch.first : batch.first + count] if isinstance(found, list) else []
    else:
        labels = _official(batch)[b"labels"]
    if len(labels) != count or not all(isinstance(n, int) and 0 <= n < len(CLASSES) for n in labels):
        raise UserError(
            f"{batch.labels} does not hold a label from 0 to 9 for each of the {count} pictures of {batch.name}"
        )
    return list(labels)


class _ArraysOnly(pickle.Unpickler):
    """Reads pickles of plain values and NumPy arrays; every other name that a pickle asks for is refused."""

    _KNOWN: ClassVar[dict[tuple[str, str], Any]] = {
        **{(f"numpy.{core}.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0] for core in ("core", "_core")},
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): codecs.encode,  # how Python 3 pickles bytes for Python 2
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return what a pickle names, if it is known."""
        if (module, name) not in self._KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self._KNOWN[module, name]


def _official(batch: Batch) -> dict[bytes, Any]:
    """Return the official batch: ``data`` uint8 ``[N, 3072]`` and ``labels``."""
    try:
        found = _ArraysOnly(io.BytesIO(batch.pixels.read_bytes()), encoding="bytes").load()
    except (
        OSError,
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        AttributeError,
        IndexError,
        KeyError,
    ) as error:
        raise UserError(
            f"{batch.pixels} is no batch of CIFAR-10 that can be read safely ({first_line(error)})"
        ) from None
    data: NDArray[Any] | None = found.get(b"data") if isinstance(found, dict) else None
    if (
        not isinstance(data, np.ndarray)
        or data.dtype != np.uint8
        or data.shape[1:] != (3 * SIZE * SIZE,)
        or not isinstance(found.get(b"labels"), list)
    ):
        raise UserError(f"{batch.pixels} holds no 'data' [N, 3072] of bytes with 'labels': it is no batch of CIFAR-10")
    return {b"data": data, b"labels": found[b"labels"]}
