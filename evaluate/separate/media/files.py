"""Pictures as files of a codec: each quality coded once, and the best one found that fits into some bits."""

import math
from bisect import bisect_right
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, UInt8

from sclmkb.evaluate.separate.media.codecs import PictureCodec

Packing = Literal["single", "packed"]
Pictures = UInt8[np.ndarray, "N H W 3"]

_QUALITIES = range(101)


class CodedFile:
    """The file of a picture at one quality."""

    def __init__(self, codec: PictureCodec, data: bytes) -> None:
        self._codec, self._data = codec, data

    def num_bits(self, headers: bool) -> int:
        """Return its length, with headers or without."""
        return 8 * len(self._data if headers else self._codec.coded(self._data))

    @cached_property
    def picture(self) -> UInt8[np.ndarray, "H W 3"]:
        """The picture that a receiver makes of it."""
        return self._codec.decode(self._data)


class PictureFile:
    """A picture as files of all qualities, each coded when it is first asked for."""

    def __init__(self, codec: PictureCodec, picture: UInt8[np.ndarray, "H W 3"]) -> None:
        self._codec, self._picture = codec, picture
        self._at: dict[int, CodedFile] = {}

    def within(self, num_bits: int, headers: bool) -> CodedFile | None:
        """Return the file of highest quality within so many bits, by bisection; None if not even the lowest fits."""
        if self._coded(0).num_bits(headers) > num_bits:
            return None
        above = bisect_right(_QUALITIES, num_bits, key=lambda quality: self._coded(quality).num_bits(headers))
        return self._coded(above - 1)

    def _coded(self, quality: int) -> CodedFile:
        if quality not in self._at:
            self._at[quality] = CodedFile(self._codec, self._codec.encode(self._picture, quality))
        return self._at[quality]


class CodedPictures:
    """N pictures of equal size on their way to the link.

    Args:
        pictures: of 8 bits.
        packing: ``single``, a file for each, or ``packed``, all side by side in one.
    """

    def __init__(self, pictures: Pictures, packing: Packing) -> None:
        self.pictures, self.packing = pictures, packing
        self._files: dict[str, list[PictureFile]] = {}

    @property
    def num_files(self) -> int:
        """How many files there are, of each quality."""
        return len(self.pictures) if self.packing == "single" else 1

    def within(self, codec: PictureCodec, num_bits: int, headers: bool) -> tuple[Pictures, Bool[np.ndarray, " N"]]:
        """Return the pictures that files of at most so many bits hold, and which fit; another one is black."""
        if codec.name not in self._files:
            given = self.pictures if self.packing == "single" else side_by_side(self.pictures)[None]
            self._files[codec.name] = [PictureFile(codec, picture) for picture in given]
        found = [file.within(num_bits, headers) for file in self._files[codec.name]]
        decoded = np.zeros_like(self.pictures)
        if self.packing == "packed":
            if found[0] is not None:
                decoded = apart(found[0].picture, decoded.shape)
            return decoded, np.full(len(decoded), found[0] is not None)
        for i, file in enumerate(found):
            if file is not None:
                decoded[i] = file.picture
        return decoded, np.array([file is not None for file in found])


def side_by_side(pictures: Pictures) -> UInt8[np.ndarray, "rows columns 3"]:
    """Return pictures in rows of one big picture, about a square; free places have their mean colour."""
    num, height, width, _ = pictures.shape
    columns = math.ceil(math.sqrt(num))
    rows = math.ceil(num / columns)
    places = np.empty((rows * columns, height, width, 3), np.uint8)
    places[:num], places[num:] = pictures, pictures.mean((0, 1, 2)).round()
    grid = places.reshape(rows, columns, height, width, 3)
    return np.ascontiguousarray(grid.swapaxes(1, 2)).reshape(rows * height, columns * width, 3)


def apart(picture: UInt8[np.ndarray, "rows columns 3"], shape: tuple[int, ...]) -> Pictures:
    """Return the pictures, of a shape ``[N, H, W, 3]``, that :func:`side_by_side` put into one."""
    num, height, width, _ = shape
    grid = picture.reshape(len(picture) // height, height, -1, width, 3)
    return grid.swapaxes(1, 2).reshape(-1, height, width, 3)[:num]
