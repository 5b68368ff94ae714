"""What kind of item some bytes are, and whether they are whole: pictures, motion and sound."""

import io
import threading
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from sclmkb.common.modalities.forms import MediaKind

_ONE_AT_A_TIME = threading.Lock()

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
SOUNDS = (".wav", ".ogg", ".oga", ".opus", ".flac", ".mp3", ".aif", ".aiff")
_PICTURE_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_SOUND_STARTS = (b"OggS", b"fLaC", b"RF64", b"ID3", b"FORM")


def kind_of(name: str, data: bytes) -> MediaKind | None:
    """Return what an item is, by the suffix of its name, or else by its first bytes; None if neither tells."""
    suffix = PurePosixPath(name).suffix.lower()
    is_riff = data.startswith(b"RIFF")
    if suffix in PICTURES or data.startswith(_PICTURE_STARTS) or (is_riff and data[8:12] == b"WEBP"):
        return "pictures"
    if suffix == ".npy" or data.startswith(b"\x93NUMPY"):
        return "motion"
    if suffix in SOUNDS or data.startswith(_SOUND_STARTS) or (is_riff and data[8:12] == b"WAVE"):
        return "audio"
    return None


def media_problem(name: str, data: bytes) -> str:
    """Return what is wrong with a file's bytes, empty if nothing is.

    The suffix of ``name`` or the first bytes tell the kind: pictures are decoded, motion must be a finite NumPy array,
    a wave file as long as its header says, another sound one that can be opened. Other kinds of file only need to hold
    something.
    """
    if not data:
        return "the file is empty"
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in PICTURES or data.startswith((b"\x89PNG", b"\xff\xd8\xff")):
        return _picture_problem(data)
    if suffix == ".npy":
        return motion_problem(data)
    if suffix == ".wav" or (data[:4] == b"RIFF" and data[8:12] == b"WAVE"):
        return wave_problem(data)
    if suffix in SOUNDS or kind_of("", data) == "audio":
        return _sound_problem(data)
    return ""


def read_motion(data: bytes, width: int | None = None) -> np.ndarray[Any, Any]:
    """Return the motion features ``[frames, width]`` in the bytes of a ``.npy`` file.

    One thread at a time: the header is parsed by ``ast``, which in Python 3.11 fails now and then in several threads
    (SystemError: AST constructor recursion depth mismatch, python/cpython#106905).

    Raises:
        ValueError: if it holds no such features; the message says why.
    """
    try:
        with _ONE_AT_A_TIME:
            features: np.ndarray[Any, Any] = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError):
        raise ValueError("no NumPy array") from None
    if features.ndim < 2 or not len(features) or (width is not None and features.shape[1:] != (width,)):
        raise ValueError(f"features have shape {list(features.shape)}, not [frames, {width or 'width'}]")
    if not np.issubdtype(features.dtype, np.number) or not np.isfinite(features).all():
        raise ValueError("features are not all finite numbers")
    return features


def motion_problem(data: bytes, width: int | None = None) -> str:
    """Return what is wrong with a ``.npy`` file of motion features ``[frames, width]``, empty if nothing is."""
    try:
        read_motion(data, width)
    except ValueError as error:
        return str(error)
    return ""


def _picture_problem(data: bytes) -> str:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return f"no readable picture ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
    return ""


def wave_problem(data: bytes) -> str:
    """Return whether a wave file is as long as its header says, which decoders do not mind."""
    if data[:4] not in (b"RIFF", b"RF64") or data[8:12] != b"WAVE":
        return "no wave file"
    stated = int.from_bytes(data[4:8], "little") + 8
    if data[:4] == b"RIFF" and stated > len(data) + 1:
        return f"the wave file breaks off: {len(data)} of {stated} bytes"
    return ""


def _sound_problem(data: bytes) -> str:
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            return "" if file.frames else "the sound is empty"
    except (soundfile.SoundFileError, OSError) as error:
        return f"no readable sound ({str(error).splitlines()[0]})"
