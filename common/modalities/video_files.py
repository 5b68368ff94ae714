"""Frames out of the files of videos: moving pictures by Pillow, films by OpenCV."""

import tempfile
from collections.abc import Sequence

import numpy as np
from PIL import Image

from sclmkb.common.errors import UserError
from sclmkb.common.modalities.base import UnreadableError
from sclmkb.common.modalities.image import on_white, open_picture


def read_frames(data: bytes, count: int) -> list[Image.Image]:
    """Return frames spread evenly from the first to the last, RGB on white.

    Args:
        data: the file.
        count: how many frames; a clip of fewer gives all that it has.

    Raises:
        UnreadableError: if it cannot be read up to its last frame.
        UserError: if it is a film and OpenCV is not installed.
    """
    if not data.startswith((b"\x89PNG", b"GIF8")) and data[8:12] != b"WEBP":
        return _film(data, count)
    with open_picture(data) as picture:
        frames = []
        for place in spread(getattr(picture, "n_frames", 1), count):
            picture.seek(place)
            frames.append(on_white(picture))
        return frames


def spread(length: int, count: int) -> Sequence[int]:
    """Return at most ``count`` places from 0 to ``length - 1``, both ends among them, at even distances.

    Example:
        >>> spread(9, 3)
        [0, 4, 8]
        >>> spread(2, 4)
        [0, 1]
    """
    places: list[int] = np.linspace(0, length - 1, min(length, count)).round().astype(int).tolist()
    return places


def _film(data: bytes, count: int) -> list[Image.Image]:
    try:
        import cv2
    except ModuleNotFoundError:
        raise UserError("films need OpenCV: pip install opencv-python-headless") from None
    with tempfile.NamedTemporaryFile(suffix=".film") as file:  # OpenCV reads no bytes
        file.write(data)
        file.flush()
        film = cv2.VideoCapture(file.name)
        try:
            wanted = spread(max(int(film.get(cv2.CAP_PROP_FRAME_COUNT)), 0), count)
            frames = []
            for place in range(wanted[-1] + 1 if wanted else 0):
                if not film.grab():
                    break
                if place in wanted:
                    frames.append(Image.fromarray(cv2.cvtColor(film.retrieve()[1], cv2.COLOR_BGR2RGB)))
        finally:
            film.release()
    if not wanted or len(frames) < len(wanted):
        raise UnreadableError("no readable video")
    return frames
