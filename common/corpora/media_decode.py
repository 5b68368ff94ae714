"""Decodes the bytes of an item into the form that an encoder asks for."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from sclmkb.common.corpora.media_forms import PictureForm


class UnreadableError(ValueError):
    """The bytes are no such item; the message says why."""


def decode_picture(data: bytes, form: PictureForm) -> NDArray[np.uint8]:
    """Return a picture ``[3, S, S]``, RGB on white.

    Raises:
        UnreadableError: if it cannot be read.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            rgb = _on_white(picture)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnreadableError(f"no readable picture ({reason})") from None
    if rgb.size != (form.size, form.size):
        rgb = rgb.resize((form.size, form.size), Image.Resampling.BILINEAR)
    return np.asarray(rgb, dtype=np.uint8).transpose(2, 0, 1)


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.mode == "RGB":
        return picture.copy()
    rgba = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
