"""Pictures."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, PositiveInt
from torch import Tensor

from sclmkb.common.errors import first_line
from sclmkb.common.modalities.base import (
    DRAWN_HEIGHT,
    MODALITIES,
    PAPER,
    MediaBatch,
    MediaForm,
    Modality,
    UnreadableError,
)


class PictureForm(MediaForm):
    """Pictures: RGB on white, 8 bits, ``[3, S, S]``."""

    dtype = "uint8"

    kind: Literal["pictures"] = Field(default="pictures", description="the modality: pictures")
    size: PositiveInt = Field(
        default=64, description="height and width S in pixels; pictures of another size are scaled"
    )

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Channels, height and width."""
        return (3, self.size, self.size)


@MODALITIES.register(PictureForm)
class Pictures(Modality[PictureForm]):
    """Pictures in the formats that Pillow reads."""

    form = PictureForm
    suffixes = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
    encoder = "cnn"
    draws_files = True

    def recognises(self, data: bytes) -> bool:
        """Return whether a file begins as a picture that does not move."""
        starts = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*")
        is_webp = data.startswith(b"RIFF") and data[8:12] == b"WEBP"
        return (data.startswith(starts) or is_webp) and not is_animated(data)

    def problem(self, data: bytes, suffix: str) -> str:
        """Return why a picture cannot be read whole."""
        try:
            with open_picture(data):
                return ""
        except UnreadableError as error:
            return str(error)

    def decode(self, data: bytes, form: PictureForm, context: Any = None) -> tuple[NDArray[np.uint8], int]:
        """Return a picture ``[3, S, S]``, RGB on white, and 1."""
        with open_picture(data) as picture:
            rgb = on_white(picture)
        if rgb.size != (form.size, form.size):
            rgb = rgb.resize((form.size, form.size), Image.Resampling.BILINEAR)
        return np.asarray(rgb, dtype=np.uint8).transpose(2, 0, 1), 1

    def augment(self, batch: MediaBatch, chance: Float[Tensor, "B 5"]) -> MediaBatch:
        """Shift, zoom by up to 15 % and mirror every picture, with its border repeated; no colour changes."""
        return batch._replace(values=move_pictures(batch.values, chance))

    def draw(self, values: NDArray[Any], length: int, form: PictureForm, notes: Mapping[str, Any]) -> Image.Image:
        """Draw a picture ``[3, S, S]`` as the encoder sees it."""
        return to_height(Image.fromarray(np.moveaxis(values, 0, -1)))

    def draw_file(self, data: bytes) -> Image.Image | None:
        """Draw a picture as it was taken, on white."""
        try:
            with open_picture(data) as picture:
                return to_height(on_white(picture))
        except UnreadableError:
            return None


def is_animated(data: bytes) -> bool:
    """Return whether a file begins as a moving picture: an APNG, or a WebP with the flag of an animation.

    A GIF does not say so at its beginning.
    """
    if data.startswith(b"\x89PNG"):
        return b"acTL" in data[: max(data.find(b"IDAT"), 0)]
    return data.startswith(b"RIFF") and data[8:16] == b"WEBPVP8X" and bool(data[20:21] and data[20] & 2)


def move_pictures(pictures: UInt8[Tensor, "B C S S"], chance: Float[Tensor, "B 5"]) -> UInt8[Tensor, "B C S S"]:
    """Shift, zoom by up to 15 % and mirror every picture, with its border repeated."""
    size = pictures.shape[-1]
    most = max(size // 16, 1)
    shift = (chance[:, 0:2] * (2 * most + 1)).long() - most
    zoom = 0.85 + 0.3 * chance[:, 2:3]
    mirror = chance[:, 3:4] < 0.5
    center = (size - 1) / 2
    places = ((torch.arange(size) - center) * zoom + center).round().long()
    rows = (places + shift[:, 0:1]).clamp(0, size - 1)
    columns = (torch.where(mirror, places.flip(1), places) + shift[:, 1:2]).clamp(0, size - 1)
    flat = (rows[:, :, None] * size + columns[:, None, :]).flatten(1)
    moved = pictures.flatten(2).gather(2, flat[:, None, :].expand(-1, pictures.shape[1], -1))
    return moved.reshape(pictures.shape)


@contextmanager
def open_picture(data: bytes) -> Iterator[Image.Image]:
    """Open a picture and read it whole; what the library raises becomes an UnreadableError."""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
            yield picture
    except (OSError, EOFError, SyntaxError, ValueError, IndexError, Image.DecompressionBombError) as error:
        raise UnreadableError(f"no readable picture ({first_line(error)})") from None


def on_white(picture: Image.Image) -> Image.Image:
    """Return a copy in RGB; what is transparent becomes white."""
    if picture.mode == "RGB":
        return picture.copy()
    rgba = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, PAPER), rgba).convert("RGB")


def to_height(picture: Image.Image) -> Image.Image:
    """Return a picture scaled to :data:`DRAWN_HEIGHT`, or to that width if it is wider than high."""
    scale = min(DRAWN_HEIGHT / picture.height, DRAWN_HEIGHT / picture.width)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
