"""Video: short clips without sound, as frames spread evenly over them."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, PositiveInt
from torch import Tensor

from sclmkb.common.modalities.base import (
    DRAWN_HEIGHT,
    MODALITIES,
    PAPER,
    MediaBatch,
    MediaForm,
    Modality,
    UnreadableError,
)
from sclmkb.common.modalities.image import is_animated, move_pictures, to_height
from sclmkb.common.modalities.video_files import read_frames

_NUM_DRAWN = 5


class VideoForm(MediaForm):
    """Video: frames, RGB on white, 8 bits, ``[F, S, S, 3]``."""

    dtype = "uint8"

    kind: Literal["video"] = Field(default="video", description="the modality: video")
    num_frames: PositiveInt = Field(
        default=8, description="frames F, spread evenly from the first to the last; shorter clips are padded"
    )
    size: PositiveInt = Field(default=64, description="height and width S in pixels; frames of another size are scaled")

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Frames, height, width and channels."""
        return (self.num_frames, self.size, self.size, 3)


@MODALITIES.register(VideoForm)
class Video(Modality[VideoForm]):
    """Animated WebP, GIF and PNG, and the films that OpenCV reads.

    A file named ``.gif`` or ``.webp`` is taken for a picture unless the corpus says that its items are videos.
    """

    form = VideoForm
    suffixes = (".apng", ".mp4", ".webm", ".avi", ".mkv", ".mov")
    encoder = "video-cnn"
    draws_files = True
    figure_width = 3.4

    def recognises(self, data: bytes) -> bool:
        """Return whether a file begins as a moving picture or as a film."""
        is_film = data[4:8] == b"ftyp" or data.startswith(b"\x1aE\xdf\xa3")
        return is_animated(data) or is_film or (data.startswith(b"RIFF") and data[8:12] == b"AVI ")

    def problem(self, data: bytes, suffix: str) -> str:
        """Return why a clip cannot be read from its first frame to its last."""
        try:
            read_frames(data, 2)
        except UnreadableError as error:
            return str(error)
        return ""

    def decode(self, data: bytes, form: VideoForm, context: Any = None) -> tuple[NDArray[np.uint8], int]:
        """Return frames ``[F, S, S, 3]``, RGB on white, and how many are real."""
        frames = [_scaled(frame, form.size) for frame in read_frames(data, form.num_frames)]
        values = np.zeros((form.num_frames, form.size, form.size, 3), np.uint8)
        values[: len(frames)] = np.stack(frames)
        return values, len(frames)

    def augment(self, batch: MediaBatch, chance: Float[Tensor, "B 5"]) -> MediaBatch:
        """Shift, zoom by up to 15 % and mirror all frames of a clip alike; no colour and no order changes."""
        count, frames, size = batch.values.shape[:3]
        planes = batch.values.movedim(-1, 2).reshape(count, frames * 3, size, size)
        moved = move_pictures(planes, chance).reshape(count, frames, 3, size, size).movedim(2, -1)
        return batch._replace(values=moved.contiguous())

    def draw(self, values: NDArray[Any], length: int, form: VideoForm, notes: Mapping[str, Any]) -> Image.Image:
        """Draw frames ``[F, S, S, 3]`` side by side, spread evenly from the first to the last."""
        chosen = np.unique(np.linspace(0, length - 1, _NUM_DRAWN).round().astype(int))
        return _strip([Image.fromarray(values[place]) for place in chosen])

    def draw_file(self, data: bytes) -> Image.Image | None:
        """Draw frames of a clip as it was taken, side by side."""
        try:
            return _strip(read_frames(data, _NUM_DRAWN))
        except UnreadableError:
            return None


def _scaled(frame: Image.Image, size: int) -> NDArray[np.uint8]:
    if frame.size != (size, size):
        frame = frame.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(frame, dtype=np.uint8)


def _strip(frames: list[Image.Image]) -> Image.Image:
    drawn = [to_height(frame) for frame in frames]
    strip = Image.new("RGB", (sum(frame.width for frame in drawn), DRAWN_HEIGHT), PAPER)
    left = 0
    for frame in drawn:
        strip.paste(frame, (left, 0))
        left += frame.width
    return strip
