"""Real codecs of pictures, by Pillow: WebP and AVIF, with coded data and headers told apart."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image, features

from sclmkb.common.console import say
from sclmkb.common.errors import UserError

CodecName = Literal["webp", "avif"]


@dataclass(frozen=True)
class PictureCodec:
    """A lossy codec of Pillow.

    Attributes:
        name: as Pillow calls it.
        options: of Pillow's ``save``, beside the quality.
        coded: takes from a file what both ends do not know already: not the format, nor the sizes of picture and file.
    """

    name: CodecName
    options: Mapping[str, Any] = field(hash=False)
    coded: Callable[[bytes], bytes]

    def encode(self, picture: UInt8[np.ndarray, "H W 3"], quality: int) -> bytes:
        """Return the file of a picture at a quality of 0 to 100."""
        file = io.BytesIO()
        Image.fromarray(picture).save(file, self.name, quality=quality, **self.options)
        return file.getvalue()

    def decode(self, file: bytes) -> UInt8[np.ndarray, "H W 3"]:
        """Return the picture of a file."""
        with Image.open(io.BytesIO(file)) as picture:
            return np.asarray(picture.convert("RGB"))


def _webp_coded(file: bytes) -> bytes:
    """Return the frame without RIFF and chunk headers, start code and sizes (RFC 9649; RFC 6386, section 9.1)."""
    if file[12:16] != b"VP8 ":
        raise ValueError(f"a WebP file with a chunk {file[12:16]!r} in place of 'VP8 '")
    frame = file[20 : 20 + int.from_bytes(file[16:20], "little")]
    return frame[:3] + frame[10:]


_SEQUENCE_HEADER, _TEMPORAL_DELIMITER = 1, 2


def _avif_coded(file: bytes) -> bytes:
    """Return the frame in the box ``mdat``, without delimiter and sequence header (ISO 14496-12; AV1, section 5.3)."""
    start = 0
    while file[start + 4 : start + 8] != b"mdat":
        start += int.from_bytes(file[start : start + 4], "big")
        if start >= len(file):
            raise ValueError("an AVIF file without coded data")
    content = file[start + 8 : start + int.from_bytes(file[start : start + 4], "big")]
    while content[0] >> 3 & 15 in (_SEQUENCE_HEADER, _TEMPORAL_DELIMITER):  # the length of both is in the next byte
        content = content[2 + content[1] :]
    return content


CODECS: Mapping[CodecName, PictureCodec] = {
    "webp": PictureCodec("webp", {"method": 6}, _webp_coded),
    "avif": PictureCodec("avif", {"speed": 6, "subsampling": "4:4:4", "max_threads": 1}, _avif_coded),
}


def present(names: tuple[CodecName, ...]) -> list[PictureCodec]:
    """Return the codecs that this Pillow has, and say which it lacks.

    Raises:
        UserError: if it has none of them.
    """
    found = [CODECS[name] for name in names if features.check(name)]
    if not found:
        raise UserError(f"this Pillow has none of the codecs {', '.join(names)}")
    for name in names:
        if CODECS[name] not in found:
            say(f"eval: left out: {name}, which this Pillow lacks")
    return found
